//! The layers that CLIP's two towers and BLIP's vision tower have in common: blocks with their
//! norms in front, on sequences one below the other in `[rows, d]`.
//!
//! The inner sums of a matrix product may be split by its number of rows, and a figure must not
//! depend on what was computed together with it: a caller always gives the same number of rows.
//! No gradients here, so softmax and layer norm are candle's fused ones. Own code instead of
//! `candle-transformers`: that has CLIP with one activation and one epsilon only and a BLIP whose
//! cached keys cannot follow their beams, for 19 s more of a debug build and 200 s of a release.

use std::path::PathBuf;

use candle_core::{D, Result, Tensor};
use candle_nn::{LayerNorm, Linear, Module};
use serde::Deserialize;

use crate::error::Error;
use crate::folder::Scope;

/// Between the two layers of an MLP, by its name in `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Activation {
    /// `x * sigmoid(1.702 x)`
    QuickGelu,
    /// With the error function.
    Gelu,
}

impl Activation {
    pub(crate) fn forward(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::QuickGelu => x * candle_nn::ops::sigmoid(&(x * 1.702)?)?,
            Self::Gelu => x.gelu_erf(),
        }
    }
}

/// Sizes of a stack of blocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// Channels.
    pub(crate) width: usize,
    /// Channels inside the MLP.
    pub(crate) inner: usize,
    pub(crate) heads: usize,
    pub(crate) layers: usize,
    pub(crate) eps: f64,
    pub(crate) activation: Activation,
}

impl Sizes {
    /// Refuses what no tensor can have, blaming `section` of the file.
    pub(crate) fn check(&self, path: PathBuf, section: &str) -> crate::Result<()> {
        let (d, heads) = (self.width, self.heads);
        if heads == 0 || d == 0 || !d.is_multiple_of(heads) {
            let message =
                format!("`{section}`: {heads} attention heads do not divide {d} channels");
            return Err(Error::Malformed { path, message });
        }
        Ok(())
    }
}

pub(crate) fn linear(scope: &Scope<'_>, from: usize, to: usize) -> crate::Result<Linear> {
    Ok(Linear::new(scope.get("weight", &[to, from])?, Some(scope.get("bias", &[to])?)))
}

pub(crate) fn layer_norm(scope: &Scope<'_>, width: usize, eps: f64) -> crate::Result<LayerNorm> {
    let (weight, bias) = (scope.get("weight", &[width])?, scope.get("bias", &[width])?);
    Ok(LayerNorm::new(weight, bias, eps))
}

/// A stack of blocks.
pub(crate) struct Stack(Vec<Block>);

impl Stack {
    /// Loads `layers.0`, `layers.1` and so on below `scope`.
    pub(crate) fn load(scope: &Scope<'_>, sizes: &Sizes) -> crate::Result<Self> {
        let block = |i| Block::load(&scope.at(&format!("layers.{i}")), sizes);
        Ok(Self((0..sizes.layers).map(block).collect::<crate::Result<_>>()?))
    }

    /// `[rows, d]` to the same. Each sequence reads itself; rows behind the last one are padding.
    pub(crate) fn forward(&self, x: Tensor, sequences: &[Sequence]) -> Result<Tensor> {
        self.0.iter().try_fold(x, |x, block| block.forward(&x, sequences))
    }
}

/// Rows that read one another.
pub(crate) struct Sequence {
    /// How many, behind those of the sequence in front.
    pub(crate) rows: usize,
    /// Added to the scores `[rows, rows]`.
    pub(crate) mask: Option<Tensor>,
}

struct Block {
    norm1: LayerNorm,
    /// Queries, keys and values, in this order.
    qkv: Linear,
    out: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    sizes: Sizes,
}

