//! The transformer of a UNet level: self-attention, cross-attention with capture, feed-forward.

use std::ops::ControlFlow;
use std::sync::Arc;

use candle_core::{Result, Tensor};

use super::config::Level;
use super::{Capture, Conditioning};
use crate::layers::{
    ChannelNorm, Conv2d, GroupNorm, Linear, SelfAttention, apply_probabilities, attend_text, geglu,
    mean_of_heads, probabilities, recomputed,
};
use crate::probe::seen;
use crate::weights::Scope;

/// `Break`: the last map that was wanted is captured, the rest need not be computed.
pub(super) type Flow = ControlFlow<(), Tensor>;

/// `Transformer2DModel` of diffusers.
pub(super) struct Transformer {
    norm: GroupNorm,
    proj_in: Conv2d,
    blocks: Vec<Arc<Block>>,
    proj_out: Conv2d,
    /// What a block needs for its gradient is not kept but computed again: the ten blocks a
    /// transformer of SDXL would keep 13 GB. Bits do not depend on it.
    recompute: bool,
    path: String,
}

/// Keys and values of a text for one cross-attention.
type TextKeys<'a> = (&'a Tensor, &'a Tensor);

struct Block {
    norm1: ChannelNorm,
    attn1: SelfAttention,
    attn1_out: Conv2d,
    norm2: ChannelNorm,
    attn2: CrossAttention,
    norm3: ChannelNorm,
    /// `[in] -> [2 * inner]`: values, then gates.
    ff_in: Conv2d,
    ff_out: Conv2d,
    path: String,
}

struct CrossAttention {
    query: Conv2d,
    key: Linear,
    value: Linear,
    out: Conv2d,
    heads: usize,
    /// Position among all cross-attentions in the order of execution.
    index: usize,
    level: usize,
    /// Whether its probabilities are part of the maps. They are then made apart whether a pass
    /// collects them or not, so that the bits of its result do not depend on who looks.
    mapped: bool,
    path: String,
}

/// Where a transformer stands in the UNet.
pub(super) struct Place<'a> {
    pub(super) level: usize,
    pub(super) map_level: usize,
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
            norm: GroupNorm::load(&scope.at("norm"), channels, place.groups, 1e-6, false)?,
            proj_in: Conv2d::load_linear(&scope.at("proj_in"), (channels, channels))?,
            blocks,
            proj_out: Conv2d::load_linear(&scope.at("proj_out"), (channels, channels))?,
            recompute: place.config.transformer_layers > 1,
            path: scope.path(),
        })
    }

    /// `[b, c, h, w]` to the same.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        conditioning: &Conditioning,
        capture: &mut Capture,
    ) -> Result<Flow> {
        let normal = seen(&self.path, "norm", self.norm.forward(x)?)?;
        let mut y = seen(&self.path, "proj_in", self.proj_in.forward(&normal)?)?;
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
        let y = seen(&self.path, "proj_out", self.proj_out.forward_plus(&y, x)?)?;
        Ok(ControlFlow::Continue(y))
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
        let attn1 = |name: &str| Conv2d::load_linear(&scope.at("attn1").at(name), (c, c));
        let projections = [attn1("to_q")?, attn1("to_k")?, attn1("to_v")?];
        Ok(Self {
            norm1: ChannelNorm::load(&scope.at("norm1"), c, 1e-5)?,
            attn1: SelfAttention::new(projections, place.config.heads),
            attn1_out: attn1("to_out.0")?,
            norm2: ChannelNorm::load(&scope.at("norm2"), c, 1e-5)?,
            attn2: CrossAttention::load(&scope.at("attn2"), place)?,
            norm3: ChannelNorm::load(&scope.at("norm3"), c, 1e-5)?,
            ff_in: Conv2d::load_linear(&scope.at("ff.net.0.proj"), (c, 2 * inner))?,
            ff_out: Conv2d::load_linear(&scope.at("ff.net.2"), (inner, c))?,
            path: scope.path(),
        })
    }

    /// `[b, c, h, w]` to the same.
    fn forward(&self, x: &Tensor, keys: TextKeys<'_>, capture: &mut Capture) -> Result<Flow> {
        let seen = |layer: &str, output: Tensor| seen(&self.path, layer, output);
        let h = seen("norm1", self.norm1.forward(x)?)?;
        let h = seen("attn1", self.attn1.forward(&h)?)?;
        let x = seen("attn1.to_out.0", self.attn1_out.forward_plus(&h, x)?)?;
        let h = seen("norm2", self.norm2.forward(&x)?)?;
        let h = match self.attn2.forward(&h, keys, capture)? {
            ControlFlow::Continue(attended) => attended,
            ControlFlow::Break(()) => return Ok(ControlFlow::Break(())),
        };
        let x = seen("attn2.to_out.0", self.attn2.out.forward_plus(&h, &x)?)?;
        let h = seen("norm3", self.norm3.forward(&x)?)?;
        let h = seen("ff.net.0.proj", self.ff_in.forward(&h)?)?;
        let h = seen("ff.net.0", geglu(&h)?)?;
        Ok(ControlFlow::Continue(seen("ff.net.2", self.ff_out.forward_plus(&h, &x)?)?))
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
        // Output and map one behind the other, since a node of the graph has one result; maps are
        // f32 in every precision.
        let both = recomputed(x, move |x| {
            let mut capture = only.clone();
            let flow = block.forward(x, (&keys.0, &keys.1), &mut capture)?;
            match (flow, capture.maps.pop()) {
                (ControlFlow::Continue(y), Some(map)) => {
                    let y = y.flatten_from(1)?.to_dtype(map.dtype())?;
                    Tensor::cat(&[y, map.flatten_from(1)?], 1)
                }
                (ControlFlow::Continue(y), None) => Ok(y),
                (ControlFlow::Break(()), Some(map)) => map.flatten_from(1),
                (ControlFlow::Break(()), None) => candle_core::bail!("the UNet stopped for no map"),
            }
        })?;
        if !wanted {
            return Ok(ControlFlow::Continue(both));
        }
        let (b, c, h, w) = x.dims4()?;
        let (tokens, values) = (key.dim(2)?, c * h * w);
        let map = |flat: Tensor| flat.contiguous()?.reshape((b, tokens, h * w));
        if both.dim(1)? <= tokens * h * w {
            return capture.keep(map(both)?).map(|_| ControlFlow::Break(()));
        }
        let _ = capture.keep(map(both.narrow(1, values, tokens * h * w)?)?)?;
        let y = both.narrow(1, 0, values)?.contiguous()?.reshape((b, c, h, w))?;
        Ok(ControlFlow::Continue(y.to_dtype(x.dtype())?))
    }
}

