//! Products with frozen matrices.

use candle_core::{Result, Tensor};

use super::frozen::frozen;
use crate::weights::Scope;

/// A linear layer on the last axis. Clones share the weights.
#[derive(Clone)]
pub(crate) struct Linear {
    /// `[out, in]`
    weight: Tensor,
    /// `[out]`
    bias: Option<Tensor>,
}

impl Linear {
    /// Loads `weight` `[out, in]` and, if there, `bias` `[out]`. A 1x1 convolution
    /// `[out, in, 1, 1]` is taken for what it is.
    pub(crate) fn load(scope: &Scope<'_>, (cin, cout): (usize, usize)) -> crate::Result<Self> {
        let weight = scope.get_any("weight", &[&[cout, cin], &[cout, cin, 1, 1]])?;
        let bias = scope.has("bias").then(|| scope.get("bias", &[cout])).transpose()?;
        Ok(Self { weight, bias })
    }

    /// Channels of the result.
    pub(crate) fn width(&self) -> usize {
        self.weight.dims()[0]
    }

    /// `[b, n, in]` to `[b, n, out]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = per_image(&x.detach(), &self.weight.t()?)?;
        let y = match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        };
        let this = self.clone();
        frozen(x, y, move |gradient| this.input_gradient(gradient))
    }

    /// The gradient of the input `[b, n, in]` from that of the result `[b, n, out]`.
    pub(crate) fn input_gradient(&self, gradient: &Tensor) -> Result<Tensor> {
        per_image(gradient, &self.weight)
    }
}

/// `[b, n, i] x [i, o]`, one product per image: candle would merge the batch into the rows, and the
/// row count decides how the GEMM library splits its sums.
fn per_image(x: &Tensor, matrix: &Tensor) -> Result<Tensor> {
    let images = x.dim(0)?;
    if images == 1 {
        return x.squeeze(0)?.matmul(matrix)?.unsqueeze(0);
    }
    let each = (0..images).map(|i| x.get(i)?.matmul(matrix)).collect::<Result<Vec<_>>>()?;
    Tensor::stack(&each, 0)
}

/// `[b, h, n, i] x [b, h, i, o]` where the second factor is frozen.
pub(crate) fn matmul_frozen(x: &Tensor, matrix: &Tensor) -> Result<Tensor> {
    let y = x.detach().matmul(matrix)?;
    let matrix = matrix.clone();
    frozen(x, y, move |gradient| gradient.matmul(&matrix.t()?))
}
