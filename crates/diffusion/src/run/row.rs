//! One image of a run: its text, latents and record.

use std::sync::Arc;

use candle_core::Tensor;
use excite_jobs::{AttendAndExcite, Composable, Method, Spec, TokenRange};
use excite_prompt::{Encoding, Subject};

use super::Outputs;
use super::texts::Texts;
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::guidance::attend_and_excite::Subjects;
use crate::guidance::composable::places;
use crate::guidance::{Objective, Schedule, objective};
use crate::noise::Generator;
use crate::scheduler::Scheduler;
use crate::trace::{Observed, Record, Step};
use crate::unet::Conditioning;

/// What a conditional prediction is told, and its weight.
pub(super) type Prediction = (Arc<Conditioning>, f64);

/// One image in progress.
#[derive(Clone)]
pub(super) struct Row {
    pub(super) spec: Spec,
    /// What each prediction is told, and its weight; more than one where phrases are composed.
    pub(super) conditional: Vec<Prediction>,
    pub(super) unconditional: Arc<Conditioning>,
    /// `[77, d]`
    pub(super) text_states: Tensor,
    /// `[4, h, w]`, of size 1.
    pub(super) noise: Tensor,
    /// Draws what comes after the initial noise.
    pub(super) generator: Generator,
    /// `[4, h, w]`
    pub(super) latents: Tensor,
    /// How subjects are scored; none where there are none.
    scorers: Vec<Scorer>,
    /// What moves the latents, if anything does.
    pub(super) guidance: Option<Guidance>,
    pub(super) record: Record,
}

/// What moves the latents of an image.
#[derive(Clone)]
pub(super) struct Guidance {
    pub(super) objective: Box<dyn Objective>,
    pub(super) schedule: Schedule,
}

/// How the subjects that one prediction's map shows are scored.
#[derive(Clone)]
struct Scorer {
    /// Which of the conditional predictions.
    prediction: usize,
    subjects: Subjects,
    /// Which subjects of the spec they are.
    places: Vec<usize>,
}

impl Scorer {
    /// All subjects in the prompt; none if there are none.
    fn whole(params: &AttendAndExcite, spec: &Spec, encoding: &Encoding) -> Result<Vec<Self>> {
        if spec.subjects.is_empty() {
            return Ok(Vec::new());
        }
        let subjects = Subjects::new(params, &spec.subjects, encoding.eot)?;
        Ok(vec![Self { prediction: 0, subjects, places: (0..spec.subjects.len()).collect() }])
    }
}

