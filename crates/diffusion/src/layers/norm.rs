//! Group and layer normalisation with frozen scale and shift.

use candle_core::{D, Result, Tensor};

use super::frozen::frozen;
use crate::weights::Scope;

/// Group normalisation over `[b, c, h, w]`.
pub(crate) struct GroupNorm {
    /// `[1, c, 1, 1]`
    weight: Tensor,
    /// `[1, c, 1, 1]`
    bias: Tensor,
    groups: usize,
    eps: f64,
}

impl GroupNorm {
    pub(crate) fn load(
        scope: &Scope<'_>,
        channels: usize,
        groups: usize,
        eps: f64,
    ) -> crate::Result<Self> {
        let weight = scope.get("weight", &[channels])?.reshape((1, channels, 1, 1))?;
        let bias = scope.get("bias", &[channels])?.reshape((1, channels, 1, 1))?;
        Ok(Self { weight, bias, groups, eps })
    }

    /// `[b, c, h, w]` to the same.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (shape, groups) = (x.dims4()?, (x.dim(0)?, self.groups, ()));
        let rows = Rows::of(&x.detach().reshape(groups)?, self.eps)?;
        let y = rows.normalised.reshape(shape)?;
        let y = y.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)?;
        let weight = self.weight.clone();
        frozen(x, y, move |gradient| {
            let gradient = gradient.broadcast_mul(&weight)?.reshape(groups)?;
            rows.input_gradient(&gradient)?.reshape(shape)
        })
    }
}

/// Layer normalisation over the last axis.
pub(crate) struct LayerNorm {
    /// `[c]`
    weight: Tensor,
    /// `[c]`
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    pub(crate) fn load(scope: &Scope<'_>, channels: usize, eps: f64) -> crate::Result<Self> {
        let weight = scope.get("weight", &[channels])?;
        let bias = scope.get("bias", &[channels])?;
        Ok(Self { weight, bias, eps })
    }

    /// `[b, n, c]` to the same.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let rows = Rows::of(&x.detach(), self.eps)?;
        let y = rows.normalised.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)?;
        let weight = self.weight.clone();
        frozen(x, y, move |gradient| rows.input_gradient(&gradient.broadcast_mul(&weight)?))
    }
}

/// Rows (the last axis) brought to mean 0 and variance 1, with what the backward needs.
struct Rows {
    normalised: Tensor,
    /// One over the standard deviation, `[.., 1]`.
    scale: Tensor,
}

impl Rows {
    fn of(x: &Tensor, eps: f64) -> Result<Self> {
        // Two passes, not mean(x^2) - mean(x)^2: real activations have means far from 0.
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let scale = (variance + eps)?.sqrt()?.recip()?;
        Ok(Self { normalised: centred.broadcast_mul(&scale)?, scale })
    }

    /// With n = normalised: scale * (g - mean(g) - n * mean(g * n)).
    fn input_gradient(&self, gradient: &Tensor) -> Result<Tensor> {
        let along = (gradient * &self.normalised)?.mean_keepdim(D::Minus1)?;
        let centred = gradient.broadcast_sub(&gradient.mean_keepdim(D::Minus1)?)?;
        (centred - self.normalised.broadcast_mul(&along)?)?.broadcast_mul(&self.scale)
    }
}