impl CrossAttention {
    fn load(scope: &Scope<'_>, place: &mut Place<'_>) -> crate::Result<Self> {
        let (c, context) = (place.config.channels, place.context);
        let index = *place.next_index;
        *place.next_index += 1;
        Ok(Self {
            query: Conv2d::load_linear(&scope.at("to_q"), (c, c))?,
            key: Linear::load(&scope.at("to_k"), (context, c))?,
            value: Linear::load(&scope.at("to_v"), (context, c))?,
            out: Conv2d::load_linear(&scope.at("to_out.0"), (c, c))?,
            heads: place.config.heads,
            index,
            level: place.level,
            mapped: place.level == place.map_level,
            path: scope.path(),
        })
    }

    /// `[b, 77, context]` to keys and values `[b, c, 77]`.
    fn text_keys(&self, states: &Tensor) -> Result<(Tensor, Tensor)> {
        let channels_first = |layer: &Linear| layer.forward(states)?.transpose(1, 2)?.contiguous();
        Ok((channels_first(&self.key)?, channels_first(&self.value)?))
    }

    /// `[b, c, h, w]` to the same, in front of the projection of the result.
    fn forward(
        &self,
        x: &Tensor,
        (key, value): TextKeys<'_>,
        capture: &mut Capture,
    ) -> Result<Flow> {
        let seen = |layer: &str, output: Tensor| seen(&self.path, layer, output);
        // Made before the pass, with weights of this layer.
        let (key, value) = (&seen("to_k", key.clone())?, &seen("to_v", value.clone())?);
        let query = seen("to_q", self.query.forward(x)?)?;
        if !self.mapped {
            let attended = seen("", attend_text(&query, (key, value), self.heads)?)?;
            return Ok(ControlFlow::Continue(attended));
        }
        let probabilities = seen("", probabilities(&query, key, self.heads)?)?;
        if capture.wants(self.level) && capture.keep(mean_of_heads(&probabilities)?)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        let attended = seen("", apply_probabilities(&probabilities, value)?)?;
        Ok(ControlFlow::Continue(attended.reshape(x.shape())?))
    }
}