/// A prediction a phrase, and the subjects that are in each.
fn composed(
    texts: &mut Texts<'_>,
    spec: &Spec,
    prompt: &Encoding,
    params: &Composable,
    scoring: &AttendAndExcite,
) -> Result<(Vec<Prediction>, Vec<Scorer>)> {
    if params.phrases.is_empty() {
        return Err(Error::Spec("`method_params.phrases` is empty".into()));
    }
    let (mut predictions, mut encodings) = (Vec::new(), Vec::new());
    for phrase in &params.phrases {
        predictions.push((texts.prompt(&phrase.text)?.1, phrase.weight));
        encodings.push(texts.model.encode(&phrase.text)?);
    }
    let found = places(prompt, &spec.subjects, &encodings);
    let mut scorers = Vec::new();
    for (prediction, encoding) in encodings.iter().enumerate() {
        let here = || found.iter().filter(|place| place.phrase == prediction);
        let words: Vec<Subject> = here().map(|place| place.word.clone()).collect();
        if !words.is_empty() {
            let subjects = Subjects::new(scoring, &words, encoding.eot)?;
            let places = here().map(|place| place.subject).collect();
            scorers.push(Scorer { prediction, subjects, places });
        }
    }
    Ok((predictions, scorers))
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

impl Row {
    pub(super) fn new(
        texts: &mut Texts<'_>,
        spec: &Spec,
        size: (usize, usize),
        scheduler: &Scheduler,
    ) -> Result<Self> {
        let timesteps = scheduler.timesteps();
        let encoding = texts.model.encode(&spec.prompt)?;
        let (text_states, prompt) = texts.prompt(&spec.prompt)?;
        let unconditional = texts.negative(&spec.negative_prompt)?;
        // All images are scored (when maps are recorded), those of other methods with the constants
        // of the authors' code.
        let mut scoring = AttendAndExcite::official();
        if texts.model.facts().prompt_only_tokens {
            scoring.tokens = TokenRange::Prompt;
        }
        if let Method::AttendAndExcite(params) = &spec.method {
            scoring = params.clone();
        }
        let (conditional, scorers) = match &spec.method {
            Method::Composable(params) => composed(texts, spec, &encoding, params, &scoring)?,
            Method::Structure(params) => {
                let prompt = texts.structured(&spec.prompt, &params.phrases)?;
                let scorers = Scorer::whole(&scoring, spec, &encoding)?;
                (vec![(prompt, spec.guidance_scale)], scorers)
            }
            Method::AttendAndExcite(_) | Method::None | Method::SynGen(_) => {
                let scorers = Scorer::whole(&scoring, spec, &encoding)?;
                (vec![(prompt, spec.guidance_scale)], scorers)
            }
        };
        let guidance = objective(spec, &encoding)?.map(|objective| {
            let schedule = objective.schedule(spec.steps, timesteps.len());
            Guidance { objective, schedule }
        });
        let step_sizes = guidance.as_ref().map(|guidance| guidance.schedule.step_sizes.clone());
        let step_sizes = step_sizes.unwrap_or_else(|| vec![f64::NAN; timesteps.len()]);
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
            scorers,
            guidance,
            record: Record::new(timesteps, step_sizes, spec.subjects.len()),
            spec: spec.clone(),
        })
    }

    /// What a gradient pass is told.
    pub(super) fn conditioning(&self) -> &Conditioning {
        // There is always one: phrases are never none.
        &self.conditional[0].0
    }

    /// Whether an unconditional prediction is needed: not with a guidance scale of 1 or less.
    pub(super) fn has_unconditional(&self) -> bool {
        !matches!(self.conditional.as_slice(), [(_, weight)] if *weight <= 1.)
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

    /// The scores of a map `[h * w, 77]` of the prompt.
    pub(super) fn scores(&self, map: &Tensor, size: (usize, usize)) -> Result<Vec<f32>> {
        Ok(self.observe(&[map], size)?.map(|seen| seen.scores).unwrap_or_default())
    }

    /// Scores and columns of the maps `[h * w, 77]` of the conditional predictions; NaN and nothing
    /// for subjects that are in none of the phrases.
    pub(super) fn observe(
        &self,
        maps: &[&Tensor],
        size: (usize, usize),
    ) -> Result<Option<Observed>> {
        if self.scorers.is_empty() {
            return Ok(None);
        }
        let count = self.spec.subjects.len();
        let mut seen = Observed {
            scores: vec![f32::NAN; count],
            maps: vec![vec![0.; size.0 * size.1]; count],
            size,
        };
        for scorer in &self.scorers {
            let Some(map) = maps.get(scorer.prediction) else { continue };
            let scores = scorer.subjects.clone().evaluate(map, size)?.scores;
            let columns = scorer.subjects.columns(map)?;
            for ((&place, score), column) in scorer.places.iter().zip(scores).zip(columns) {
                seen.scores[place] = score;
                seen.maps[place] = column;
            }
        }
        Ok(Some(seen))
    }

    /// Which pieces of words in several count: for the loss, and where they are scored.
    fn choose(&mut self, pieces: &[i64]) {
        if let Some(guidance) = &mut self.guidance {
            guidance.objective.restore(pieces);
        }
        if matches!(self.spec.method, Method::AttendAndExcite(_)) {
            self.scorers.iter_mut().for_each(|scorer| scorer.subjects.restore(pieces));
        }
    }

    /// Ends a step.
    pub(super) fn keep(
        &mut self,
        (latents, generator): (Tensor, Generator),
        guided: Guided,
        observed: Option<Observed>,
        outputs: Outputs,
    ) {
        if !guided.pieces.is_empty() {
            self.choose(&guided.pieces);
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
        let guidance = self.guidance.as_ref();
        let pieces = guidance.map(|guidance| guidance.objective.pieces()).unwrap_or_default();
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
        self.choose(&checkpoint.pieces()?);
        checkpoint.restore_record(&mut self.record, outputs)
    }
}
