//! A run: a micro-batch of images from noise to pixels, one step at a time.
//!
//! All images of a run share size, steps and scheduler; prompts, seeds, methods and guidance scales
//! are their own. The numbered comments in [`Run::step`] are the algorithm. A step either ends
//! whole or leaves the run as it was, so a [`Checkpoint`] can be taken between any two steps.
//!
//! Not here: what a job is (`excite_jobs`), where images go (the callers).

mod guide;
mod row;
mod texts;

use std::collections::BTreeMap;

use candle_core::Tensor;
use excite_jobs::{ModelFacts, Spec, Try};

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::guidance::composable::combine;
use crate::model::Model;
use crate::noise::Generator;
use crate::picture::Picture;
use crate::probe;
use crate::scheduler::Scheduler;
use crate::trace::{Observed, Record};
use crate::unet::Conditioning;
use guide::scaled;
use row::Row;
use texts::Texts;

/// What a run records beyond the images.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outputs {
    /// Keep the latents after each step (for a trace).
    pub latents: bool,
    /// Keep the subjects' maps of each step (for heat maps), from the conditional half of the
    /// denoising pass.
    pub maps: bool,
}

/// What a step did, one entry an image.
#[derive(Debug, Clone)]
pub struct StepReport {
    /// The step, from 0.
    pub step: usize,
    /// Steps in all.
    pub steps: usize,
    /// The loss that decided the update; NaN where there was none.
    pub losses: Vec<f32>,
    /// The scores that decided the update; where there was none, those that were observed.
    pub scores: Vec<Vec<f32>>,
    /// Refinement iterations.
    pub refinements: Vec<u32>,
}

/// A finished image and what was recorded on the way.
pub struct Rendered {
    /// What it is.
    pub spec: Spec,
    /// The kind of machine that made it.
    pub kind: String,
    /// The seeds that were tried for it; empty where any was good enough.
    pub tries: Vec<Try>,
    /// The pixels.
    pub picture: Picture,
    /// What the steps recorded.
    pub record: Record,
    /// `[4, h, w]`
    pub noise: Tensor,
    /// `[77, d]`
    pub text_states: Tensor,
    /// `[4, h, w]`
    pub final_latents: Tensor,
    /// `[3, H, W]` in 0..1, before rounding.
    pub image: Tensor,
}

/// An image between two steps that left its run; it can take a row of one at the same step.
pub(crate) struct Parked {
    row: Row,
    scheduler: BTreeMap<String, Tensor>,
    done: usize,
}

impl Parked {
    /// Steps done.
    pub(crate) fn done(&self) -> usize {
        self.done
    }
}

/// A micro-batch in progress.
pub struct Run<'m> {
    model: &'m Model,
    rows: Vec<Row>,
    outputs: Outputs,
    scheduler: Scheduler,
    /// Steps done.
    done: usize,
    /// Height and width of the latents.
    size: (usize, usize),
}

impl<'m> Run<'m> {
    /// Starts images from their noise.
    ///
    /// # Errors
    /// If `specs` is empty, they cannot share a run, or one does not fit the model.
    pub fn start(model: &'m Model, specs: &[Spec], outputs: Outputs) -> Result<Self> {
        let first = specs.first().ok_or_else(|| Error::Spec("a run needs an image".into()))?;
        let size = latent_size(model, first)?;
        for spec in specs {
            let alike = (spec.width, spec.height, spec.steps, spec.scheduler)
                == (first.width, first.height, first.steps, first.scheduler);
            if !alike {
                return Err(Error::Spec(
                    "the images of a run must share `width`, `height`, `steps` and `scheduler`"
                        .into(),
                ));
            }
            if spec.model != model.name() {
                return Err(Error::Spec(format!(
                    "`model` is `{}`, but `{}` is loaded",
                    spec.model,
                    model.name()
                )));
            }
        }
        let scheduler = model.schedulers().scheduler(first.scheduler, first.steps)?;
        let pixels = (first.height as usize, first.width as usize);
        let mut texts = Texts::new(model, pixels);
        let rows = specs
            .iter()
            .map(|spec| Row::new(&mut texts, spec, size, &scheduler))
            .collect::<Result<_>>()?;
        Ok(Self { model, rows, outputs, scheduler, done: 0, size })
    }

