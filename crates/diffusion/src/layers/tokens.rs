//! Layers over tokens, `[b, n, c]`: the text encoder's, and the time embedding's with one token.
//!
//! They run a few times an image and are composed of candle's operations on every device.

use candle_core::{DType, Result, Tensor};

use super::composed::{Rows, softmax_gradient};
use super::frozen::{Computed, frozen};
use crate::weights::Scope;

/// A linear layer on the last axis. No gradient passes.
#[derive(Clone)]
pub(crate) struct Linear {
    /// `[out, in]`
    weight: Tensor,
    /// `[out]`
    bias: Option<Tensor>,
}

impl Linear {
    /// Loads `weight` `[out, in]` and, if there, `bias` `[out]`.
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
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
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

/// Layer normalisation over the last axis. No gradient passes.
pub(crate) struct LayerNorm {
    /// `[c]`, f32
    weight: Tensor,
    /// `[c]`, f32
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    pub(crate) fn load(scope: &Scope<'_>, channels: usize, eps: f64) -> crate::Result<Self> {
        let weight = scope.get("weight", &[channels])?;
        let bias = scope.get("bias", &[channels])?;
        let (weight, bias) = (weight.to_dtype(DType::F32)?, bias.to_dtype(DType::F32)?);
        Ok(Self { weight, bias, eps })
    }

    /// `[b, n, c]` to the same.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let rows = Rows::of(&x.detach(), self.eps)?;
        let y = rows.normalised.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)?;
        y.to_dtype(x.dtype())
    }
}

/// Probabilities along the last axis, f32 in every precision: candle's fused softmax with the gradient it lacks.
pub(crate) fn softmax(x: &Tensor) -> Result<Tensor> {
    let x = x.to_dtype(DType::F32)?;
    let y = candle_nn::ops::softmax_last_dim(&x.detach().contiguous()?)?;
    frozen(&x, Computed::Tensor(y), |probabilities, gradient| {
        softmax_gradient(probabilities, gradient)
    })
}
