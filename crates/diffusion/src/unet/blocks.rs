//! The down, middle and up blocks of the UNet, and their resnets.

use std::ops::ControlFlow;

use candle_core::{Result, Tensor};

use super::attention::{Flow, Place, Transformer};
use super::config::{Config, Level};
use super::{Capture, Conditioning};
use crate::layers::{Conv2d, GroupNorm, Linear, Shape, upsample_nearest};
use crate::probe::seen;
use crate::weights::Scope;

/// What group normalisations have in common.
#[derive(Clone, Copy)]
pub(crate) struct Norm {
    pub(crate) groups: usize,
    pub(crate) eps: f64,
}

/// `ResnetBlock2D` of diffusers; the VAE uses it without a time embedding.
pub(crate) struct Resnet {
    norm1: GroupNorm,
    conv1: Conv2d,
    time: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
    path: String,
}

impl Resnet {
    /// `side` is the height and width that its images are usually of.
    pub(crate) fn load(
        scope: &Scope<'_>,
        (cin, cout): (usize, usize),
        time: Option<usize>,
        norm: Norm,
        side: usize,
    ) -> crate::Result<Self> {
        let Norm { groups, eps } = norm;
        let time = time.map(|t| Linear::load(&scope.at("time_emb_proj"), (t, cout)));
        let shortcut = (cin != cout)
            .then(|| Conv2d::load(&scope.at("conv_shortcut"), (cin, cout), Shape::new(1, side)));
        let shape = Shape::new(3, side);
        Ok(Self {
            norm1: GroupNorm::load(&scope.at("norm1"), cin, groups, eps, true)?,
            conv1: Conv2d::load(&scope.at("conv1"), (cin, cout), shape)?,
            time: time.transpose()?,
            norm2: GroupNorm::load(&scope.at("norm2"), cout, groups, eps, true)?,
            conv2: Conv2d::load(&scope.at("conv2"), (cout, cout), shape)?,
            shortcut: shortcut.transpose()?,
            path: scope.path(),
        })
    }

    /// `x` `[b, in, h, w]`, `time` `[1, 1, t]` or `[b, 1, t]` (after its activation) to
    /// `[b, out, h, w]`.
    pub(crate) fn forward(&self, x: &Tensor, time: Option<&Tensor>) -> Result<Tensor> {
        // One row at a time: a product with one row and one with many rows sum in a different
        // order. Where images share the timestep and no more is known of them, once for all.
        let shift = match (&self.time, time) {
            (Some(projection), Some(time)) => {
                let shift = projection.forward(time)?.squeeze(1)?;
                Some(self.seen("time_emb_proj", shift)?)
            }
            _ => None,
        };
        let h = self.seen("norm1", self.norm1.forward(x)?)?;
        let h = self.seen("conv1", self.conv1.forward_shifted(&h, shift.as_ref())?)?;
        let h = self.seen("norm2", self.norm2.forward(&h)?)?;
        let y = match &self.shortcut {
            Some(shortcut) => {
                let x = self.seen("conv_shortcut", shortcut.forward(x)?)?;
                self.conv2.forward_plus(&h, &x)?
            }
            None => self.conv2.forward_plus(&h, x)?,
        };
        self.seen("conv2", y)
    }

    fn seen(&self, layer: &str, output: Tensor) -> Result<Tensor> {
        seen(&self.path, layer, output)
    }
}

/// What every block gets in a pass.
pub(super) struct Pass<'a> {
    pub(super) time: &'a Tensor,
    pub(super) conditioning: &'a Conditioning,
}

/// A down or up block, or the middle: resnets, each with its transformer if the level has them.
pub(super) struct Stage {
    resnets: Vec<Resnet>,
    transformers: Vec<Transformer>,
    resample: Option<Conv2d>,
    path: String,
}

/// Loads stages in the order of execution.
pub(super) struct Builder<'a> {
    pub(super) root: Scope<'a>,
    pub(super) config: &'a Config,
    pub(super) time: usize,
    pub(super) map_level: usize,
    pub(super) next_index: usize,
}