    /// Goes on from checkpoints of the same step, one a spec.
    ///
    /// # Errors
    /// As [`Run::start`], and if a checkpoint belongs to another spec or step, or lacks something
    /// that `outputs` wants.
    pub fn resume(
        model: &'m Model,
        specs: &[Spec],
        outputs: Outputs,
        checkpoints: &[Checkpoint],
    ) -> Result<Self> {
        let mut run = Self::start(model, specs, outputs)?;
        let wrong = |message: &str| Err(Error::Checkpoint(message.to_owned()));
        let Some(first) = checkpoints.first() else { return wrong("there is none") };
        if checkpoints.len() != specs.len() {
            return wrong("there must be one for each image");
        }
        if checkpoints.iter().any(|checkpoint| checkpoint.next_step() != first.next_step()) {
            return wrong("the images stopped at different steps");
        }
        if first.next_step() > run.steps() {
            return wrong("it lies behind the last step");
        }
        run.done = first.next_step();
        for (row, checkpoint) in run.rows.iter_mut().zip(checkpoints) {
            row.restore(checkpoint, model.compute().kind(), run.scheduler.draws_noise(), outputs)?;
        }
        let join = |name: &str| {
            let each: Option<Vec<_>> = checkpoints.iter().map(|c| c.scheduler(name)).collect();
            each.and_then(|each| Tensor::stack(&each, 0).ok())
        };
        run.scheduler.restore(join);
        Ok(run)
    }

    /// Steps of the whole run (PNDM makes one more than `steps`).
    pub fn steps(&self) -> usize {
        self.scheduler.timesteps().len()
    }

    /// Steps done.
    pub fn done(&self) -> usize {
        self.done
    }

    /// Makes one step. `cancelled` is asked before each pass through the UNet.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if `cancelled` said so: the running step is abandoned. Otherwise if a
    /// value is not finite or the tensor library fails.
    pub fn step(&mut self, cancelled: &dyn Fn() -> bool) -> Result<StepReport> {
        let (step, steps) = (self.done, self.steps());
        if step >= steps {
            return Err(Error::Spec("the run has no step left".into()));
        }
        let timestep = self.scheduler.timesteps()[step];
        // 1. Guidance moves the latents of the images that have it, refined where it is due.
        let (latents, guided) = self.guide(step, timestep, cancelled)?;
        // 2. The full UNet predicts, for the moved latents, unconditional and conditional.
        if cancelled() {
            return Err(Error::Cancelled);
        }
        let (prediction, observed) = self.predict(step, timestep, &latents)?;
        // 3. The scheduler takes the latents to the next timestep, some with fresh noise.
        let mut scheduler = self.scheduler.clone();
        let mut generators: Vec<_> = self.rows.iter().map(|row| row.generator.clone()).collect();
        let latents = Tensor::stack(&latents, 0)?;
        let noise = scheduler.draws_noise().then(|| draw(&mut generators, &latents)).transpose()?;
        let latents = scheduler.step(step, &prediction, &latents, noise.as_ref())?;
        let latents: Vec<Tensor> =
            (0..self.rows.len()).map(|r| latents.get(r)).collect::<Result<_, _>>()?;
        for (r, (row, latents)) in self.rows.iter().zip(&latents).enumerate() {
            row.require_finite(latents, ("the latents", step, r), || None)?;
        }
        // 4. Only now is anything kept.
        self.scheduler = scheduler;
        let report = StepReport {
            step,
            steps,
            losses: guided.iter().map(|g| g.step.loss).collect(),
            scores: guided.iter().zip(&observed).map(|(g, seen)| scores(g, seen)).collect(),
            refinements: guided.iter().map(|g| g.step.refinements).collect(),
        };
        let states = latents.into_iter().zip(generators);
        for (((row, state), guided), observed) in
            self.rows.iter_mut().zip(states).zip(guided).zip(observed)
        {
            row.keep(state, guided, observed, self.outputs);
        }
        self.done += 1;
        Ok(report)
    }

