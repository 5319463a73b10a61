//! `unet/config.json`, read and checked.
//!
//! What the configuration can ask for is either done or refused here, so that a model that loads
//! is a model that is computed right.

use serde::Deserialize;
use serde_json::Value;

use super::added::SIZES;
use crate::error::{Error, Result};

pub(super) const FILE: &str = "unet/config.json";

/// A number for all levels, or one a level.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum PerLevel {
    One(usize),
    Each(Vec<usize>),
}

impl PerLevel {
    fn level(&self, level: usize) -> Option<usize> {
        match self {
            Self::One(n) => Some(*n),
            Self::Each(list) => list.get(level).copied(),
        }
    }
}

#[derive(Debug, Deserialize)]
struct File {
    in_channels: usize,
    out_channels: usize,
    sample_size: usize,
    block_out_channels: Vec<usize>,
    down_block_types: Vec<String>,
    up_block_types: Vec<String>,
    #[serde(default = "mid_block")]
    mid_block_type: Option<String>,
    layers_per_block: PerLevel,
    attention_head_dim: PerLevel,
    #[serde(default)]
    num_attention_heads: Option<PerLevel>,
    #[serde(default = "one")]
    transformer_layers_per_block: PerLevel,
    cross_attention_dim: usize,
    #[serde(default = "groups")]
    norm_num_groups: usize,
    #[serde(default = "eps")]
    norm_eps: f64,
    #[serde(default = "yes")]
    flip_sin_to_cos: bool,
    #[serde(default)]
    freq_shift: f64,
    #[serde(default)]
    addition_embed_type: Option<String>,
    #[serde(default)]
    addition_time_embed_dim: Option<usize>,
    #[serde(default)]
    projection_class_embeddings_input_dim: Option<usize>,
    #[serde(flatten)]
    rest: serde_json::Map<String, Value>,
}

fn mid_block() -> Option<String> {
    Some("UNetMidBlock2DCrossAttn".into())
}
fn one() -> PerLevel {
    PerLevel::One(1)
}
fn groups() -> usize {
    32
}
fn eps() -> f64 {
    1e-5
}
fn yes() -> bool {
    true
}

/// One resolution of the UNet, from the top (0) down.
#[derive(Debug, Clone)]
pub(crate) struct Level {
    pub(crate) channels: usize,
    /// Resnets in the down block; the up block has one more.
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) transformer_layers: usize,
    pub(crate) attention_down: bool,
    pub(crate) attention_up: bool,
}

/// The checked configuration.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) channels: usize,
    pub(crate) sample_size: usize,
    pub(crate) levels: Vec<Level>,
    pub(crate) context: usize,
    pub(crate) groups: usize,
    pub(crate) eps: f64,
    pub(crate) flip_sin_to_cos: bool,
    pub(crate) freq_shift: f64,
    pub(crate) added: Option<Added>,
}

/// SDXL's further conditioning (`addition_embed_type` is `text_time`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Added {
    /// Channels of the pooled text.
    pub(crate) pooled: usize,
    /// Channels of each size.
    pub(crate) channels: usize,
    pub(crate) cosines_first: bool,
    pub(crate) shift: f64,
}

/// Fields that must have one value (or be absent or null), because only that is computed.
const FIXED: &[(&str, &str)] = &[
    ("act_fn", "\"silu\""),
    ("center_input_sample", "false"),
    ("downsample_padding", "1"),
    ("mid_block_scale_factor", "1"),
    ("dual_cross_attention", "false"),
    ("only_cross_attention", "false"),
    ("class_embed_type", "null"),
    ("num_class_embeds", "null"),
    ("encoder_hid_dim", "null"),
    ("encoder_hid_dim_type", "null"),
    ("time_embedding_type", "\"positional\""),
    ("time_embedding_dim", "null"),
    ("time_embedding_act_fn", "null"),
    ("timestep_post_act", "null"),
    ("time_cond_proj_dim", "null"),
    ("cross_attention_norm", "null"),
    ("attention_type", "\"default\""),
    ("resnet_time_scale_shift", "\"default\""),
    ("resnet_out_scale_factor", "1"),
    ("resnet_skip_time_act", "false"),
    ("class_embeddings_concat", "false"),
    ("mid_block_only_cross_attention", "null"),
    ("reverse_transformer_layers_per_block", "null"),
    ("conv_in_kernel", "3"),
    ("conv_out_kernel", "3"),
];

