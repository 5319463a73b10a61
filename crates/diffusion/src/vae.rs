//! The autoencoder: latents to pictures and back (`AutoencoderKL` of diffusers).
//!
//! What goes in and comes out is f32 on the CPU; it computes in f32 on every device.

use candle_core::{Result, Tensor};
use serde::Deserialize;

use crate::device::{Compute, leave};
use crate::error::Error;
use crate::folder::Loader;
use crate::layers::{Conv2d, GroupNorm, SelfAttention, Shape, upsample_nearest};
use crate::probe::seen;
use crate::unet::{Norm, Resnet};
use crate::weights::Scope;

const CONFIG: &str = "vae/config.json";
/// Fixed in diffusers.
const EPS: f64 = 1e-6;
/// Latents have at least this side in any picture that is worth its time.
const SIDE: usize = 16;

#[derive(Debug, Deserialize)]
struct Config {
    act_fn: String,
    block_out_channels: Vec<usize>,
    in_channels: usize,
    out_channels: usize,
    latent_channels: usize,
    layers_per_block: usize,
    #[serde(default = "default_groups")]
    norm_num_groups: usize,
    #[serde(default = "default_scaling")]
    scaling_factor: f64,
    #[serde(default)]
    shift_factor: Option<f64>,
    #[serde(default = "yes")]
    mid_block_add_attention: bool,
    #[serde(default = "yes")]
    use_quant_conv: bool,
    #[serde(default = "yes")]
    use_post_quant_conv: bool,
    down_block_types: Vec<String>,
    up_block_types: Vec<String>,
}

fn default_groups() -> usize {
    32
}
fn default_scaling() -> f64 {
    0.18215
}
fn yes() -> bool {
    true
}

impl Config {
    fn factor(&self) -> usize {
        1 << self.block_out_channels.len().saturating_sub(1)
    }

    fn check(&self) -> crate::Result<()> {
        let refuse = |field: &str, value: String| {
            Err(Error::Unsupported {
                file: CONFIG.into(),
                field: field.into(),
                value,
                remedy: "Use the AutoencoderKL of a Stable Diffusion model.".into(),
            })
        };
        if self.act_fn != "silu" {
            return refuse("act_fn", format!("`{}`", self.act_fn));
        }
        if self.latent_channels != 4 || self.in_channels != 3 || self.out_channels != 3 {
            return refuse("latent_channels", self.latent_channels.to_string());
        }
        if self.shift_factor.is_some_and(|shift| shift != 0.) {
            return refuse("shift_factor", format!("{:?}", self.shift_factor));
        }
        if !self.mid_block_add_attention || !self.use_quant_conv || !self.use_post_quant_conv {
            return refuse("mid_block_add_attention / use_quant_conv", "false".into());
        }
        let other = |kind: &str| {
            let blocks = self.down_block_types.iter().chain(&self.up_block_types);
            blocks.filter(|b| !b.ends_with(kind)).map(|b| format!("`{b}`")).next()
        };
        match other("coderBlock2D") {
            Some(block) => refuse("block types", block),
            None if self.block_out_channels.is_empty() => {
                refuse("block_out_channels", "empty".into())
            }
            None => Ok(()),
        }
    }
}

/// Stem of the weight files.
pub(crate) const STEM: &str = "diffusion_pytorch_model";

/// Pixels a latent stands for, along a side, by the configuration alone.
pub(crate) fn factor(loader: &mut Loader<'_>) -> crate::Result<usize> {
    let config: Config = loader.json(CONFIG)?;
    config.check()?;
    Ok(config.factor())
}

/// The autoencoder of a model.
pub struct Vae {
    decoder: Decoder,
    encoder: Encoder,
    scaling: f64,
    factor: usize,
    compute: Compute,
}

struct Decoder {
    post_quant: Conv2d,
    conv_in: Conv2d,
    middle: Middle,
    up: Vec<Stage>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

struct Encoder {
    conv_in: Conv2d,
    down: Vec<Stage>,
    middle: Middle,
    norm_out: GroupNorm,
    conv_out: Conv2d,
    quant: Conv2d,
}

struct Stage {
    resnets: Vec<Resnet>,
    resample: Option<Conv2d>,
    path: String,
}

struct Middle {
    first: Resnet,
    attention: Attention,
    second: Resnet,
}

/// One head over all pixels.
struct Attention {
    norm: GroupNorm,
    attention: SelfAttention,
    out: Conv2d,
    path: String,
}

impl Vae {
    pub(crate) fn load(loader: &mut Loader<'_>) -> crate::Result<Self> {
        let config: Config = loader.json(CONFIG)?;
        config.check()?;
        let weights = loader.weights("vae", STEM)?;
        let root = weights.root();
        let vae = Self {
            decoder: Decoder::load(&root, &config)?,
            encoder: Encoder::load(&root, &config)?,
            scaling: config.scaling_factor,
            factor: config.factor(),
            compute: loader.compute().of("vae"),
        };
        weights.require_all_used()?;
        Ok(vae)
    }

