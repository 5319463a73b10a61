//! CLIP's text tower: token ids to features.
//!
//! Short texts share a pass of always the same number of rows: most of a pass is reading weights.

use std::path::PathBuf;

use candle_core::{D, Result, Tensor};
use candle_nn::{LayerNorm, Linear, Module};
use serde::Deserialize;

use crate::error::Error;
use crate::folder::Scope;
use crate::transformer::{Activation, Sequence, Sizes, Stack, causal, layer_norm};

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
/// Tokens of a pass, unless a model takes longer texts.
const ROWS: usize = 128;

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

    /// The feature `[projected]` of each text. The mask is causal and a feature is read at the end of
    /// its text, so what stands behind the first `end` changes nothing and is left out.
    pub(super) fn features(&self, texts: &[Vec<u32>], end: u32) -> Result<Vec<Tensor>> {
        let mut features = Vec::with_capacity(texts.len());
        let mut together: Vec<&[u32]> = Vec::new();
        for ids in texts {
            let n = ids.iter().position(|id| *id == end).map_or(ids.len(), |at| at + 1);
            if together.iter().map(|ids| ids.len()).sum::<usize>() + n > self.rows() {
                features.extend(self.pass(&together)?);
                together.clear();
            }
            together.push(&ids[..n]);
        }
        features.extend(self.pass(&together)?);
        Ok(features)
    }

    fn rows(&self) -> usize {
        ROWS.max(self.positions())
    }

    fn pass(&self, texts: &[&[u32]]) -> Result<Vec<Tensor>> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let device = self.tokens.device();
        let ids = texts.concat();
        let sequence =
            |ids: &&[u32]| Ok(Sequence { rows: ids.len(), mask: Some(causal(ids.len(), device)?) });
        let sequences = texts.iter().map(sequence).collect::<Result<Vec<_>>>()?;
        let places: Vec<u32> = texts.iter().flat_map(|ids| 0..ids.len() as u32).collect();
        let places = self.positions.index_select(&Tensor::new(places, device)?, 0)?;
        let padding = self.rows() - ids.len();
        let x = (self.tokens.index_select(&Tensor::new(ids, device)?, 0)? + places)?;
        let states = self.stack.forward(x.pad_with_zeros(0, 0, padding)?, &sequences)?;
        let mut behind = 0;
        let feature = |ids: &&[u32]| {
            behind += ids.len();
            let last = states.narrow(0, behind - 1, 1)?.contiguous()?;
            self.projection.forward(&self.final_norm.forward(&last)?)?.squeeze(D::Minus2)
        };
        texts.iter().map(feature).collect()
    }
}
