//! The UNet: predicts noise, and shows where each token is looked at on the way.
//!
//! Differences from other ports: only the latent has a gradient (`layers`), maps are captured only
//! when asked for, a pass that only wants maps stops behind the last attention it needs, and a
//! prompt's text keys and values are computed once ([`UNet::text_keys`]). The topology follows
//! `UNet2DConditionModel` of diffusers. Not here: losses (`guidance`), steps (`run`).

mod attention;
mod blocks;
mod config;

use std::ops::ControlFlow;

use candle_core::{Result, Tensor};

pub(crate) use blocks::Resnet;
use blocks::{Builder, Pass, Stage};
use config::Config;

use crate::error::Error;
use crate::folder::Loader;
use crate::layers::{Conv2d, GroupNorm, Linear};

const WEIGHTS: [&str; 2] =
    ["unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors"];

/// The noise predictor of a model.
pub struct UNet {
    config: Config,
    map_level: usize,
    /// Cross-attentions at `map_level`, over which a map is the mean.
    map_layers: usize,
    time1: Linear,
    time2: Linear,
    conv_in: Conv2d,
    down: Vec<Stage>,
    middle: Stage,
    up: Vec<Stage>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

/// Keys and values of the text for every cross-attention, `b` images each.
#[derive(Clone)]
pub struct TextKeys(Vec<(Tensor, Tensor)>);

impl TextKeys {
    /// Joins the keys of several texts into one batch, in order.
    ///
    /// # Errors
    /// If `texts` is empty.
    pub fn batch(texts: &[&Self]) -> crate::Result<Self> {
        if let [one] = texts {
            return Ok((*one).clone());
        }
        let layers = texts.first().map_or(0, |text| text.0.len());
        let join = |pick: &dyn Fn(&(Tensor, Tensor)) -> Tensor, i: usize| {
            Tensor::cat(&texts.iter().map(|text| pick(&text.0[i])).collect::<Vec<_>>(), 0)
        };
        let pair = |i| Ok((join(&|kv| kv.0.clone(), i)?, join(&|kv| kv.1.clone(), i)?));
        Ok(Self((0..layers).map(pair).collect::<crate::Result<_>>()?))
    }