    /// Goes on with some of the images only: `keep` has an entry for each, in their order. The bytes
    /// of those that stay do not change.
    ///
    /// # Errors
    /// If none would be left, or the tensor library fails; then the run is as it was.
    pub fn retain(&mut self, keep: &[bool]) -> Result<()> {
        let places: Vec<u32> = (0..).zip(keep).filter(|(_, keep)| **keep).map(|(r, _)| r).collect();
        if keep.len() != self.rows.len() || places.is_empty() {
            return Err(Error::Spec("a run needs an image".into()));
        }
        let places = Tensor::new(places, &candle_core::Device::Cpu)?;
        let state: BTreeMap<String, Tensor> = self
            .scheduler
            .state()
            .into_iter()
            .map(|(name, batch)| {
                Ok((name, batch.index_select(&places.to_device(batch.device())?, 0)?))
            })
            .collect::<Result<_>>()?;
        self.scheduler.restore(|name| state.get(name).cloned());
        let mut keep = keep.iter();
        self.rows.retain(|_| keep.next() == Some(&true));
        Ok(())
    }

    /// Makes all steps that are left and decodes.
    ///
    /// # Errors
    /// As [`Run::step`].
    pub fn complete(
        mut self,
        cancelled: &dyn Fn() -> bool,
        mut after: impl FnMut(&StepReport),
    ) -> Result<Vec<Rendered>> {
        while self.done < self.steps() {
            after(&self.step(cancelled)?);
        }
        self.finish()
    }

    /// What a row is and what was recorded of it.
    pub(crate) fn seen(&self, row: usize) -> Result<(&Spec, &Record)> {
        self.row(row).map(|row| (&row.spec, &row.record))
    }

    /// The state of a row, for [`Run::replace`].
    pub(crate) fn park(&self, row: usize) -> Result<Parked> {
        let scheduler = self.scheduler_row(row)?.into_iter().collect();
        Ok(Parked { row: self.row(row)?.clone(), scheduler, done: self.done })
    }

    /// Another image, which is at the same step, goes on in a row.
    pub(crate) fn replace(&mut self, row: usize, parked: Parked) -> Result<()> {
        if parked.done != self.done {
            let message = format!("it is at step {}, the run at {}", parked.done, self.done);
            return Err(Error::Checkpoint(message));
        }
        let wrong = || Error::Checkpoint(format!("there is no row {row}"));
        let mut state = BTreeMap::new();
        for (name, batch) in self.scheduler.state() {
            let mut rows =
                (0..self.rows.len()).map(|r| batch.get(r)).collect::<Result<Vec<_>, _>>()?;
            let (Some(here), Some(new)) = (rows.get_mut(row), parked.scheduler.get(&name)) else {
                return Err(wrong());
            };
            *here = new.clone();
            state.insert(name, Tensor::stack(&rows, 0)?);
        }
        *self.rows.get_mut(row).ok_or_else(wrong)? = parked.row;
        self.scheduler.restore(|name| state.get(name).cloned());
        Ok(())
    }

    fn row(&self, row: usize) -> Result<&Row> {
        self.rows.get(row).ok_or_else(|| Error::Checkpoint(format!("there is no row {row}")))
    }

    /// The scheduler's state of one row.
    fn scheduler_row(&self, row: usize) -> Result<Vec<(String, Tensor)>> {
        let state = self.scheduler.state().into_iter();
        state.map(|(name, batch)| Ok((name, batch.get(row)?))).collect()
    }

    /// The state of an image between two steps.
    ///
    /// # Errors
    /// If there is no such row, or the tensor library fails.
    pub fn checkpoint(&self, row: usize) -> Result<Checkpoint> {
        let kind = self.model.compute().kind();
        self.row(row)?.checkpoint(kind, self.done, self.scheduler_row(row)?)
    }

    /// Decodes the images.
    ///
    /// # Errors
    /// If steps are left, or the tensor library fails.
    pub fn finish(self) -> Result<Vec<Rendered>> {
        if self.done < self.steps() {
            let left = self.steps() - self.done;
            return Err(Error::Spec(format!("{left} steps are left")));
        }
        let (vae, kind) = (self.model.vae(), self.model.compute().kind());
        // One image at a time: a decoded picture needs far more memory than its latents.
        self.rows
            .into_iter()
            .enumerate()
            .map(|(r, row)| {
                let latents = row.latents.unsqueeze(0)?;
                let decoded = vae.decode(&latents)?.squeeze(0)?;
                let find = || probe::not_finite(|| vae.decode(&latents));
                row.require_finite(&decoded, ("the picture", self.done, r), find)?;
                let image = decoded.affine(0.5, 0.5)?.clamp(0f32, 1f32)?;
                Ok(Rendered {
                    picture: Picture::from_tensor(&image)?,
                    record: row.record,
                    noise: row.noise,
                    text_states: row.text_states,
                    final_latents: row.latents,
                    image,
                    kind: kind.to_owned(),
                    spec: row.spec,
                    tries: Vec::new(),
                })
            })
            .collect()
    }

