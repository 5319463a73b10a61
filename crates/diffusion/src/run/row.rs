//! One image of a run: its text, latents and record.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::Tensor;
use excite_jobs::{AttendAndExcite, Method, Spec};

use super::Outputs;
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::guidance::attend_and_excite::Subjects;
use crate::guidance::step_size;
use crate::model::Model;
use crate::noise::Generator;
use crate::scheduler::Scheduler;
use crate::trace::{Observed, Record, Step};
use crate::unet::Conditioning;

/// One image in progress.
#[derive(Clone)]
pub(super) struct Row {
    pub(super) spec: Spec,
    pub(super) conditional: Arc<Conditioning>,
    pub(super) unconditional: Arc<Conditioning>,
    /// `[77, d]`
    pub(super) text_states: Tensor,
    /// `[4, h, w]`, of size 1.
    pub(super) noise: Tensor,
    /// Draws what comes after the initial noise.
    pub(super) generator: Generator,
    /// `[4, h, w]`
    pub(super) latents: Tensor,
    /// How subjects are scored; `None` where there are none.
    pub(super) subjects: Option<Subjects>,
    pub(super) record: Record,
}

/// What guidance did to one image in one step.
#[derive(Debug, Clone)]
pub(super) struct Guided {
    pub(super) step: Step,
    /// Which pieces count, if this step decided it.
    pub(super) pieces: Vec<i64>,
}

impl Guided {
    pub(super) fn none() -> Self {
        let step =
            Step { loss: f32::NAN, scores: Vec::new(), refinements: 0, evaluations: Vec::new() };
        Self { step, pieces: Vec::new() }
    }
}

/// Encodes each text once, however many images share it.
pub(super) struct Texts<'m> {
    model: &'m Model,
    /// Height and width of the images in pixels.
    size: (usize, usize),
    /// By text and whether it is a negative prompt.
    seen: HashMap<(String, bool), (Tensor, Arc<Conditioning>)>,
}

impl<'m> Texts<'m> {
    pub(super) fn new(model: &'m Model, size: (usize, usize)) -> Self {
        Self { model, size, seen: HashMap::new() }
    }

    fn get(&mut self, text: &str, negative: bool) -> Result<(Tensor, Arc<Conditioning>)> {
        let key = (text.to_owned(), negative);
        if let Some(known) = self.seen.get(&key) {
            return Ok(known.clone());
        }
        let text = match negative {
            true => self.model.negative_text_states(text)?,
            false => self.model.text_states(text)?,
        };
        let conditioning = Arc::new(self.model.unet().condition(&text, self.size)?);
        let entry = (text.states.squeeze(0)?, conditioning);
        self.seen.insert(key, entry.clone());
        Ok(entry)
    }
}

impl Row {
    pub(super) fn new(
        texts: &mut Texts<'_>,
        spec: &Spec,
        size: (usize, usize),
        scheduler: &Scheduler,
    ) -> Result<Self> {
        let timesteps = scheduler.timesteps();
        let (text_states, conditional) = texts.get(&spec.prompt, false)?;
        let (_, unconditional) = texts.get(&spec.negative_prompt, true)?;
        let encoding = texts.model.encode(&spec.prompt)?;
        // Plain images are scored too (when maps are recorded), with the default constants.
        let default = AttendAndExcite::default();
        let (params, guided) = match &spec.method {
            Method::AttendAndExcite(params) => (params, true),
            Method::None => (&default, false),
        };
        let subjects = (guided || !spec.subjects.is_empty())
            .then(|| Subjects::new(params, &spec.subjects, encoding.eot))
            .transpose()?;
        let step_sizes = (0..timesteps.len())
            .map(|i| if guided { step_size(params, i, timesteps.len()) } else { f64::NAN });
        let mut generator = Generator::new(spec.noise, spec.seed);
        let noise = generator.normal(&[4, size.0, size.1])?;
        let latents = match scheduler.initial_scale() {
            1. => noise.clone(),
            scale => (&noise * scale)?,
        };
        Ok(Self {
            conditional,
            unconditional,
            text_states,
            latents,
            noise,
            generator,
            subjects,
            record: Record::new(timesteps, step_sizes.collect(), spec.subjects.len()),
            spec: spec.clone(),
        })
    }

    /// The method's options, if the image is guided.
    pub(super) fn guidance(&self) -> Option<&AttendAndExcite> {
        match &self.spec.method {
            Method::AttendAndExcite(params) => Some(params),
            Method::None => None,
        }
    }

    /// Fails if `tensor` is not finite; `find` then looks for the layer.
    pub(super) fn require_finite(
        &self,
        tensor: &Tensor,
        (what, step, row): (&'static str, usize, usize),
        find: impl FnOnce() -> Option<String>,
    ) -> Result<()> {
        if tensor.abs()?.sum_all()?.to_scalar::<f32>()?.is_finite() {
            return Ok(());
        }
        Err(Error::NonFinite { what, step, row, seed: self.spec.seed, layer: find() })
    }

    /// Scores and columns of a map `[h * w, 77]` that guidance did not ask for.
    pub(super) fn observe(&self, map: &Tensor, size: (usize, usize)) -> Result<Option<Observed>> {
        let Some(subjects) = &self.subjects else { return Ok(None) };
        let scores = subjects.clone().evaluate(map, size)?.scores;
        Ok(Some(Observed { scores, maps: subjects.columns(map)?, size }))
    }

    /// Ends a step.
    pub(super) fn keep(
        &mut self,
        (latents, generator): (Tensor, Generator),
        guided: Guided,
        observed: Option<Observed>,
        outputs: Outputs,
    ) {
        if let (Some(subjects), false) = (&mut self.subjects, guided.pieces.is_empty()) {
            subjects.restore(&guided.pieces);
        }
        let kept = outputs.latents.then(|| latents.clone());
        self.record.keep(guided.step, observed, kept);
        (self.latents, self.generator) = (latents, generator);
    }

    pub(super) fn checkpoint(
        &self,
        kind: &str,
        next_step: usize,
        scheduler: Vec<(String, Tensor)>,
    ) -> Result<Checkpoint> {
        let pieces = self.subjects.as_ref().map(Subjects::pieces).unwrap_or_default();
        Checkpoint::new(
            &self.spec,
            kind,
            next_step,
            self.latents.clone(),
            scheduler,
            pieces,
            &self.record,
        )
    }

    /// Takes the state of a checkpoint; `draws` says whether each step drew noise.
    pub(super) fn restore(
        &mut self,
        checkpoint: &Checkpoint,
        kind: &str,
        draws: bool,
        outputs: Outputs,
    ) -> Result<()> {
        checkpoint.require(&self.spec, kind, self.latents.dims())?;
        if draws {
            // The stream of noise follows from the seed: what was drawn is drawn again.
            for _ in 0..checkpoint.next_step() {
                self.generator.normal(self.latents.dims())?;
            }
        }
        self.latents = checkpoint.latents()?;
        if let Some(subjects) = &mut self.subjects {
            subjects.restore(&checkpoint.pieces()?);
        }
        checkpoint.restore_record(&mut self.record, outputs)
    }
}
