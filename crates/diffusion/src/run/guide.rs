//! The guided part of a step: evaluate, refine where it is due, update.
//!
//! Images are independent of each other: each has its own loss, its own refinement, its own end.
//! Those that still need a pass are put together into one batch (the active subset, compacted).
//! Each refinement iteration costs one pass: the evaluation behind an update is the one that the
//! next update uses, so r iterations take r + 1 evaluations and r + 1 updates.

use candle_core::{Tensor, Var};

use super::Run;
use super::row::Guided;
use crate::error::{Error, Result};
use crate::guidance::attend_and_excite::Evaluation;
use crate::guidance::{Objective, Refining};
use crate::probe;
use crate::unet::Conditioning;

/// Updates stop before this step if no threshold is due.
fn due(run: &Run<'_>, row: usize, step: usize) -> Option<Due> {
    let schedule = &run.rows[row].guidance.as_ref()?.schedule;
    let updates = step < schedule.updates_before;
    let threshold = schedule.thresholds.get(&(step as u32)).copied();
    let step_size = schedule.step_sizes.get(step).copied()?;
    (updates || threshold.is_some()).then_some(Due { updates, threshold, step_size })
}

/// `latents * scale`, and the very same bits where the scale is 1.
pub(super) fn scaled(latents: &Tensor, scale: f64) -> Result<Tensor> {
    Ok(if scale == 1. { latents.clone() } else { (latents * scale)? })
}

struct Due {
    /// Whether the step ends with an update.
    updates: bool,
    threshold: Option<f64>,
    step_size: f64,
}

/// An image that guidance acts on in this step.
struct Active {
    row: usize,
    due: Due,
    /// As the UNet sees them.
    latents: Tensor,
    /// Whether an update was made.
    moved: bool,
    objective: Box<dyn Objective>,
    /// `None` where the loss is 0.
    gradient: Option<Tensor>,
    refining: Option<Refining>,
    guided: Guided,
}

impl Active {
    /// Down the gradient; a loss of 0 moves nothing.
    fn update(&mut self) -> Result<()> {
        if let Some(gradient) = &self.gradient {
            self.latents = (&self.latents - (gradient * self.due.step_size)?)?;
            self.moved = true;
        }
        Ok(())
    }

    fn take(&mut self, evaluation: Evaluation, gradient: Option<Tensor>) {
        self.gradient = gradient;
        self.guided.step.loss = evaluation.loss;
        self.guided.step.scores.clone_from(&evaluation.scores);
        self.guided.step.evaluations.push((evaluation.loss, evaluation.scores));
    }
}