    fn of(&self, index: usize) -> Result<(&Tensor, &Tensor)> {
        match self.0.get(index) {
            Some((key, value)) => Ok((key, value)),
            None => candle_core::bail!("no text keys for cross-attention {index}"),
        }
    }
}

/// Collects the maps of one level during a pass.
struct Capture {
    /// `None`: nothing is captured.
    level: Option<usize>,
    /// Stop behind the last layer.
    truncate: bool,
    layers: usize,
    /// One a layer, `[b, h * w, 77]`: the mean over heads.
    maps: Vec<Tensor>,
}

impl Capture {
    fn take(&mut self, level: usize, probabilities: &Tensor) -> Result<ControlFlow<()>> {
        if self.level != Some(level) {
            return Ok(ControlFlow::Continue(()));
        }
        self.maps.push(probabilities.mean(1)?);
        let stop = self.truncate && self.maps.len() == self.layers;
        Ok(if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    /// The mean over the layers, `[b, h * w, 77]`.
    fn mean(&self) -> Result<Tensor> {
        let Some((first, rest)) = self.maps.split_first() else {
            candle_core::bail!("no map was captured")
        };
        let sum = rest.iter().try_fold(first.clone(), |sum, map| sum + map)?;
        sum / self.maps.len() as f64
    }
}

impl UNet {
    pub(crate) fn load(loader: &mut Loader<'_>) -> crate::Result<Self> {
        let config = Config::parse(&loader.bytes(config::FILE)?)?;
        let weights = loader.weights(&WEIGHTS)?;
        let root = weights.root();
        let levels = config.levels.len();
        let first = config.levels[0].channels;
        let time = 4 * first;
        let wrong = |message: String| Error::Config { file: config::FILE.into(), message };
        let map_level = config.map_level().ok_or_else(|| {
            wrong("no down block has cross-attention, so there are no maps".into())
        })?;
        let mut builder = Builder { root: root.clone(), config: &config, time, next_index: 0 };
        let down = (0..levels).map(|l| builder.down(l)).collect::<crate::Result<Vec<_>>>()?;
        let middle = builder.middle()?;
        let up = (0..levels).rev().map(|l| builder.up(l)).collect::<crate::Result<Vec<_>>>()?;
        let map_layers = config.map_layers(map_level);
        Ok(Self {
            map_level,
            map_layers,
            time1: Linear::load(&root.at("time_embedding.linear_1"), (first, time))?,
            time2: Linear::load(&root.at("time_embedding.linear_2"), (time, time))?,
            conv_in: Conv2d::load(&root.at("conv_in"), (config.channels, first), 3, 1)?,
            down,
            middle,
            up,
            norm_out: GroupNorm::load(&root.at("conv_norm_out"), first, config.groups, config.eps)?,
            conv_out: Conv2d::load(&root.at("conv_out"), (first, config.channels), 3, 1)?,
            config,
        })
    }

    /// Side of the latents that the model was trained on.
    pub fn sample_size(&self) -> usize {
        self.config.sample_size
    }

    /// What height and width of the latents must be a multiple of.
    pub fn size_multiple(&self) -> usize {
        self.config.size_multiple()
    }

    /// Channels of the text states that the cross-attentions take.
    pub fn context(&self) -> usize {
        self.config.context
    }

    /// Height and width of the maps for latents of this height and width.
    pub fn map_size(&self, (height, width): (usize, usize)) -> (usize, usize) {
        (height >> self.map_level, width >> self.map_level)
    }

    /// Keys and values of text states `[b, 77, d]` for all cross-attentions.
    ///
    /// # Errors
    /// If the states have another width than the model's.
    pub fn text_keys(&self, states: &Tensor) -> crate::Result<TextKeys> {
        let stages = self.down.iter().chain([&self.middle]).chain(&self.up);
        let mut keys = Vec::new();
        for transformer in stages.flat_map(Stage::transformers) {
            keys.extend(transformer.text_keys(states)?);
        }
        Ok(TextKeys(keys))
    }

    /// The noise prediction `[b, 4, h, w]` for latents of that shape at `timestep`.
    ///
    /// # Errors
    /// If the tensor library fails.
    pub fn noise(&self, latents: &Tensor, timestep: u32, keys: &TextKeys) -> crate::Result<Tensor> {
        Ok(self.noise_and_map(latents, timestep, keys, false)?.0)
    }

    /// The noise prediction and, if asked, the mean map `[b, h * w, 77]` of the same pass.
    ///
    /// # Errors
    /// If the tensor library fails.
    pub fn noise_and_map(
        &self,
        latents: &Tensor,
        timestep: u32,
        keys: &TextKeys,
        map: bool,
    ) -> crate::Result<(Tensor, Option<Tensor>)> {
        let mut capture = self.capture(map, false);
        match self.pass(latents, timestep, keys, &mut capture)? {
            ControlFlow::Continue(noise) => Ok((noise, map.then(|| capture.mean()).transpose()?)),
            ControlFlow::Break(()) => Err(no_output()),
        }
    }

    /// The mean over layers and heads of the cross-attention probabilities at the map level,
    /// `[b, h * w, 77]`; the pass stops behind the last layer that it needs. Has a gradient if
    /// `latents` has.
    ///
    /// # Errors
    /// If the tensor library fails.
    pub fn map(&self, latents: &Tensor, timestep: u32, keys: &TextKeys) -> crate::Result<Tensor> {
        let mut capture = self.capture(true, true);
        let _ = self.pass(latents, timestep, keys, &mut capture)?;
        Ok(capture.mean()?)
    }

    fn capture(&self, map: bool, truncate: bool) -> Capture {
        let level = map.then_some(self.map_level);
        Capture { level, truncate, layers: self.map_layers, maps: Vec::new() }
    }

    fn pass(
        &self,
        latents: &Tensor,
        timestep: u32,
        keys: &TextKeys,
        capture: &mut Capture,
    ) -> Result<ControlFlow<(), Tensor>> {
        let time = self.time_embedding(timestep, latents)?;
        let pass = Pass { time: &time, keys };
        let mut x = self.conv_in.forward(latents)?;
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
        let noise = self.conv_out.forward(&self.norm_out.forward(&x)?.silu()?)?;
        Ok(ControlFlow::Continue(noise))
    }

    /// Sinusoidal embedding of the timestep through two linear layers, and the activation that
    /// every resnet puts before its projection: `[1, 1, 4 * channels]`.
    fn time_embedding(&self, timestep: u32, like: &Tensor) -> Result<Tensor> {
        let half = self.config.levels[0].channels / 2;
        let exponent = -(10000f32.ln()) / (half as f32 - self.config.freq_shift as f32);
        let angles: Vec<f32> =
            (0..half).map(|i| timestep as f32 * (exponent * i as f32).exp()).collect();
        let sines = angles.iter().map(|a| a.sin());
        let cosines = angles.iter().map(|a| a.cos());
        let embedding: Vec<f32> = if self.config.flip_sin_to_cos {
            cosines.chain(sines).collect()
        } else {
            sines.chain(cosines).collect()
        };
        let embedding = Tensor::from_vec(embedding, (1, 1, 2 * half), like.device())?;
        self.time2.forward(&self.time1.forward(&embedding)?.silu()?)?.silu()
    }
}

fn no_output() -> Error {
    candle_core::Error::Msg("the UNet stopped before its output".into()).into()
}