impl Block {
    fn load(scope: &Scope<'_>, sizes: &Sizes) -> crate::Result<Self> {
        let (d, inner, eps) = (sizes.width, sizes.inner, sizes.eps);
        let attention = scope.at("self_attn");
        // BLIP's vision tower keeps the three in one tensor, CLIP each on its own.
        let (qkv, out) = if attention.has("qkv.weight") {
            (linear(&attention.at("qkv"), d, 3 * d)?, linear(&attention.at("projection"), d, d)?)
        } else {
            let three = ["q_proj", "k_proj", "v_proj"].map(|name| attention.at(name));
            let joined = |name: &str, shape: &[usize]| -> crate::Result<Tensor> {
                let parts: Vec<_> = three
                    .iter()
                    .map(|scope| scope.get(name, shape))
                    .collect::<crate::Result<_>>()?;
                Ok(Tensor::cat(&parts, 0)?)
            };
            let qkv = Linear::new(joined("weight", &[d, d])?, Some(joined("bias", &[d])?));
            (qkv, linear(&attention.at("out_proj"), d, d)?)
        };
        Ok(Self {
            norm1: layer_norm(&scope.at("layer_norm1"), d, eps)?,
            qkv,
            out,
            norm2: layer_norm(&scope.at("layer_norm2"), d, eps)?,
            fc1: linear(&scope.at("mlp.fc1"), d, inner)?,
            fc2: linear(&scope.at("mlp.fc2"), inner, d)?,
            sizes: *sizes,
        })
    }

    fn forward(&self, x: &Tensor, sequences: &[Sequence]) -> Result<Tensor> {
        let x = (x + self.attend(&self.norm1.forward(x)?, sequences)?)?;
        let h = self.fc1.forward(&self.norm2.forward(&x)?)?;
        x + self.fc2.forward(&self.sizes.activation.forward(&h)?)?
    }

    fn attend(&self, x: &Tensor, sequences: &[Sequence]) -> Result<Tensor> {
        let (rows, d) = x.dims2()?;
        let (heads, size) = (self.sizes.heads, d / self.sizes.heads);
        // [rows, 3d] to [3, heads, rows, size]
        let qkv = self.qkv.forward(x)?.reshape((rows, 3, heads, size))?.permute((1, 2, 0, 3))?;
        let mut read = Vec::with_capacity(sequences.len() + 1);
        let mut start = 0;
        for sequence in sequences {
            let own = qkv.narrow(2, start, sequence.rows)?;
            let part = |i| own.get(i)?.contiguous();
            let (query, key, value) = ((part(0)? / (size as f64).sqrt())?, part(1)?, part(2)?);
            read.push(attention(&query, &key, &value, sequence.mask.as_ref())?);
            start += sequence.rows;
        }
        if start < rows {
            read.push(Tensor::zeros((rows - start, d), x.dtype(), x.device())?);
        }
        Tensor::cat(&read, 0)?.apply(&self.out)
    }
}

/// What scaled queries `[heads, m, size]` read from keys and values `[heads, n, size]`:
/// `[m, heads * size]`.
pub(crate) fn attention(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    mask: Option<&Tensor>,
) -> Result<Tensor> {
    let mut scores = query.matmul(&key.t()?)?;
    if let Some(mask) = mask {
        scores = scores.broadcast_add(mask)?;
    }
    let read = candle_nn::ops::softmax_last_dim(&scores)?.matmul(value)?;
    read.transpose(0, 1)?.contiguous()?.flatten_from(D::Minus2)
}

/// `[n, n]`: 0 on and below the diagonal, minus infinity above.
pub(crate) fn causal(n: usize, device: &candle_core::Device) -> Result<Tensor> {
    let mask: Vec<f32> =
        (0..n * n).map(|i| if i % n > i / n { f32::NEG_INFINITY } else { 0. }).collect();
    Tensor::from_vec(mask, (n, n), device)
}

/// Cuts `[3, h, w]` into squares of side `p`: `[h/p * w/p, 3 * p * p]`, rows from the top, each in
/// the order of a convolution's kernel.
pub(crate) fn patches(pixels: &Tensor, p: usize) -> Result<Tensor> {
    let (channels, h, w) = pixels.dims3()?;
    let cut = pixels.reshape(&[channels, h / p, p, w / p, p][..])?.permute([1, 3, 0, 2, 4])?;
    cut.reshape(((h / p) * (w / p), channels * p * p))
}
