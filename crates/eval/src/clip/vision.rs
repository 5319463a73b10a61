//! CLIP's vision tower: pixels to a feature.

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
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_channels: usize,
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
            num_channels: 3,
            image_size: 224,
            patch_size: 32,
            hidden_act: Activation::QuickGelu,
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
    pre_norm: LayerNorm,
    stack: Stack,
    post_norm: LayerNorm,
    projection: Linear,
    side: usize,
    patch_side: usize,
}

impl Vision {
    pub(super) fn load(
        root: &Scope<'_>,
        config: &Config,
        projected: usize,
        path: PathBuf,
    ) -> crate::Result<Self> {
        let (d, p, side, eps) =
            (config.hidden_size, config.patch_size, config.image_size, config.layer_norm_eps);
        let sizes = Sizes {
            width: d,
            inner: config.intermediate_size,
            heads: config.num_attention_heads,
            layers: config.num_hidden_layers,
            eps,
            activation: config.hidden_act,
        };
        sizes.check(path.clone(), "vision_config")?;
        if config.num_channels != 3 || p == 0 || !side.is_multiple_of(p) {
            let channels = config.num_channels;
            let message = format!(
                "`vision_config`: patches of {p} do not tile {side} pixels of {channels} channels"
            );
            return Err(Error::Malformed { path, message });
        }
        let scope = root.at("vision_model");
        let embeddings = scope.at("embeddings");
        let kernel = embeddings.get("patch_embedding.weight", &[d, 3, p, p])?;
        let positions = [1 + (side / p) * (side / p), d];
        Ok(Self {
            class: embeddings.get("class_embedding", &[d])?.unsqueeze(0)?,
            patch: Linear::new(kernel.flatten_from(1)?, None),
            positions: embeddings.get("position_embedding.weight", &positions)?,
            // The name is misspelt in every checkpoint.
            pre_norm: layer_norm(&scope.at("pre_layrnorm"), d, eps)?,
            stack: Stack::load(&scope.at("encoder"), &sizes)?,
            post_norm: layer_norm(&scope.at("post_layernorm"), d, eps)?,
            projection: Linear::new(root.get("visual_projection.weight", &[projected, d])?, None),
            side,
            patch_side: p,
        })
    }

    /// Width and height of the pixels it takes.
    pub(super) fn side(&self) -> usize {
        self.side
    }

    /// The feature `[projected]` of pixels `[3, side, side]`.
    pub(super) fn feature(&self, pixels: &Tensor) -> Result<Tensor> {
        let patches = self.patch.forward(&patches(pixels, self.patch_side)?)?;
        let x = (Tensor::cat(&[&self.class, &patches], 0)? + &self.positions)?;
        let all = Sequence { rows: x.dims()[0], mask: None };
        let states = self.stack.forward(self.pre_norm.forward(&x)?, &[all])?;
        let class = self.post_norm.forward(&states.narrow(0, 0, 1)?.contiguous()?)?;
        self.projection.forward(&class)?.squeeze(0)
    }
}
