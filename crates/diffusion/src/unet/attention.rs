//! The transformer of a UNet level: self-attention, cross-attention with capture, feed-forward.

use std::ops::ControlFlow;
use std::sync::Arc;

use candle_core::{D, Result, Tensor};

use super::config::Level;
use super::{Capture, Conditioning};
use crate::layers::{
    GroupNorm, LayerNorm, Linear, attend, attend_gradients, frozen, matmul_frozen, recomputed,
    softmax,
};
use crate::weights::Scope;

/// `Break`: the last map that was wanted is captured, the rest need not be computed.
pub(super) type Flow = ControlFlow<(), Tensor>;

/// `Transformer2DModel` of diffusers.
pub(super) struct Transformer {
    norm: GroupNorm,
    proj_in: Linear,
    blocks: Vec<Arc<Block>>,
    proj_out: Linear,
    /// What a block needs for its gradient is not kept but computed again: the ten blocks a
    /// transformer of SDXL would keep 13 GB. Bits do not depend on it.
    recompute: bool,
}

/// Keys and values of a text for one cross-attention.
type TextKeys<'a> = (&'a Tensor, &'a Tensor);

struct Block {
    norm1: LayerNorm,
    attn1: SelfAttention,
    norm2: LayerNorm,
    attn2: CrossAttention,
    norm3: LayerNorm,
    /// `[in] -> [2 * inner]`: values, then gates.
    ff_in: Linear,
    ff_out: Linear,
}

struct SelfAttention {
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    heads: usize,
}

struct CrossAttention {
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    heads: usize,
    /// Position among all cross-attentions in the order of execution.
    index: usize,
    level: usize,
}

/// Where a transformer stands in the UNet.
pub(super) struct Place<'a> {
    pub(super) level: usize,
    pub(super) config: &'a Level,
    pub(super) context: usize,
    pub(super) groups: usize,
    /// Counts the cross-attentions in the order of execution.
    pub(super) next_index: &'a mut usize,
}

impl Transformer {
    pub(super) fn load(scope: &Scope<'_>, place: &mut Place<'_>) -> crate::Result<Self> {
        let channels = place.config.channels;
        let blocks = (0..place.config.transformer_layers)
            .map(|i| {
                Block::load(&scope.at(&format!("transformer_blocks.{i}")), place).map(Arc::new)
            })
            .collect::<crate::Result<_>>()?;
        Ok(Self {
            // This norm's epsilon is fixed in diffusers, whatever `norm_eps` says.
            norm: GroupNorm::load(&scope.at("norm"), channels, place.groups, 1e-6)?,
            proj_in: Linear::load(&scope.at("proj_in"), (channels, channels))?,
            blocks,
            proj_out: Linear::load(&scope.at("proj_out"), (channels, channels))?,
            recompute: place.config.transformer_layers > 1,
        })
    }

    /// `[b, c, h, w]` to the same.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        conditioning: &Conditioning,
        capture: &mut Capture,
    ) -> Result<Flow> {
        let (b, c, h, w) = x.dims4()?;
        // Row-major: pixel p = y * w + x.
        let pixels = self.norm.forward(x)?.flatten_from(2)?.transpose(1, 2)?.contiguous()?;
        let mut y = self.proj_in.forward(&pixels)?;
        for block in &self.blocks {
            let keys = conditioning.of(block.attn2.index)?;
            let flow = match self.recompute && y.track_op() {
                true => block.recomputed(&y, keys, capture)?,
                false => block.forward(&y, keys, capture)?,
            };
            match flow {
                ControlFlow::Continue(next) => y = next,
                ControlFlow::Break(()) => return Ok(ControlFlow::Break(())),
            }
        }
        let y = self.proj_out.forward(&y)?.transpose(1, 2)?.reshape((b, c, h, w))?;
        Ok(ControlFlow::Continue((y + x)?))
    }

    /// Keys and values of a text, one pair a block.
    pub(super) fn text_keys(&self, states: &Tensor) -> Result<Vec<(Tensor, Tensor)>> {
        self.blocks.iter().map(|block| block.attn2.text_keys(states)).collect()
    }
}

impl Block {
    fn load(scope: &Scope<'_>, place: &mut Place<'_>) -> crate::Result<Self> {
        let c = place.config.channels;
        let inner = 4 * c;
        Ok(Self {
            norm1: LayerNorm::load(&scope.at("norm1"), c, 1e-5)?,
            attn1: SelfAttention::load(&scope.at("attn1"), c, place.config.heads)?,
            norm2: LayerNorm::load(&scope.at("norm2"), c, 1e-5)?,
            attn2: CrossAttention::load(&scope.at("attn2"), place)?,
            norm3: LayerNorm::load(&scope.at("norm3"), c, 1e-5)?,
            ff_in: Linear::load(&scope.at("ff.net.0.proj"), (c, 2 * inner))?,
            ff_out: Linear::load(&scope.at("ff.net.2"), (inner, c))?,
        })
    }

    fn forward(&self, x: &Tensor, keys: TextKeys<'_>, capture: &mut Capture) -> Result<Flow> {
        let x = (self.attn1.forward(&self.norm1.forward(x)?)? + x)?;
        let attended = match self.attn2.forward(&self.norm2.forward(&x)?, keys, capture)? {
            ControlFlow::Continue(attended) => attended,
            ControlFlow::Break(()) => return Ok(ControlFlow::Break(())),
        };
        let x = (attended + x)?;
        let h = self.ff_in.forward(&self.norm3.forward(&x)?)?;
        let half = h.dim(D::Minus1)? / 2;
        let gate = h.narrow(D::Minus1, half, half)?.contiguous()?.gelu_erf()?;
        let h = (h.narrow(D::Minus1, 0, half)? * gate)?;
        Ok(ControlFlow::Continue((self.ff_out.forward(&h)? + x)?))
    }