    /// Classifier-free guidance for every image: the predictions `[b, 4, h, w]`, and for each image
    /// what the conditional half attended to, if that is recorded.
    fn predict(
        &self,
        step: usize,
        timestep: f32,
        latents: &[Tensor],
    ) -> Result<(Tensor, Vec<Option<Observed>>)> {
        // The unconditional predictions come first, then the conditional ones of each image.
        let halves: Vec<usize> =
            (0..self.rows.len()).filter(|&r| self.rows[r].has_unconditional()).collect();
        let (mut input, mut keys): (Vec<&Tensor>, Vec<&Conditioning>) =
            halves.iter().map(|&r| (&latents[r], self.rows[r].unconditional.as_ref())).unzip();
        for (row, latents) in self.rows.iter().zip(latents) {
            for (conditioning, _) in &row.conditional {
                input.push(latents);
                keys.push(conditioning.as_ref());
            }
        }
        let keys = Conditioning::batch(&keys)?;
        let input = scaled(&Tensor::stack(&input, 0)?, self.scheduler.input_scale(step))?;
        let unet = self.model.unet();
        let (noise, maps) = unet.noise_and_map(&input, timestep, &keys, self.outputs.maps)?;
        let mut combined = Vec::with_capacity(self.rows.len());
        let mut observed = Vec::with_capacity(self.rows.len());
        let map_size = unet.map_size(self.size);
        let mut first = halves.len();
        for (r, row) in self.rows.iter().enumerate() {
            let places = first..first + row.conditional.len();
            first = places.end;
            let half = halves.iter().position(|&half| half == r);
            let unconditional = half.map(|half| noise.get(half)).transpose()?;
            let conditional = places.clone().zip(&row.conditional);
            let conditional =
                conditional.map(|(place, (_, weight))| Ok((noise.get(place)?, *weight)));
            let conditional = conditional.collect::<Result<Vec<_>>>()?;
            let noise = combine(unconditional.as_ref(), &conditional)?;
            let find = || probe::not_finite(|| unet.noise(&input, timestep, &keys));
            row.require_finite(&noise, ("the noise prediction", step, r), find)?;
            combined.push(noise);
            observed.push(match &maps {
                Some(maps) => {
                    let maps: Vec<Tensor> =
                        places.map(|place| maps.get(place)).collect::<Result<_, _>>()?;
                    row.observe(&maps.iter().collect::<Vec<_>>(), map_size)?
                }
                None => None,
            });
        }
        Ok((Tensor::stack(&combined, 0)?, observed))
    }
}

/// Those that decided the update, else what was observed.
fn scores(guided: &row::Guided, observed: &Option<Observed>) -> Vec<f32> {
    match observed {
        Some(seen) if guided.step.scores.is_empty() => seen.scores.clone(),
        _ => guided.step.scores.clone(),
    }
}

/// Each image's next noise, as much as its latents.
fn draw(generators: &mut [Generator], latents: &Tensor) -> Result<Tensor> {
    let shape = &latents.dims()[1..];
    let each = generators.iter_mut().map(|generator| generator.normal(shape));
    Ok(Tensor::stack(&each.collect::<Result<Vec<_>>>()?, 0)?)
}

/// Height and width of the latents of a spec.
fn latent_size(model: &Model, spec: &Spec) -> Result<(usize, usize)> {
    let factor = model.vae().factor() as u32;
    let ModelFacts { size_multiple, side_min, .. } = model.facts();
    let fits = |side: u32| side >= side_min && side.is_multiple_of(size_multiple);
    if !fits(spec.width) || !fits(spec.height) {
        return Err(Error::Spec(format!(
            "`width` x `height` is {} x {}, not multiples of {size_multiple} from {side_min}",
            spec.width, spec.height
        )));
    }
    Ok(((spec.height / factor) as usize, (spec.width / factor) as usize))
}
