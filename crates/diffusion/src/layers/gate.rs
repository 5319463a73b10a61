//! The gate of the feed-forward layers.

use candle_core::{Result, Tensor};
use excite_kernels::instructions;

use super::frozen::{Computed, frozen, with_values};
use super::norm::with_both;
use super::{composed, has_kernels};

/// GEGLU: `[b, 2c, h, w]`, values in front of gates, to `[b, c, h, w]`: value times GELU of gate.
pub(crate) fn geglu(x: &Tensor) -> Result<Tensor> {
    let detached = x.detach();
    if !has_kernels(x) {
        let y = Computed::Tensor(composed::geglu(&detached)?);
        return frozen(x, y, move |_, gradient| composed::geglu_gradient(&detached, gradient));
    }
    let (b, channels, height, width) = x.dims4()?;
    let shape = (b, channels / 2, height, width);
    let image = channels / 2 * height * width;
    let y = with_values(&detached, |x| excite_kernels::geglu(instructions(), x, image))?;
    frozen(x, Computed::values(y, shape), move |_, gradient| {
        with_both(&detached, gradient, |x, g| {
            excite_kernels::geglu_gradient(instructions(), x, g, image)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::testing::{assert_twins, values};

    #[test]
    fn the_gate_and_its_twin_agree() {
        let x = (values(&[2, 10, 5, 7], 1) * 3.).unwrap();
        let twin = |x: &Tensor| {
            let y = Computed::Tensor(composed::geglu(&x.detach()).unwrap());
            let detached = x.detach();
            frozen(x, y, move |_, g| composed::geglu_gradient(&detached, g)).unwrap()
        };
        assert_twins(&x, |x| geglu(x).unwrap(), twin, "geglu");
    }
}
