//! BLIP's vision tower: pixels to one state per patch.

use std::path::PathBuf;

use candle_core::{Result, Tensor};
use candle_nn::{LayerNorm, Linear, Module};
use serde::Deserialize;

use crate::error::Error;
use crate::folder::Scope;
use crate::transformer::{Activation, Sequence, Sizes, Stack, layer_norm, patches};

/// `vision_config`, with transformers' defaults.
#[derive(Deserialize)]
#[serde(default)]
pub(super) struct Config {
    pub(super) hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    image_size: usize,
    patch_size: usize,
    hidden_act: Activation,
    layer_norm_eps: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            image_size: 384,
            patch_size: 16,
            hidden_act: Activation::Gelu,
            layer_norm_eps: 1e-5,
        }
    }
}

pub(super) struct Vision {
    /// `[1, d]`
    class: Tensor,
    patch: Linear,
    /// `[1 + patches, d]`
    positions: Tensor,
    stack: Stack,
    post_norm: LayerNorm,
    side: usize,
    patch_side: usize,
}

impl Vision {
    pub(super) fn load(scope: &Scope<'_>, config: &Config, path: PathBuf) -> crate::Result<Self> {
        let (d, p, side) = (config.hidden_size, config.patch_size, config.image_size);
        let sizes = Sizes {
            width: d,
            inner: config.intermediate_size,
            heads: config.num_attention_heads,
            layers: config.num_hidden_layers,
            eps: config.layer_norm_eps,
            activation: config.hidden_act,
        };
        sizes.check(path.clone(), "vision_config")?;
        if p == 0 || !side.is_multiple_of(p) {
            let message = format!("`vision_config`: patches of {p} do not tile {side} pixels");
            return Err(Error::Malformed { path, message });
        }
        let embeddings = scope.at("embeddings");
        let kernel = embeddings.get("patch_embedding.weight", &[d, 3, p, p])?;
        let positions = [1, 1 + (side / p) * (side / p), d];
        Ok(Self {
            class: embeddings.get("class_embedding", &[1, 1, d])?.squeeze(0)?,
            patch: Linear::new(
                kernel.flatten_from(1)?,
                Some(embeddings.get("patch_embedding.bias", &[d])?),
            ),
            positions: embeddings.get("position_embedding", &positions)?.squeeze(0)?,
            stack: Stack::load(&scope.at("encoder"), &sizes)?,
            post_norm: layer_norm(&scope.at("post_layernorm"), d, config.layer_norm_eps)?,
            side,
            patch_side: p,
        })
    }

    /// Width and height of the pixels it takes.
    pub(super) fn side(&self) -> usize {
        self.side
    }

    /// The states `[1 + patches, d]` of pixels `[3, side, side]`.
    pub(super) fn states(&self, pixels: &Tensor) -> Result<Tensor> {
        let patches = self.patch.forward(&patches(pixels, self.patch_side)?)?;
        let x = (Tensor::cat(&[&self.class, &patches], 0)? + &self.positions)?;
        let all = Sequence { rows: x.dims()[0], mask: None };
        self.post_norm.forward(&self.stack.forward(x, &[all])?)
    }
}