impl Run<'_> {
    /// The latents `[4, h, w]` of every image after guidance, and what was done.
    ///
    /// Guidance works on the latents as the UNet sees them. Where a scheduler's are `s` times as
    /// large, that is the update `z - a * s^2 * dL/dz` of its own latents: the step that PNDM would
    /// make at the same noise.
    pub(super) fn guide(
        &self,
        step: usize,
        timestep: f32,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(Vec<Tensor>, Vec<Guided>)> {
        let mut latents: Vec<Tensor> = self.rows.iter().map(|row| row.latents.clone()).collect();
        let scale = self.scheduler.input_scale(step);
        let mut guided = vec![Guided::none(); self.rows.len()];
        let mut active: Vec<Active> = Vec::new();
        for (r, row) in self.rows.iter().enumerate() {
            if let (Some(due), Some(guidance)) = (due(self, r, step), &row.guidance) {
                active.push(Active {
                    row: r,
                    due,
                    latents: scaled(&row.latents, scale)?,
                    moved: false,
                    objective: guidance.objective.clone(),
                    gradient: None,
                    refining: None,
                    guided: Guided::none(),
                });
            }
        }
        if active.is_empty() {
            return Ok((latents, guided));
        }
        self.evaluate(&mut active.iter_mut().collect::<Vec<_>>(), step, timestep, cancelled)?;
        for image in &mut active {
            let begin = |threshold| {
                let guidance = self.rows[image.row].guidance.as_ref()?;
                Refining::begin(&guidance.schedule, threshold, f64::from(image.guided.step.loss))
            };
            image.refining = image.due.threshold.and_then(begin);
        }
        loop {
            let mut subset: Vec<&mut Active> =
                active.iter_mut().filter(|image| image.refining.is_some()).collect();
            if subset.is_empty() {
                break;
            }
            for image in &mut subset {
                image.update()?;
            }
            self.evaluate(&mut subset, step, timestep, cancelled)?;
            for image in subset {
                let Some(refining) = &mut image.refining else { continue };
                let again = refining.again(f64::from(image.guided.step.loss));
                image.guided.step.refinements = refining.iterations();
                if !again {
                    image.refining = None;
                }
            }
        }
        for mut image in active {
            if image.due.updates {
                image.update()?;
            }
            image.guided.pieces = image.objective.pieces();
            if image.moved {
                latents[image.row] = scaled(&image.latents, 1. / scale)?;
            }
            guided[image.row] = image.guided;
        }
        Ok((latents, guided))
    }

    /// One truncated pass with gradient for the images of `subset`.
    fn evaluate(
        &self,
        subset: &mut [&mut Active],
        step: usize,
        timestep: f32,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<()> {
        if cancelled() {
            return Err(Error::Cancelled);
        }
        let unet = self.model.unet();
        let keys: Vec<&Conditioning> =
            subset.iter().map(|image| self.rows[image.row].conditioning()).collect();
        let keys = Conditioning::batch(&keys)?;
        let latents: Vec<&Tensor> = subset.iter().map(|image| &image.latents).collect();
        // A fresh leaf for each pass; only it has a gradient, the conditional text and weights not.
        let leaf = Var::from_tensor(&Tensor::stack(&latents, 0)?)?;
        let maps = unet.map(leaf.as_tensor(), timestep, &keys)?;
        let size = unet.map_size(self.size);
        let mut evaluations = Vec::with_capacity(subset.len());
        let mut total: Option<Tensor> = None;
        for (i, image) in subset.iter_mut().enumerate() {
            let map = maps.get(i)?;
            let mut evaluation = image.objective.evaluate(&map, size)?;
            if evaluation.scores.is_empty() {
                evaluation.scores = self.rows[image.row].scores(&map.detach(), size)?;
            }
            if !evaluation.loss.is_finite() {
                let (row, seed) = (image.row, self.rows[image.row].spec.seed);
                let layer = probe::not_finite(|| unet.map(leaf.as_tensor(), timestep, &keys));
                return Err(Error::NonFinite { what: "the loss", step, row, seed, layer });
            }
            // The images share no operation across the batch, so the sum's gradient is each one's.
            total = match (total, &evaluation.tensor) {
                (Some(total), Some(loss)) => Some((total + loss)?),
                (total, loss) => total.or(loss.clone()),
            };
            evaluations.push(evaluation);
        }
        let gradients = match total {
            Some(total) => total.backward()?.remove(leaf.as_tensor()),
            None => None,
        };
        // What candle leaves for a variable may keep the whole graph alive.
        let gradients = gradients.map(|gradients| gradients.detach());
        for (i, (image, mut evaluation)) in subset.iter_mut().zip(evaluations).enumerate() {
            let moves = evaluation.tensor.take().is_some();
            let gradient = match &gradients {
                Some(gradients) if moves => Some(gradients.get(i)?),
                _ if moves => {
                    return Err(candle_core::Error::Msg("the loss has no gradient".into()).into());
                }
                _ => None,
            };
            if let Some(gradient) = &gradient {
                let find = || {
                    probe::not_finite(|| -> Result<()> {
                        let maps = unet.map(leaf.as_tensor(), timestep, &keys)?;
                        let again = image.objective.clone().evaluate(&maps.get(i)?, size)?;
                        again.tensor.map(|loss| loss.backward()).transpose()?;
                        Ok(())
                    })
                };
                let what = ("the gradient", step, image.row);
                self.rows[image.row].require_finite(gradient, what, find)?;
            }
            image.take(evaluation, gradient);
        }
        Ok(())
    }
}
