//! Group and layer normalisation composed of candle's operations. Whatever comes in, they compute in
//! f32 and give back what came in.

use candle_core::{D, DType, Result, Tensor};

/// Rows (the last axis) brought to mean 0 and variance 1, with what the backward needs.
pub(in crate::layers) struct Rows {
    pub(in crate::layers) normalised: Tensor,
    /// One over the standard deviation, `[.., 1]`.
    scale: Tensor,
}

impl Rows {
    /// In f32.
    pub(in crate::layers) fn of(x: &Tensor, eps: f64) -> Result<Self> {
        let x = x.to_dtype(DType::F32)?;
        // Two passes, not mean(x^2) - mean(x)^2: real activations have means far from 0.
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let scale = (variance + eps)?.sqrt()?.recip()?;
        Ok(Self { normalised: centred.broadcast_mul(&scale)?, scale })
    }

    /// Of an f32 gradient, with n = normalised: scale * (g - mean(g) - n * mean(g * n)).
    pub(in crate::layers) fn input_gradient(&self, gradient: &Tensor) -> Result<Tensor> {
        let along = (gradient * &self.normalised)?.mean_keepdim(D::Minus1)?;
        let centred = gradient.broadcast_sub(&gradient.mean_keepdim(D::Minus1)?)?;
        (centred - self.normalised.broadcast_mul(&along)?)?.broadcast_mul(&self.scale)
    }
}

/// Group normalisation over `[b, c, h, w]`, with or without SiLU behind it.
pub(in crate::layers) struct GroupNorm {
    /// `[1, c, 1, 1]`, f32
    weight: Tensor,
    /// `[1, c, 1, 1]`, f32
    bias: Tensor,
    groups: usize,
    eps: f64,
    silu: bool,
}

impl GroupNorm {
    /// From scale and shift `[c]`.
    pub(in crate::layers) fn new(
        weight: &Tensor,
        bias: &Tensor,
        groups: usize,
        eps: f64,
        silu: bool,
    ) -> Result<Self> {
        let f32 = |x: &Tensor| x.reshape((1, (), 1, 1))?.to_dtype(DType::F32);
        let (weight, bias) = (f32(weight)?, f32(bias)?);
        Ok(Self { weight, bias, groups, eps, silu })
    }

    fn rows(&self, x: &Tensor) -> Result<Rows> {
        Rows::of(&x.reshape((x.dim(0)?, self.groups, ()))?, self.eps)
    }

    fn scaled(&self, rows: &Rows, x: &Tensor) -> Result<Tensor> {
        let normalised = rows.normalised.reshape(x.dims4()?)?;
        normalised.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)
    }

    pub(in crate::layers) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.scaled(&self.rows(x)?, x)?;
        let y = if self.silu { y.silu()? } else { y };
        y.to_dtype(x.dtype())
    }

    pub(in crate::layers) fn input_gradient(
        &self,
        x: &Tensor,
        gradient: &Tensor,
    ) -> Result<Tensor> {
        let (rows, gradient) = (self.rows(x)?, gradient.to_dtype(DType::F32)?);
        let gradient = match self.silu {
            false => gradient,
            true => {
                // s(z) * (1 + z * (1 - s(z)))
                let z = self.scaled(&rows, x)?;
                let s = candle_nn::ops::sigmoid(&z)?;
                let slope = ((&z - (&z * &s)?)? + 1.)?;
                (gradient * (slope * s)?)?
            }
        };
        let gradient = gradient.broadcast_mul(&self.weight)?;
        let gradient = gradient.reshape((x.dim(0)?, self.groups, ()))?;
        rows.input_gradient(&gradient)?.reshape(x.dims4()?)?.to_dtype(x.dtype())
    }
}

/// Layer normalisation over the channels of each pixel of `[b, c, h, w]`.
pub(in crate::layers) struct ChannelNorm {
    /// `[c]`, f32
    weight: Tensor,
    /// `[c]`, f32
    bias: Tensor,
    eps: f64,
}

impl ChannelNorm {
    /// From scale and shift `[c]`.
    pub(in crate::layers) fn new(weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Self> {
        let (weight, bias) = (weight.to_dtype(DType::F32)?, bias.to_dtype(DType::F32)?);
        Ok(Self { weight, bias, eps })
    }

    pub(in crate::layers) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let rows = Rows::of(&channels_last(x)?, self.eps)?;
        let y = rows.normalised.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)?;
        channels_first(&y, x)
    }

    pub(in crate::layers) fn input_gradient(
        &self,
        x: &Tensor,
        gradient: &Tensor,
    ) -> Result<Tensor> {
        let rows = Rows::of(&channels_last(x)?, self.eps)?;
        let gradient = channels_last(gradient)?.to_dtype(DType::F32)?;
        let gradient = gradient.broadcast_mul(&self.weight)?;
        channels_first(&rows.input_gradient(&gradient)?, x)
    }
}

/// `[b, c, h, w]` to `[b, h * w, c]`.
fn channels_last(x: &Tensor) -> Result<Tensor> {
    x.flatten_from(2)?.transpose(1, 2)?.contiguous()
}

/// The way back, to the shape and precision of `like`.
fn channels_first(x: &Tensor, like: &Tensor) -> Result<Tensor> {
    x.transpose(1, 2)?.to_dtype(like.dtype())?.contiguous()?.reshape(like.shape())
}
