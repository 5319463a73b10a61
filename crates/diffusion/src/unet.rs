//! The UNet: predicts noise, and shows where each token is looked at on the way.
//!
//! Differences from other ports: only the latent has a gradient (`layers`), maps are captured only
//! when asked for, a pass that only wants maps stops behind the last attention it needs, and a
//! prompt's text keys and values are computed once ([`UNet::condition`]). What goes in and comes out
//! is f32 on the CPU, wherever it computes. The topology follows `UNet2DConditionModel` of
//! diffusers. Not here: losses (`guidance`), steps (`run`).

mod added;
mod attention;
mod blocks;
mod config;

use std::ops::ControlFlow;

use candle_core::{Device, Result, Tensor};

use added::AddedEmbedding;
use blocks::{Builder, Pass, Stage};
pub(crate) use blocks::{Norm, Resnet};
use config::Config;

use crate::device::{Compute, Precision, leave};
use crate::error::Error;
use crate::folder::Loader;
use crate::layers::{Conv2d, GroupNorm, Linear, Shape as ConvShape, gradient_times};
use crate::probe::seen;
use crate::text::TextStates;

/// Stem of the weight files.
pub(crate) const STEM: &str = "diffusion_pytorch_model";

/// Gradients in f16 are multiplied by this on their way through the UNet, or the small ones would
/// be 0: f16 ends at 6e-8 below and 65504 above, and the loss's are 4 at most where they enter.
const F16_GRADIENT_SCALE: f64 = 1024.;

/// What the configuration alone says.
pub(crate) struct Shape {
    /// Side of the latents that the model was trained on.
    pub(crate) sample_size: usize,
    pub(crate) size_multiple: usize,
    /// Channels of the first level.
    pub(crate) channels: usize,
    /// Side of the maps for such latents.
    pub(crate) map_side: usize,
}

impl Shape {
    pub(crate) fn read(loader: &mut Loader<'_>) -> crate::Result<Self> {
        let config = Config::parse(&loader.bytes(config::FILE)?)?;
        Ok(Self {
            sample_size: config.sample_size,
            size_multiple: config.size_multiple(),
            channels: config.levels[0].channels,
            map_side: config.sample_size >> config.map_level()?,
        })
    }
}

/// The noise predictor of a model.
pub struct UNet {
    config: Config,
    map_level: usize,
    /// Cross-attentions at `map_level`, over which a map is the mean.
    map_layers: usize,
    time1: Linear,
    time2: Linear,
    added: Option<AddedEmbedding>,
    conv_in: Conv2d,
    down: Vec<Stage>,
    middle: Stage,
    up: Vec<Stage>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
    compute: Compute,
}

/// What a pass is told about `b` images besides latents and time.
#[derive(Clone)]
pub struct Conditioning {
    /// Keys and values of the text for every cross-attention.
    keys: Vec<(Tensor, Tensor)>,
    /// SDXL: what the pooled text and the sizes add to the time embedding, `[b, 1, t]`.
    added: Option<Tensor>,
}

impl Conditioning {
    /// Joins those of several images into one batch, in order.
    ///
    /// # Errors
    /// If `each` is empty.
    pub fn batch(each: &[&Self]) -> crate::Result<Self> {
        if let [one] = each {
            return Ok((*one).clone());
        }
        let layers = each.first().map_or(0, |one| one.keys.len());
        let join = |pick: &dyn Fn(&(Tensor, Tensor)) -> Tensor, i: usize| {
            Tensor::cat(&each.iter().map(|one| pick(&one.keys[i])).collect::<Vec<_>>(), 0)
        };
        let pair = |i| Ok((join(&|kv| kv.0.clone(), i)?, join(&|kv| kv.1.clone(), i)?));
        let keys = (0..layers).map(pair).collect::<crate::Result<_>>()?;
        let added: Option<Vec<&Tensor>> = each.iter().map(|one| one.added.as_ref()).collect();
        let added = added.filter(|added| !added.is_empty());
        Ok(Self { keys, added: added.map(|added| Tensor::cat(&added, 0)).transpose()? })
    }

