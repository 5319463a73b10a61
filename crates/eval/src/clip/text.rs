//! CLIP's text tower: token ids to a feature.

use std::path::PathBuf;

use candle_core::{Result, Tensor};
use candle_nn::{LayerNorm, Linear, Module};
use serde::Deserialize;

use crate::error::Error;
use crate::folder::Scope;
use crate::transformer::{Activation, Sizes, Stack, causal, layer_norm};

/// `text_config`, with transformers' defaults.
#[derive(Deserialize)]
#[serde(default)]
pub(super) struct Config {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    max_position_embeddings: usize,
    hidden_act: Activation,
    layer_norm_eps: f64,
    eos_token_id: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vocab_size: 49408,
            hidden_size: 512,
            intermediate_size: 2048,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
            eos_token_id: 49407,
        }
    }
}

/// Configurations from before transformers 4.31 name this end of text, whatever their tokenizer
/// writes; then the largest id is taken for the end.
const OLD_END: u32 = 2;

pub(super) struct Text {
    /// `[vocab, d]`
    tokens: Tensor,
    /// `[positions, d]`
    positions: Tensor,
    stack: Stack,
    final_norm: LayerNorm,
    projection: Linear,
    end: u32,
}

impl Text {
    pub(super) fn load(
        root: &Scope<'_>,
        config: &Config,
        projected: usize,
        path: PathBuf,
    ) -> crate::Result<Self> {
        let d = config.hidden_size;
        let sizes = Sizes {
            width: d,
            inner: config.intermediate_size,
            heads: config.num_attention_heads,
            layers: config.num_hidden_layers,
            eps: config.layer_norm_eps,
            activation: config.hidden_act,
        };
        sizes.check(path.clone(), "text_config")?;
        if config.max_position_embeddings < 2 {
            let message = "`max_position_embeddings` leaves no room for a text".into();
            return Err(Error::Malformed { path, message });
        }
        let scope = root.at("text_model");
        let embeddings = scope.at("embeddings");
        let positions = [config.max_position_embeddings, d];
        Ok(Self {
            tokens: embeddings.get("token_embedding.weight", &[config.vocab_size, d])?,
            positions: embeddings.get("position_embedding.weight", &positions)?,
            stack: Stack::load(&scope.at("encoder"), &sizes)?,
            final_norm: layer_norm(&scope.at("final_layer_norm"), d, config.layer_norm_eps)?,
            projection: Linear::new(root.get("text_projection.weight", &[projected, d])?, None),
            end: config.eos_token_id,
        })
    }

    /// Tokens it takes at most.
    pub(super) fn positions(&self) -> usize {
        self.positions.dims()[0]
    }

    /// Tokens it knows.
    pub(super) fn vocabulary(&self) -> usize {
        self.tokens.dims()[0]
    }

    /// Whether the configuration means the end of text that the tokenizer writes.
    pub(super) fn ends_with(&self, end: u32) -> bool {
        self.end == end || self.end == OLD_END
    }

    /// The feature `[projected]` of a text. The mask is causal and the feature is read at the end
    /// of the text, so what stands behind the first `end` changes nothing and is left out.
    pub(super) fn feature(&self, ids: &[u32], end: u32) -> Result<Tensor> {
        let n = 1 + ids.iter().position(|id| *id == end).unwrap_or(ids.len() - 1);
        let device = self.tokens.device();
        let ids = Tensor::from_slice(&ids[..n], n, device)?;
        let x = (self.tokens.index_select(&ids, 0)? + self.positions.narrow(0, 0, n)?)?;
        let states = self.stack.forward(x, Some(&causal(n, device)?))?;
        let last = self.final_norm.forward(&states.narrow(0, n - 1, 1)?.contiguous()?)?;
        self.projection.forward(&last)?.squeeze(0)
    }
}