    /// Pixels a latent stands for, along a side.
    pub fn factor(&self) -> usize {
        self.factor
    }

    /// Latents `[b, 4, h, w]` (as the UNet sees them) to pictures `[b, 3, f * h, f * w]`, about
    /// -1..1, not clamped.
    ///
    /// # Errors
    /// If the tensor library fails.
    pub fn decode(&self, latents: &Tensor) -> crate::Result<Tensor> {
        let latents = self.compute.enter(&(latents / self.scaling)?)?;
        Ok(leave(&self.decoder.forward(&latents)?)?)
    }

    /// Pictures `[b, 3, H, W]` in -1..1 to the mean and the logarithm of the variance of their
    /// latents, `[b, 4, H / f, W / f]` each, before scaling. The latents that the UNet sees are
    /// the mean times [`Vae::scaling`].
    ///
    /// # Errors
    /// If the tensor library fails.
    pub fn encode(&self, pictures: &Tensor) -> crate::Result<(Tensor, Tensor)> {
        let moments = leave(&self.encoder.forward(&self.compute.enter(pictures)?)?)?;
        let parts = moments.chunk(2, 1)?;
        Ok((parts[0].contiguous()?, parts[1].clamp(-30f32, 20f32)?))
    }

    /// Factor between the encoder's latents and the UNet's.
    pub fn scaling(&self) -> f64 {
        self.scaling
    }
}

impl Decoder {
    fn load(root: &Scope<'_>, config: &Config) -> crate::Result<Self> {
        let scope = root.at("decoder");
        let (channels, groups) = (&config.block_out_channels, config.norm_num_groups);
        let (first, last) = (channels[0], channels[channels.len() - 1]);
        let latent = config.latent_channels;
        let count = channels.len();
        let up = (0..count).map(|i| {
            let this = channels[count - 1 - i];
            let before = if i == 0 { this } else { channels[count - i] };
            let scope = scope.at(&format!("up_blocks.{i}"));
            let resample = (i + 1 < count).then(|| {
                Conv2d::load(&scope.at("upsamplers.0.conv"), (this, this), Shape::new(3, SIDE))
            });
            Stage::load(&scope, (before, this), config.layers_per_block + 1, groups, resample)
        });
        Ok(Self {
            post_quant: Conv2d::load(
                &root.at("post_quant_conv"),
                (latent, latent),
                Shape::new(1, SIDE),
            )?,
            conv_in: Conv2d::load(&scope.at("conv_in"), (latent, last), Shape::new(3, SIDE))?,
            middle: Middle::load(&scope.at("mid_block"), last, groups)?,
            up: up.collect::<crate::Result<_>>()?,
            norm_out: GroupNorm::load(&scope.at("conv_norm_out"), first, groups, EPS, true)?,
            conv_out: Conv2d::load(
                &scope.at("conv_out"),
                (first, config.out_channels),
                Shape::new(3, SIDE),
            )?,
        })
    }