    /// These keys with the values of another text.
    pub(crate) fn with_values_of(&self, other: &Self) -> Self {
        let pairs = self.keys.iter().zip(&other.keys);
        let keys = pairs.map(|((key, _), (_, value))| (key.clone(), value.clone())).collect();
        Self { keys, added: self.added.clone() }
    }

    fn of(&self, index: usize) -> Result<(&Tensor, &Tensor)> {
        match self.keys.get(index) {
            Some((key, value)) => Ok((key, value)),
            None => candle_core::bail!("no text keys for cross-attention {index}"),
        }
    }
}

/// Collects the maps of one level during a pass.
#[derive(Clone)]
struct Capture {
    /// `None`: nothing is captured.
    level: Option<usize>,
    /// Stop behind the last layer.
    truncate: bool,
    layers: usize,
    /// One a layer, `[b, 77, h * w]`: the mean over heads.
    maps: Vec<Tensor>,
}

impl Capture {
    /// Whether the maps of a level are collected.
    fn wants(&self, level: usize) -> bool {
        self.level == Some(level)
    }

    /// Takes a layer's map `[b, 77, h * w]`; says whether it was the last that is wanted.
    fn keep(&mut self, map: Tensor) -> Result<ControlFlow<()>> {
        self.maps.push(map);
        let stop = self.truncate && self.maps.len() == self.layers;
        Ok(if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    /// What collects the next map alone, if that is one of `level`.
    fn only_next(&self, level: usize) -> Self {
        Self {
            level: self.level.filter(|wanted| *wanted == level),
            truncate: self.truncate && self.maps.len() + 1 == self.layers,
            layers: 1,
            maps: Vec::new(),
        }
    }

    /// The mean over the layers, `[b, h * w, 77]`.
    fn mean(&self) -> Result<Tensor> {
        let Some((first, rest)) = self.maps.split_first() else {
            candle_core::bail!("no map was captured")
        };
        let sum = rest.iter().try_fold(first.clone(), |sum, map| sum + map)?;
        (sum / self.maps.len() as f64)?.transpose(1, 2)?.contiguous()
    }
}

impl UNet {
    pub(crate) fn load(loader: &mut Loader<'_>) -> crate::Result<Self> {
        let config = Config::parse(&loader.bytes(config::FILE)?)?;
        let weights = loader.weights("unet", STEM)?;
        let root = weights.root();
        let levels = config.levels.len();
        let first = config.levels[0].channels;
        let time = 4 * first;
        let map_level = config.map_level()?;
        let mut builder =
            Builder { root: root.clone(), config: &config, time, map_level, next_index: 0 };
        let down = (0..levels).map(|l| builder.down(l)).collect::<crate::Result<Vec<_>>>()?;
        let middle = builder.middle()?;
        let up = (0..levels).rev().map(|l| builder.up(l)).collect::<crate::Result<Vec<_>>>()?;
        let map_layers = config.map_layers(map_level);
        let added = config.added.map(|added| AddedEmbedding::load(&root, added, time));
        let (shape, norm_out) = (ConvShape::new(3, config.sample_size), root.at("conv_norm_out"));
        let unet = Self {
            added: added.transpose()?,
            map_level,
            map_layers,
            time1: Linear::load(&root.at("time_embedding.linear_1"), (first, time))?,
            time2: Linear::load(&root.at("time_embedding.linear_2"), (time, time))?,
            conv_in: Conv2d::load(&root.at("conv_in"), (config.channels, first), shape)?,
            down,
            middle,
            up,
            norm_out: GroupNorm::load(&norm_out, first, config.groups, config.eps, true)?,
            conv_out: Conv2d::load(&root.at("conv_out"), (first, config.channels), shape)?,
            compute: loader.compute().clone(),
            config,
        };
        weights.require_all_used()?;
        Ok(unet)
    }

    /// Side of the latents that the model was trained on.
    pub fn sample_size(&self) -> usize {
        self.config.sample_size
    }

    pub(crate) fn set_sample_size(&mut self, side: usize) {
        self.config.sample_size = side;
    }

    /// What height and width of the latents must be a multiple of.
    pub fn size_multiple(&self) -> usize {
        self.config.size_multiple()
    }

    /// The smallest side of latents whose maps have two pixels along a side: below that there is no
    /// place to look at.
    pub(crate) fn side_min(&self) -> usize {
        self.size_multiple().max(2 << self.map_level)
    }

    /// Channels of the text states that the cross-attentions take.
    pub fn context(&self) -> usize {
        self.config.context
    }

    /// Height and width of the maps for latents of this height and width.
    pub fn map_size(&self, (height, width): (usize, usize)) -> (usize, usize) {
        (height >> self.map_level, width >> self.map_level)
    }

    /// Channels of the pooled text that the UNet takes (SDXL), if it takes any.
    pub(crate) fn pooled(&self) -> Option<usize> {
        self.config.added.map(|added| added.pooled)
    }

    /// What the passes for one text need: keys and values of its states for all cross-attentions
    /// and, for SDXL, its pooled states with the `(height, width)` of the image in pixels.
    ///
    /// # Errors
    /// If the states have another width than the model's, or the pooled ones are missing.
    pub fn condition(
        &self,
        text: &TextStates,
        size: (usize, usize),
    ) -> crate::Result<Conditioning> {
        let stages = self.down.iter().chain([&self.middle]).chain(&self.up);
        let states = self.compute.enter(&text.states)?;
        let mut keys = Vec::new();
        for transformer in stages.flat_map(Stage::transformers) {
            keys.extend(transformer.text_keys(&states)?);
        }
        let added = match (&self.added, &text.pooled) {
            (None, _) => None,
            (Some(added), Some(pooled)) => Some(added.forward(pooled, size, &self.compute)?),
            (Some(_), None) => {
                return Err(Error::Spec("this UNet needs pooled text states".into()));
            }
        };
        Ok(Conditioning { keys, added })
    }

    /// The noise prediction `[b, 4, h, w]` for latents of that shape at `timestep`.
    ///
    /// # Errors
    /// If the tensor library fails.
    pub fn noise(
        &self,
        latents: &Tensor,
        timestep: f32,
        conditioning: &Conditioning,
    ) -> crate::Result<Tensor> {
        Ok(self.noise_and_map(latents, timestep, conditioning, false)?.0)
    }

    /// The noise prediction and, if asked, the mean map `[b, h * w, 77]` of the same pass.
    ///
    /// # Errors
    /// If the tensor library fails.
    pub fn noise_and_map(
        &self,
        latents: &Tensor,
        timestep: f32,
        conditioning: &Conditioning,
        map: bool,
    ) -> crate::Result<(Tensor, Option<Tensor>)> {
        let mut capture = self.capture(map, false);
        match self.pass(latents, timestep, conditioning, &mut capture)? {
            ControlFlow::Continue(noise) => {
                let map = map.then(|| leave(&capture.mean()?)).transpose()?;
                Ok((leave(&noise)?, map))
            }
            ControlFlow::Break(()) => Err(no_output()),
        }
    }

    /// The mean over layers and heads of the cross-attention probabilities at the map level,
    /// `[b, h * w, 77]`; the pass stops behind the last layer that it needs. Has a gradient if
    /// `latents` has.
    ///
    /// # Errors
    /// If the tensor library fails.
    pub fn map(
        &self,
        latents: &Tensor,
        timestep: f32,
        conditioning: &Conditioning,
    ) -> crate::Result<Tensor> {
        let mut capture = self.capture(true, true);
        let _ = self.pass(latents, timestep, conditioning, &mut capture)?;
        Ok(leave(&gradient_times(&capture.mean()?, self.gradient_scale())?)?)
    }

    fn capture(&self, map: bool, truncate: bool) -> Capture {
        let level = map.then_some(self.map_level);
        Capture { level, truncate, layers: self.map_layers, maps: Vec::new() }
    }

    fn pass(
        &self,
        latents: &Tensor,
        timestep: f32,
        conditioning: &Conditioning,
        capture: &mut Capture,
    ) -> Result<ControlFlow<(), Tensor>> {
        let time = self.time_embedding(timestep, conditioning)?;
        let pass = Pass { time: &time, conditioning };
        let latents = gradient_times(latents, 1. / self.gradient_scale())?;
        let latents = self.compute.enter(&latents)?;
        let mut x = seen("", "conv_in", self.conv_in.forward(&latents)?)?;
        let mut skips = vec![x.clone()];
        for stage in &self.down {
            match stage.down(x, &pass, &mut skips, capture)? {
                ControlFlow::Continue(next) => x = next,
                stop => return Ok(stop),
            }
        }
        match self.middle.middle(x, &pass, capture)? {
            ControlFlow::Continue(next) => x = next,
            stop => return Ok(stop),
        }
        for stage in &self.up {
            match stage.up(x, &pass, &mut skips, capture)? {
                ControlFlow::Continue(next) => x = next,
                stop => return Ok(stop),
            }
        }
        let x = seen("", "conv_norm_out", self.norm_out.forward(&x)?)?;
        Ok(ControlFlow::Continue(seen("", "conv_out", self.conv_out.forward(&x)?)?))
    }

    /// The timestep through two linear layers, what the conditioning adds, and the activation that
    /// every resnet puts before its projection: `[1, 1, t]`, or `[b, 1, t]` where the images differ.
    fn time_embedding(&self, timestep: f32, conditioning: &Conditioning) -> Result<Tensor> {
        let Config { flip_sin_to_cos, freq_shift, .. } = self.config;
        let channels = self.config.levels[0].channels;
        let embedding = sinusoids(&[timestep], channels, flip_sin_to_cos, freq_shift)?;
        let embedding = self.time1.forward(&self.compute.enter(&embedding)?)?;
        let embedding = seen("time_embedding", "linear_1", embedding)?.silu()?;
        let embedding = seen("time_embedding", "linear_2", self.time2.forward(&embedding)?)?;
        match &conditioning.added {
            Some(added) => added.broadcast_add(&embedding)?.silu(),
            None => embedding.silu(),
        }
    }

    fn gradient_scale(&self) -> f64 {
        match self.compute.precision() {
            Precision::F16 => F16_GRADIENT_SCALE,
            Precision::F32 | Precision::Bf16 => 1.,
        }
    }
}

/// Sinusoidal embeddings of `channels` values each, one behind the other: `[1, 1, n * channels]`.
fn sinusoids(values: &[f32], channels: usize, cosines_first: bool, shift: f64) -> Result<Tensor> {
    let half = channels / 2;
    let exponent = -(10000f32.ln()) / (half as f32 - shift as f32);
    let embed = |value: &f32| {
        let angles: Vec<f32> = (0..half).map(|i| value * (exponent * i as f32).exp()).collect();
        let sines: Vec<f32> = angles.iter().map(|a| a.sin()).collect();
        let cosines: Vec<f32> = angles.iter().map(|a| a.cos()).collect();
        if cosines_first { [cosines, sines].concat() } else { [sines, cosines].concat() }
    };
    let embedding: Vec<f32> = values.iter().flat_map(embed).collect();
    let count = embedding.len();
    Tensor::from_vec(embedding, (1, 1, count), &Device::Cpu)
}

fn no_output() -> Error {
    candle_core::Error::Msg("the UNet stopped before its output".into()).into()
}
