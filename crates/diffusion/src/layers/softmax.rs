//! Softmax over the last axis: candle's fused one, with the gradient it lacks.

use candle_core::{D, Result, Tensor};

use super::frozen::frozen;

/// Probabilities along the last axis.
pub(crate) fn softmax(x: &Tensor) -> Result<Tensor> {
    let y = candle_nn::ops::softmax_last_dim(&x.detach().contiguous()?)?;
    let probabilities = y.clone();
    frozen(x, y, move |gradient| softmax_gradient(&probabilities, gradient))
}

/// The gradient of what went into a softmax, from its result and the gradient of that.
pub(super) fn softmax_gradient(probabilities: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    let along = (gradient * probabilities)?.sum_keepdim(D::Minus1)?;
    gradient.broadcast_sub(&along)? * probabilities
}
