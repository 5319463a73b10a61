//! Group and layer normalisation with frozen scale and shift, channels first.

use std::sync::Arc;

use candle_core::{Result, Tensor};
use excite_kernels::instructions;

use super::frozen::{Computed, frozen, with_values};
use super::{composed, has_kernels};
use crate::weights::Scope;

/// Group normalisation over `[b, c, h, w]`, with or without SiLU behind it.
pub(crate) struct GroupNorm(Arc<Groups>);

enum Groups {
    Kernel(excite_kernels::GroupNorm),
    Composed(composed::GroupNorm),
}

impl GroupNorm {
    pub(crate) fn load(
        scope: &Scope<'_>,
        channels: usize,
        groups: usize,
        eps: f64,
        silu: bool,
    ) -> crate::Result<Self> {
        let (weight, bias) = (scope.get("weight", &[channels])?, scope.get("bias", &[channels])?);
        Ok(Self::new(&weight, &bias, groups, eps, silu)?)
    }

    fn new(weight: &Tensor, bias: &Tensor, groups: usize, eps: f64, silu: bool) -> Result<Self> {
        let norm = if has_kernels(weight) {
            let (weight, bias) = (weight.to_vec1()?, bias.to_vec1()?);
            let eps = eps as f32;
            Groups::Kernel(excite_kernels::GroupNorm::new(weight, bias, groups, eps, silu))
        } else {
            Groups::Composed(composed::GroupNorm::new(weight, bias, groups, eps, silu)?)
        };
        Ok(Self(Arc::new(norm)))
    }

    /// `[b, c, h, w]` to the same.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (detached, norm) = (x.detach(), self.0.clone());
        let y = match &*norm {
            Groups::Composed(norm) => Computed::Tensor(norm.forward(&detached)?),
            Groups::Kernel(norm) => {
                let pixels = pixels(x)?;
                let y = with_values(&detached, |x| norm.forward(instructions(), x, pixels))?;
                Computed::values(y, x.shape())
            }
        };
        frozen(x, y, move |_, gradient| match &*norm {
            Groups::Composed(norm) => norm.input_gradient(&detached, gradient),
            Groups::Kernel(norm) => {
                let pixels = pixels(&detached)?;
                with_both(&detached, gradient, |x, g| {
                    norm.input_gradient(instructions(), x, g, pixels)
                })
            }
        })
    }
}

/// Layer normalisation over the channels of each pixel of `[b, c, h, w]`.
pub(crate) struct ChannelNorm(Arc<Channels>);

enum Channels {
    Kernel(excite_kernels::ChannelNorm),
    Composed(composed::ChannelNorm),
}

impl ChannelNorm {
    pub(crate) fn load(scope: &Scope<'_>, channels: usize, eps: f64) -> crate::Result<Self> {
        let (weight, bias) = (scope.get("weight", &[channels])?, scope.get("bias", &[channels])?);
        Ok(Self::new(weight, bias, eps)?)
    }

    fn new(weight: Tensor, bias: Tensor, eps: f64) -> Result<Self> {
        let norm = if has_kernels(&weight) {
            let (weight, bias) = (weight.to_vec1()?, bias.to_vec1()?);
            Channels::Kernel(excite_kernels::ChannelNorm::new(weight, bias, eps as f32))
        } else {
            Channels::Composed(composed::ChannelNorm::new(&weight, &bias, eps)?)
        };
        Ok(Self(Arc::new(norm)))
    }

    /// `[b, c, h, w]` to the same.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (detached, norm) = (x.detach(), self.0.clone());
        let y = match &*norm {
            Channels::Composed(norm) => Computed::Tensor(norm.forward(&detached)?),
            Channels::Kernel(norm) => {
                let pixels = pixels(x)?;
                let y = with_values(&detached, |x| norm.forward(instructions(), x, pixels))?;
                Computed::values(y, x.shape())
            }
        };
        frozen(x, y, move |_, gradient| match &*norm {
            Channels::Composed(norm) => norm.input_gradient(&detached, gradient),
            Channels::Kernel(norm) => {
                let pixels = pixels(&detached)?;
                with_both(&detached, gradient, |x, g| {
                    norm.input_gradient(instructions(), x, g, pixels)
                })
            }
        })
    }
}

fn pixels(x: &Tensor) -> Result<usize> {
    let (_, _, height, width) = x.dims4()?;
    Ok(height * width)
}

/// The gradient of `x`, in its shape, from its values and those of a gradient.
pub(super) fn with_both(
    x: &Tensor,
    gradient: &Tensor,
    f: impl FnOnce(&[f32], &[f32]) -> Vec<f32>,
) -> Result<Tensor> {
    let values = with_values(x, |x| with_values(gradient, |gradient| f(x, gradient)))??;
    Computed::values(values, x.shape()).into_tensor()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::testing::{assert_twins, values};

    #[test]
    fn norms_and_their_twins_agree() {
        let (weight, bias) = (values(&[12], 5), values(&[12], 6));
        let x = (values(&[2, 12, 5, 7], 1) + 3.).unwrap();
        for silu in [false, true] {
            let norm = GroupNorm::new(&weight, &bias, 4, 1e-5, silu).unwrap();
            let twin = composed::GroupNorm::new(&weight, &bias, 4, 1e-5, silu).unwrap();
            let twin = GroupNorm(Arc::new(Groups::Composed(twin)));
            let what = format!("group norm, silu {silu}");
            assert_twins(&x, |x| norm.forward(x).unwrap(), |x| twin.forward(x).unwrap(), &what);
        }
        let norm = ChannelNorm::new(weight.clone(), bias.clone(), 1e-5).unwrap();
        let twin = composed::ChannelNorm::new(&weight, &bias, 1e-5).unwrap();
        let twin = ChannelNorm(Arc::new(Channels::Composed(twin)));
        let (one, other) = (|x: &Tensor| norm.forward(x), |x: &Tensor| twin.forward(x));
        assert_twins(&x, |x| one(x).unwrap(), |x| other(x).unwrap(), "channel norm");
    }
}