    /// As [`Block::forward`], with `x` as all that is kept for the gradient.
    fn recomputed(
        self: &Arc<Self>,
        x: &Tensor,
        (key, value): TextKeys<'_>,
        capture: &mut Capture,
    ) -> Result<Flow> {
        let (block, keys) = (self.clone(), (key.clone(), value.clone()));
        let only = capture.only_next(self.attn2.level);
        let wanted = only.level.is_some();
        // Output and map side by side on the last axis, since a node of the graph has one result.
        let both = recomputed(x, move |x| {
            let mut capture = only.clone();
            match (block.forward(x, (&keys.0, &keys.1), &mut capture)?, capture.maps.pop()) {
                (ControlFlow::Continue(y), Some(map)) => Tensor::cat(&[y, map], 2),
                (ControlFlow::Continue(y), None) => Ok(y),
                (ControlFlow::Break(()), Some(map)) => Ok(map),
                (ControlFlow::Break(()), None) => candle_core::bail!("the UNet stopped for no map"),
            }
        })?;
        if !wanted {
            return Ok(ControlFlow::Continue(both));
        }
        let (width, channels) = (both.dim(2)?, x.dim(2)?);
        if width < channels + key.dim(3)? {
            return capture.keep(both).map(|_| ControlFlow::Break(()));
        }
        let _ = capture.keep(both.narrow(2, channels, width - channels)?)?;
        Ok(ControlFlow::Continue(both.narrow(2, 0, channels)?.contiguous()?))
    }
}

impl SelfAttention {
    fn load(scope: &Scope<'_>, c: usize, heads: usize) -> crate::Result<Self> {
        Ok(Self {
            query: Linear::load(&scope.at("to_q"), (c, c))?,
            key: Linear::load(&scope.at("to_k"), (c, c))?,
            value: Linear::load(&scope.at("to_v"), (c, c))?,
            out: Linear::load(&scope.at("to_out.0"), (c, c))?,
            heads,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let detached = x.detach();
        let split = |layer: &Linear| split_heads(&layer.forward(&detached)?, self.heads);
        let (query, key, value) = (split(&self.query)?, split(&self.key)?, split(&self.value)?);
        let scale = scale(&query)?;
        let query = (query * scale)?;
        let attended = join_heads(&attend(&query, &key, &value)?)?;
        let layers = [self.query.clone(), self.key.clone(), self.value.clone()];
        let heads = self.heads;
        // One node from the pixels to what they attended to: of the three products only query,
        // key and value are kept.
        let attended = frozen(x, attended, move |gradient| {
            let gradient = split_heads(gradient, heads)?;
            let (q, k, v) = attend_gradients(&query, &key, &value, &gradient)?;
            let [to_query, to_key, to_value] = &layers;
            let q = to_query.input_gradient(&join_heads(&(q * scale)?)?)?;
            let k = to_key.input_gradient(&join_heads(&k)?)?;
            (q + k)? + to_value.input_gradient(&join_heads(&v)?)?
        })?;
        self.out.forward(&attended)
    }
}

impl CrossAttention {
    fn load(scope: &Scope<'_>, place: &mut Place<'_>) -> crate::Result<Self> {
        let (c, context) = (place.config.channels, place.context);
        let index = *place.next_index;
        *place.next_index += 1;
        Ok(Self {
            query: Linear::load(&scope.at("to_q"), (c, c))?,
            key: Linear::load(&scope.at("to_k"), (context, c))?,
            value: Linear::load(&scope.at("to_v"), (context, c))?,
            out: Linear::load(&scope.at("to_out.0"), (c, c))?,
            heads: place.config.heads,
            index,
            level: place.level,
        })
    }

    /// `[b, 77, context]` to keys `[b, heads, d, 77]` (scaled by 1 / sqrt(d), so that no pass has
    /// to) and values `[b, heads, 77, d]`.
    fn text_keys(&self, states: &Tensor) -> Result<(Tensor, Tensor)> {
        let key = split_heads(&self.key.forward(states)?, self.heads)?;
        let key = (&key * scale(&key)?)?.t()?.contiguous()?;
        let value = split_heads(&self.value.forward(states)?, self.heads)?;
        Ok((key, value))
    }

    fn forward(
        &self,
        x: &Tensor,
        (key, value): TextKeys<'_>,
        capture: &mut Capture,
    ) -> Result<Flow> {
        let query = split_heads(&self.query.forward(x)?, self.heads)?;
        let probabilities = softmax(&matmul_frozen(&query, key)?)?;
        if capture.take(self.level, &probabilities)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        let attended = join_heads(&matmul_frozen(&probabilities, value)?)?;
        Ok(ControlFlow::Continue(self.out.forward(&attended)?))
    }
}

fn scale(split: &Tensor) -> Result<f64> {
    Ok(1. / (split.dim(D::Minus1)? as f64).sqrt())
}

/// `[b, n, c]` to `[b, heads, n, c / heads]`.
fn split_heads(x: &Tensor, heads: usize) -> Result<Tensor> {
    let (b, n, c) = x.dims3()?;
    x.reshape((b, n, heads, c / heads))?.transpose(1, 2)?.contiguous()
}

/// The way back.
fn join_heads(x: &Tensor) -> Result<Tensor> {
    let (b, heads, n, d) = x.dims4()?;
    x.transpose(1, 2)?.reshape((b, n, heads * d))
}