impl Config {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let wrong = |message: String| Error::Config { file: FILE.into(), message };
        let file: File = serde_json::from_slice(bytes).map_err(|e| wrong(e.to_string()))?;
        for (field, want) in FIXED {
            let found = file.rest.get(*field).filter(|value| !value.is_null());
            let Some(found) = found else { continue };
            let text = found.to_string();
            let same = match (found.as_f64(), want.parse::<f64>()) {
                (Some(number), Ok(want)) => number == want,
                _ => text == *want,
            };
            if !same {
                return Err(unsupported(field, text, want));
            }
        }
        let mid = file.mid_block_type.as_deref().unwrap_or("null");
        if mid != "UNetMidBlock2DCrossAttn" {
            return Err(unsupported("mid_block_type", mid.into(), "UNetMidBlock2DCrossAttn"));
        }
        if file.in_channels != 4 || file.out_channels != 4 {
            let found = format!("{} in, {} out", file.in_channels, file.out_channels);
            return Err(unsupported("in_channels / out_channels", found, "4"));
        }
        let config = Self {
            channels: file.in_channels,
            sample_size: file.sample_size,
            levels: file.levels()?,
            context: file.cross_attention_dim,
            groups: file.norm_num_groups,
            eps: file.norm_eps,
            flip_sin_to_cos: file.flip_sin_to_cos,
            freq_shift: file.freq_shift,
            added: file.added()?,
        };
        config.check_divisions()?;
        Ok(config)
    }

    /// The level whose maps guidance reads: among the levels of the down blocks that have
    /// cross-attention, the one whose map side at the model's native size is nearest to 16. It
    /// stays the same for other image sizes.
    ///
    /// # Errors
    /// If no down block has cross-attention.
    pub(crate) fn map_level(&self) -> Result<usize> {
        let distance = |level: &usize| (self.sample_size >> level).abs_diff(16);
        let levels = (0..self.levels.len()).filter(|&l| self.levels[l].attention_down);
        levels.min_by_key(distance).ok_or_else(|| Error::Config {
            file: FILE.into(),
            message: "no down block has cross-attention, so there are no maps".into(),
        })
    }

    /// Cross-attentions at `level`: those of its down block, its up block and, at the lowest level,
    /// the middle block.
    pub(crate) fn map_layers(&self, level: usize) -> usize {
        let this = &self.levels[level];
        let middle = usize::from(level + 1 == self.levels.len());
        let down = if this.attention_down { this.layers } else { 0 };
        let up = if this.attention_up { this.layers + 1 } else { 0 };
        (down + middle + up) * this.transformer_layers
    }

    /// What height and width of the latents must be a multiple of.
    pub(crate) fn size_multiple(&self) -> usize {
        1 << (self.levels.len() - 1)
    }

    fn check_divisions(&self) -> Result<()> {
        let wrong = |message: String| Err(Error::Config { file: FILE.into(), message });
        for level in &self.levels {
            let Level { channels, heads, .. } = *level;
            if heads == 0 || !channels.is_multiple_of(heads) {
                return wrong(format!("{heads} attention heads do not divide {channels} channels"));
            }
            if self.groups == 0 || !channels.is_multiple_of(self.groups) {
                let groups = self.groups;
                return wrong(format!("`norm_num_groups` {groups} does not divide {channels}"));
            }
        }
        Ok(())
    }
}

impl File {
    fn added(&self) -> Result<Option<Added>> {
        match self.addition_embed_type.as_deref() {
            None => return Ok(None),
            Some("text_time") => {}
            Some(other) => {
                let found = format!("`{other}`");
                return Err(unsupported("addition_embed_type", found, "null or text_time"));
            }
        }
        let wrong = |message: &str| Error::Config { file: FILE.into(), message: message.into() };
        let channels = self.addition_time_embed_dim.filter(|n| *n > 0 && n.is_multiple_of(2));
        let channels = channels
            .ok_or_else(|| wrong("`addition_time_embed_dim` is missing, or no even number"))?;
        let field = "projection_class_embeddings_input_dim";
        let input = self.projection_class_embeddings_input_dim.unwrap_or(0);
        let pooled = input.checked_sub(SIZES * channels).filter(|pooled| *pooled > 0);
        let pooled = pooled.ok_or_else(|| {
            let sizes = SIZES * channels;
            wrong(&format!("`{field}` is {input}, too little for sizes ({sizes}) and pooled text"))
        })?;
        let (cosines_first, shift) = (self.flip_sin_to_cos, self.freq_shift);
        Ok(Some(Added { pooled, channels, cosines_first, shift }))
    }