impl Builder<'_> {
    pub(super) fn down(&mut self, level: usize) -> crate::Result<Stage> {
        let (config, this) = (self.config, &self.config.levels[level]);
        let first = config.levels[level.saturating_sub(1)].channels;
        let channels = (0..this.layers)
            .map(|j| (if j == 0 { first } else { this.channels }, this.channels))
            .collect();
        let scope = self.root.at(&format!("down_blocks.{level}"));
        let last = level + 1 == config.levels.len();
        let resample = (!last).then(|| {
            let scope = scope.at("downsamplers.0.conv");
            Conv2d::load(&scope, (this.channels, this.channels), Shape::halving(1))
        });
        let attention = if this.attention_down { this.layers } else { 0 };
        self.stage(&scope, level, channels, attention, resample.transpose()?)
    }

    pub(super) fn middle(&mut self) -> crate::Result<Stage> {
        let level = self.config.levels.len() - 1;
        let c = self.config.levels[level].channels;
        self.stage(&self.root.at("mid_block"), level, vec![(c, c); 2], 1, None)
    }

    /// `level` counts as in the down blocks: `up_blocks.0` is the lowest.
    pub(super) fn up(&mut self, level: usize) -> crate::Result<Stage> {
        let levels = &self.config.levels;
        let this = &levels[level];
        let below = levels[(level + 1).min(levels.len() - 1)].channels;
        let above = levels[level.saturating_sub(1)].channels;
        let count = this.layers + 1;
        let channels = (0..count)
            .map(|j| {
                let input = if j == 0 { below } else { this.channels };
                let skip = if j + 1 == count { above } else { this.channels };
                (input + skip, this.channels)
            })
            .collect();
        let scope = self.root.at(&format!("up_blocks.{}", levels.len() - 1 - level));
        let resample = (level > 0).then(|| {
            let scope = scope.at("upsamplers.0.conv");
            let shape = Shape::new(3, 2 * self.side(level));
            Conv2d::load(&scope, (this.channels, this.channels), shape)
        });
        let attention = if this.attention_up { count } else { 0 };
        self.stage(&scope, level, channels, attention, resample.transpose()?)
    }

    /// Height and width of a level's images, for latents of the size of the training.
    fn side(&self, level: usize) -> usize {
        self.config.sample_size >> level
    }

    fn stage(
        &mut self,
        scope: &Scope<'_>,
        level: usize,
        channels: Vec<(usize, usize)>,
        attentions: usize,
        resample: Option<Conv2d>,
    ) -> crate::Result<Stage> {
        let config: &Level = &self.config.levels[level];
        let mut place = Place {
            level,
            map_level: self.map_level,
            config,
            context: self.config.context,
            groups: self.config.groups,
            next_index: &mut self.next_index,
        };
        let transformers = (0..attentions)
            .map(|j| Transformer::load(&scope.at(&format!("attentions.{j}")), &mut place))
            .collect::<crate::Result<_>>()?;
        let norm = Norm { groups: self.config.groups, eps: self.config.eps };
        let side = self.side(level);
        let resnet = |(j, &channels): (usize, &(usize, usize))| {
            let scope = scope.at(&format!("resnets.{j}"));
            Resnet::load(&scope, channels, Some(self.time), norm, side)
        };
        let resnets = channels.iter().enumerate().map(resnet).collect::<crate::Result<_>>()?;
        Ok(Stage { resnets, transformers, resample, path: scope.path() })
    }
}

impl Stage {
    pub(super) fn transformers(&self) -> &[Transformer] {
        &self.transformers
    }

    /// Down: every output also goes to `skips`.
    pub(super) fn down(
        &self,
        mut x: Tensor,
        pass: &Pass<'_>,
        skips: &mut Vec<Tensor>,
        capture: &mut Capture,
    ) -> Result<Flow> {
        for j in 0..self.resnets.len() {
            match self.layer(j, &x, pass, capture)? {
                ControlFlow::Continue(next) => x = next,
                stop => return Ok(stop),
            }
            skips.push(x.clone());
        }
        if let Some(downsample) = &self.resample {
            x = seen(&self.path, "downsamplers.0.conv", downsample.forward(&x)?)?;
            skips.push(x.clone());
        }
        Ok(ControlFlow::Continue(x))
    }

    pub(super) fn middle(&self, x: Tensor, pass: &Pass<'_>, capture: &mut Capture) -> Result<Flow> {
        match self.layer(0, &x, pass, capture)? {
            ControlFlow::Continue(x) => {
                Ok(ControlFlow::Continue(self.resnets[1].forward(&x, Some(pass.time))?))
            }
            stop => Ok(stop),
        }
    }

    /// Up: every resnet takes one of `skips`, last in first out.
    pub(super) fn up(
        &self,
        mut x: Tensor,
        pass: &Pass<'_>,
        skips: &mut Vec<Tensor>,
        capture: &mut Capture,
    ) -> Result<Flow> {
        for j in 0..self.resnets.len() {
            let Some(skip) = skips.pop() else { candle_core::bail!("the UNet has no skip left") };
            match self.layer(j, &Tensor::cat(&[&x, &skip], 1)?, pass, capture)? {
                ControlFlow::Continue(next) => x = next,
                stop => return Ok(stop),
            }
        }
        if let Some(convolution) = &self.resample {
            let larger = convolution.forward(&upsample_nearest(&x)?)?;
            x = seen(&self.path, "upsamplers.0.conv", larger)?;
        }
        Ok(ControlFlow::Continue(x))
    }

    fn layer(&self, j: usize, x: &Tensor, pass: &Pass<'_>, capture: &mut Capture) -> Result<Flow> {
        let x = self.resnets[j].forward(x, Some(pass.time))?;
        match self.transformers.get(j) {
            Some(transformer) => transformer.forward(&x, pass.conditioning, capture),
            None => Ok(ControlFlow::Continue(x)),
        }
    }
}
