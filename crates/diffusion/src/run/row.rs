//! One image of a run: its text, latents and record.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::Tensor;
use excite_jobs::{AttendAndExcite, Method, Spec};

use super::{Outputs, initial_noise};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::guidance::attend_and_excite::Subjects;
use crate::guidance::step_size;
use crate::model::Model;
use crate::trace::{Observed, Record, Step};
use crate::unet::TextKeys;

/// One image in progress.
pub(super) struct Row {
    pub(super) spec: Spec,
    pub(super) conditional: Arc<TextKeys>,
    pub(super) unconditional: Arc<TextKeys>,
    /// `[77, d]`
    pub(super) text_states: Tensor,
    /// `[4, h, w]`
    pub(super) noise: Tensor,
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
    seen: HashMap<String, (Tensor, Arc<TextKeys>)>,
}

impl<'m> Texts<'m> {
    pub(super) fn new(model: &'m Model) -> Self {
        Self { model, seen: HashMap::new() }
    }

    fn get(&mut self, text: &str) -> Result<(Tensor, Arc<TextKeys>)> {
        if let Some(known) = self.seen.get(text) {
            return Ok(known.clone());
        }
        let states = self.model.text_states(text)?;
        let keys = Arc::new(self.model.unet().text_keys(&states)?);
        let entry = (states.squeeze(0)?, keys);
        self.seen.insert(text.to_owned(), entry.clone());
        Ok(entry)
    }
}

impl Row {
    pub(super) fn new(
        texts: &mut Texts<'_>,
        spec: &Spec,
        size: (usize, usize),
        timesteps: &[u32],
    ) -> Result<Self> {
        let (text_states, conditional) = texts.get(&spec.prompt)?;
        let (_, unconditional) = texts.get(&spec.negative_prompt)?;
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
        let noise = initial_noise(spec.seed, size)?;
        Ok(Self {
            conditional,
            unconditional,
            text_states,
            latents: noise.clone(),
            noise,
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

    pub(super) fn require_finite(
        &self,
        tensor: &Tensor,
        what: &'static str,
        step: usize,
    ) -> Result<()> {
        if tensor.abs()?.sum_all()?.to_scalar::<f32>()?.is_finite() {
            return Ok(());
        }
        Err(Error::NonFinite { what, step, seed: self.spec.seed })
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
        latents: Tensor,
        guided: Guided,
        observed: Option<Observed>,
        outputs: Outputs,
    ) {
        if let (Some(subjects), false) = (&mut self.subjects, guided.pieces.is_empty()) {
            subjects.restore(&guided.pieces);
        }
        let kept = outputs.latents.then(|| latents.clone());
        self.record.keep(guided.step, observed, kept);
        self.latents = latents;
    }

    pub(super) fn checkpoint(
        &self,
        next_step: usize,
        scheduler: Vec<(String, Tensor)>,
    ) -> Result<Checkpoint> {
        let pieces = self.subjects.as_ref().map(Subjects::pieces).unwrap_or_default();
        Checkpoint::new(
            &self.spec,
            next_step,
            self.latents.clone(),
            scheduler,
            pieces,
            &self.record,
        )
    }

    pub(super) fn restore(&mut self, checkpoint: &Checkpoint, outputs: Outputs) -> Result<()> {
        checkpoint.require(&self.spec, self.latents.dims())?;
        self.latents = checkpoint.latents()?;
        if let Some(subjects) = &mut self.subjects {
            subjects.restore(&checkpoint.pieces()?);
        }
        checkpoint.restore_record(&mut self.record, outputs)
    }
}