    fn levels(&self) -> Result<Vec<Level>> {
        let wrong = |message: String| Error::Config { file: FILE.into(), message };
        let count = self.block_out_channels.len();
        if count == 0 || count > 8 {
            return Err(wrong(format!("`block_out_channels` has {count} levels, not 1 to 8")));
        }
        if self.down_block_types.len() != count || self.up_block_types.len() != count {
            return Err(wrong("the block lists differ in length".into()));
        }
        let heads = self.num_attention_heads.as_ref().unwrap_or(&self.attention_head_dim);
        let number = |list: &PerLevel, level, field: &str| {
            list.level(level).ok_or_else(|| wrong(format!("`{field}` is shorter than the levels")))
        };
        (0..count)
            .map(|l| {
                Ok(Level {
                    channels: self.block_out_channels[l],
                    layers: number(&self.layers_per_block, l, "layers_per_block")?,
                    // The configurations of SD call the number of heads `attention_head_dim`.
                    heads: number(heads, l, "attention_head_dim")?,
                    transformer_layers: number(
                        &self.transformer_layers_per_block,
                        l,
                        "transformer_layers_per_block",
                    )?,
                    attention_down: attention(&self.down_block_types[l], "Down")?,
                    attention_up: attention(&self.up_block_types[count - 1 - l], "Up")?,
                })
            })
            .collect()
    }
}

fn attention(block: &str, direction: &str) -> Result<bool> {
    if block == format!("CrossAttn{direction}Block2D") {
        Ok(true)
    } else if block == format!("{direction}Block2D") {
        Ok(false)
    } else {
        let want = format!("CrossAttn{direction}Block2D or {direction}Block2D");
        Err(unsupported("block types", format!("`{block}`"), &want))
    }
}

fn unsupported(field: &str, value: String, want: &str) -> Error {
    Error::Unsupported {
        file: FILE.into(),
        field: field.into(),
        value,
        remedy: format!("Use a UNet of Stable Diffusion's kind, with `{field}` {want}."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMOJI: &[u8] =
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/emoji/unet/config.json"));

    fn edited(field: &str, value: Value) -> Vec<u8> {
        let mut config: serde_json::Map<String, Value> = serde_json::from_slice(EMOJI).unwrap();
        config.insert(field.into(), value);
        serde_json::to_vec(&config).unwrap()
    }

    #[test]
    fn the_map_level_is_the_one_nearest_to_sixteen() {
        #[rustfmt::skip]
        let table = [
            // sample_size, levels with attention,          level
            (16, vec![true, true],                Some(0)), // the bundled model
            (64, vec![true, true, true, false],   Some(2)), // SD 1.x: 16x16
            (96, vec![true, true, true, false],   Some(2)), // SD 2.1 at 768: 24x24
            (128, vec![false, true, true],        Some(2)), // SDXL: 32x32
            (64, vec![false, false],              None),
        ];
        let emoji = Config::parse(EMOJI).unwrap();
        for (sample_size, attention, want) in table {
            let level =
                |&attention_down: &bool| Level { attention_down, ..emoji.levels[0].clone() };
            let levels = attention.iter().map(level).collect();
            let config = Config { sample_size, levels, ..emoji.clone() };
            assert_eq!(config.map_level().ok(), want, "{sample_size} {attention:?}");
        }
    }

    #[test]
    fn what_is_not_computed_is_refused_by_name() {
        for (field, value) in [
            ("act_fn", Value::from("gelu")),
            ("resnet_time_scale_shift", Value::from("scale_shift")),
            ("addition_embed_type", Value::from("image")),
            ("mid_block_type", Value::from("UNetMidBlock2D")),
            ("only_cross_attention", Value::from(true)),
            ("in_channels", Value::from(9)),
        ] {
            let error = Config::parse(&edited(field, value)).unwrap_err();
            assert!(matches!(error, Error::Unsupported { .. }), "{field}: {error}");
            assert!(error.to_string().contains(field), "{field}: {error}");
        }
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        for (field, value) in [
            ("attention_head_dim", Value::from(5)),
            ("attention_head_dim", Value::from(vec![4])),
            ("norm_num_groups", Value::from(7)),
            ("block_out_channels", Value::from(Vec::<u64>::new())),
            ("block_out_channels", Value::from(vec![64])),
            ("addition_embed_type", Value::from("text_time")),
        ] {
            let error = Config::parse(&edited(field, value)).unwrap_err();
            assert!(matches!(error, Error::Config { .. }), "{field}: {error}");
        }
    }
}