    fn forward(&self, latents: &Tensor) -> Result<Tensor> {
        let x = seen("", "post_quant_conv", self.post_quant.forward(latents)?)?;
        let x = seen("decoder", "conv_in", self.conv_in.forward(&x)?)?;
        let mut x = self.middle.forward(&x)?;
        for stage in &self.up {
            x = stage.resnets(x)?;
            if let Some(convolution) = &stage.resample {
                let larger = convolution.forward(&upsample_nearest(&x)?)?;
                x = seen(&stage.path, "upsamplers.0.conv", larger)?;
            }
        }
        let x = seen("decoder", "conv_norm_out", self.norm_out.forward(&x)?)?;
        seen("decoder", "conv_out", self.conv_out.forward(&x)?)
    }
}

impl Encoder {
    fn load(root: &Scope<'_>, config: &Config) -> crate::Result<Self> {
        let scope = root.at("encoder");
        let (channels, groups) = (&config.block_out_channels, config.norm_num_groups);
        let (first, last) = (channels[0], channels[channels.len() - 1]);
        let moments = 2 * config.latent_channels;
        let down = (0..channels.len()).map(|i| {
            let this = channels[i];
            let before = channels[i.saturating_sub(1)];
            let scope = scope.at(&format!("down_blocks.{i}"));
            // The encoder pads right and below only, by hand.
            let resample = (i + 1 < channels.len()).then(|| {
                Conv2d::load(&scope.at("downsamplers.0.conv"), (this, this), Shape::halving(0))
            });
            Stage::load(&scope, (before, this), config.layers_per_block, groups, resample)
        });
        Ok(Self {
            conv_in: Conv2d::load(
                &scope.at("conv_in"),
                (config.in_channels, first),
                Shape::new(3, SIDE),
            )?,
            down: down.collect::<crate::Result<_>>()?,
            middle: Middle::load(&scope.at("mid_block"), last, groups)?,
            norm_out: GroupNorm::load(&scope.at("conv_norm_out"), last, groups, EPS, true)?,
            conv_out: Conv2d::load(&scope.at("conv_out"), (last, moments), Shape::new(3, SIDE))?,
            quant: Conv2d::load(&root.at("quant_conv"), (moments, moments), Shape::new(1, SIDE))?,
        })
    }

    fn forward(&self, pictures: &Tensor) -> Result<Tensor> {
        let mut x = self.conv_in.forward(pictures)?;
        for stage in &self.down {
            x = stage.resnets(x)?;
            if let Some(convolution) = &stage.resample {
                let padded = x.pad_with_zeros(2, 0, 1)?.pad_with_zeros(3, 0, 1)?;
                x = convolution.forward(&padded)?;
            }
        }
        x = self.middle.forward(&x)?;
        let x = self.conv_out.forward(&self.norm_out.forward(&x)?)?;
        self.quant.forward(&x)
    }
}

impl Stage {
    fn load(
        scope: &Scope<'_>,
        (before, this): (usize, usize),
        layers: usize,
        groups: usize,
        resample: Option<crate::Result<Conv2d>>,
    ) -> crate::Result<Self> {
        let norm = Norm { groups, eps: EPS };
        let resnet = |j| {
            let cin = if j == 0 { before } else { this };
            Resnet::load(&scope.at(&format!("resnets.{j}")), (cin, this), None, norm, SIDE)
        };
        let resnets = (0..layers).map(resnet).collect::<crate::Result<_>>()?;
        Ok(Self { resnets, resample: resample.transpose()?, path: scope.path() })
    }

    fn resnets(&self, x: Tensor) -> Result<Tensor> {
        self.resnets.iter().try_fold(x, |x, resnet| resnet.forward(&x, None))
    }
}

impl Middle {
    fn load(scope: &Scope<'_>, c: usize, groups: usize) -> crate::Result<Self> {
        let norm = Norm { groups, eps: EPS };
        let resnet = |name: &str| Resnet::load(&scope.at(name), (c, c), None, norm, SIDE);
        Ok(Self {
            first: resnet("resnets.0")?,
            attention: Attention::load(&scope.at("attentions.0"), c, groups)?,
            second: resnet("resnets.1")?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.attention.forward(&self.first.forward(x, None)?)?;
        self.second.forward(&x, None)
    }
}

impl Attention {
    fn load(scope: &Scope<'_>, c: usize, groups: usize) -> crate::Result<Self> {
        // The second names are those of checkpoints from before diffusers 0.17.
        let linear = |names: &[&str]| Conv2d::load_linear(&scope.at_any(names), (c, c));
        let query = linear(&["to_q", "query"])?;
        let (key, value) = (linear(&["to_k", "key"])?, linear(&["to_v", "value"])?);
        Ok(Self {
            norm: GroupNorm::load(&scope.at("group_norm"), c, groups, EPS, false)?,
            attention: SelfAttention::new([query, key, value], 1),
            out: linear(&["to_out.0", "proj_attn"])?,
            path: scope.path(),
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let h = seen(&self.path, "group_norm", self.norm.forward(x)?)?;
        let h = seen(&self.path, "", self.attention.forward(&h)?)?;
        seen(&self.path, "to_out.0", self.out.forward_plus(&h, x)?)
    }
}
