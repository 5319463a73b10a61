//! What a run recorded, step by step, and the file that carries it.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use excite_jobs::Spec;

use crate::error::{Error, Result};
use crate::run::Rendered;
use crate::tensors::{self, Tensors};

/// One image's steps so far.
#[derive(Debug, Clone)]
pub struct Record {
    timesteps: Vec<f32>,
    step_sizes: Vec<f64>,
    /// How many subjects each list of scores has.
    subjects: usize,
    steps: Vec<Step>,
    observed: Vec<Observed>,
    /// `[4, h, w]` after each step, if kept.
    latents: Vec<Tensor>,
}

/// What guidance did in one step.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The loss that decided the update; NaN where there was none.
    pub loss: f32,
    /// The scores of that evaluation, one a subject; NaN where there was none.
    pub scores: Vec<f32>,
    /// Refinement iterations.
    pub refinements: u32,
    /// Every evaluation in order: loss and scores.
    pub evaluations: Vec<(f32, Vec<f32>)>,
}

/// What the conditional half of a denoising pass attended to.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// One a subject.
    pub scores: Vec<f32>,
    /// One a subject, `[h * w]`, row-major.
    pub maps: Vec<Vec<f32>>,
    /// `(h, w)`
    pub size: (usize, usize),
}

impl Record {
    pub(crate) fn new(timesteps: &[f32], step_sizes: Vec<f64>, subjects: usize) -> Self {
        Self {
            timesteps: timesteps.to_vec(),
            step_sizes,
            subjects,
            steps: Vec::new(),
            observed: Vec::new(),
            latents: Vec::new(),
        }
    }

    pub(crate) fn keep(
        &mut self,
        mut step: Step,
        observed: Option<Observed>,
        latents: Option<Tensor>,
    ) {
        step.scores.resize(self.subjects, f32::NAN);
        self.steps.push(step);
        self.observed.extend(observed);
        self.latents.extend(latents);
    }

    /// Diffusion times, one a step of the whole run.
    pub fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    /// The factor of an update at each step of the whole run; NaN where there is no guidance.
    pub fn step_sizes(&self) -> &[f64] {
        &self.step_sizes
    }

    /// The steps done.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// What the steps attended to; empty unless maps were asked for.
    pub fn observed(&self) -> &[Observed] {
        &self.observed
    }

    /// `[4, h, w]` after each step; empty unless latents were asked for.
    pub fn latents(&self) -> &[Tensor] {
        &self.latents
    }

    /// All scores that are known of a step, the subjects' own first: those that decided the update
    /// or, where there was none, those observed.
    pub fn scores(&self, step: usize) -> Option<&[f32]> {
        let known = |scores: &&[f32]| scores.iter().any(|s| !s.is_nan());
        let decided = self.steps.get(step).map(|step| step.scores.as_slice()).filter(known);
        let observed = self.observed.get(step).map(|seen| seen.scores.as_slice()).filter(known);
        decided.or(observed)
    }

    /// Everything but timesteps and step sizes as tensors; names as in a trace.
    pub(crate) fn tensors(&self) -> Result<Tensors> {
        let (n, s) = (self.steps.len(), self.subjects);
        let mut out = Tensors::new();
        let mut put = |name: &str, tensor: Tensor| out.insert(name.to_owned(), tensor);
        put("losses", floats(self.steps.iter().map(|step| step.loss), &[n])?);
        put("scores", floats(self.steps.iter().flat_map(|step| step.scores.clone()), &[n, s])?);
        put("refinements", integers(self.steps.iter().map(|step| i64::from(step.refinements)))?);
        let evaluations = || {
            let numbered = self.steps.iter().enumerate();
            numbered.flat_map(|(i, step)| step.evaluations.iter().map(move |e| (i as i64, e)))
        };
        let count = evaluations().count();
        put("eval_step", integers(evaluations().map(|(step, _)| step))?);
        put("eval_loss", floats(evaluations().map(|(_, e)| e.0), &[count])?);
        put("eval_scores", floats(evaluations().flat_map(|(_, e)| e.1.clone()), &[count, s])?);
        if let Some(first) = self.observed.first() {
            let (h, w) = first.size;
            let n = self.observed.len();
            let scores = self.observed.iter().flat_map(|seen| seen.scores.clone());
            put("map_scores", floats(scores, &[n, s])?);
            let maps = self.observed.iter().flat_map(|seen| seen.maps.iter().flatten().copied());
            put("maps", floats(maps, &[n, s, h, w])?);
        }
        if !self.latents.is_empty() {
            put("latents", Tensor::stack(&self.latents, 0)?);
        }
        Ok(out)
    }

    /// Takes back what [`Record::tensors`] gave.
    pub(crate) fn restore(&mut self, tensors: &Tensors) -> Result<()> {
        let losses = tensor(tensors, "losses")?.to_vec1::<f32>()?;
        let scores = tensor(tensors, "scores")?.to_vec2::<f32>()?;
        let refinements = tensor(tensors, "refinements")?.to_vec1::<i64>()?;
        let (n, s) = (losses.len(), self.subjects);
        let shaped = |rows: &[Vec<f32>]| rows.iter().all(|row| row.len() == s);
        if scores.len() != n || refinements.len() != n || !shaped(&scores) {
            return Err(Error::Tensors { message: "the steps differ in number".into() });
        }
        self.steps = losses
            .into_iter()
            .zip(scores)
            .zip(refinements)
            .map(|((loss, scores), r)| Step {
                loss,
                scores,
                refinements: r.clamp(0, i64::from(u32::MAX)) as u32,
                evaluations: Vec::new(),
            })
            .collect();
        let eval_step = tensor(tensors, "eval_step")?.to_vec1::<i64>()?;
        let eval_loss = tensor(tensors, "eval_loss")?.to_vec1::<f32>()?;
        let eval_scores = tensor(tensors, "eval_scores")?.to_vec2::<f32>()?;
        for ((step, loss), scores) in eval_step.into_iter().zip(eval_loss).zip(eval_scores) {
            let step = usize::try_from(step).ok().and_then(|step| self.steps.get_mut(step));
            if let Some(step) = step {
                step.evaluations.push((loss, scores));
            }
        }
        self.observed = match (tensors.get("maps"), tensors.get("map_scores")) {
            (Some(maps), Some(scores)) => observed(maps, scores)?,
            _ => Vec::new(),
        };
        self.latents = match tensors.get("latents") {
            Some(all) => (0..all.dim(0)?).map(|i| all.get(i)).collect::<Result<_, _>>()?,
            None => Vec::new(),
        };
        Ok(())
    }
}

fn observed(maps: &Tensor, scores: &Tensor) -> Result<Vec<Observed>> {
    let (n, _, h, w) = maps.dims4()?;
    let scores = scores.to_vec2::<f32>()?;
    let maps = maps.flatten_from(2)?;
    (0..n.min(scores.len()))
        .map(|i| {
            let scores = scores[i].clone();
            Ok(Observed { scores, maps: maps.get(i)?.to_vec2()?, size: (h, w) })
        })
        .collect()
}

/// A tensor that a file must have.
pub(crate) fn tensor<'a>(tensors: &'a Tensors, name: &str) -> Result<&'a Tensor> {
    let missing = || Error::Tensors { message: format!("there is no tensor `{name}`") };
    tensors.get(name).ok_or_else(missing)
}

fn floats(values: impl Iterator<Item = f32>, shape: &[usize]) -> Result<Tensor> {
    Ok(Tensor::from_vec(values.collect::<Vec<_>>(), shape, &Device::Cpu)?)
}

fn integers(values: impl Iterator<Item = i64>) -> Result<Tensor> {
    let values: Vec<i64> = values.collect();
    let count = values.len();
    Ok(Tensor::from_vec(values, count, &Device::Cpu)?)
}

/// A trace: one image's run as a safetensors file.
///
/// Tensors, with N steps, S subjects and E evaluations: `noise` `[4, h, w]`, `text_states`
/// `[77, d]`, `timesteps` `[N]`, `step_sizes` `[N]`, `latents` `[N, 4, h, w]` after each step,
/// `losses` `[N]` (the one that decided the update; NaN where none), `scores` `[N, S]`,
/// `refinements` `[N]`, `eval_step` `[E]`, `eval_loss` `[E]`, `eval_scores` `[E, S]`,
/// `final_latents` `[4, h, w]`, `image` `[3, H, W]` in 0..1 and, if asked for, `maps`
/// `[N, S, h, w]` and `map_scores` `[N, S]`. Texts: `spec` (JSON), `model` (`name@digest`),
/// `engine`, `kind`.
#[derive(Debug, Clone)]
pub struct Trace {
    /// What the image is.
    pub spec: Spec,
    /// What the steps recorded.
    pub record: Record,
    /// `[3, H, W]` in 0..1.
    pub image: Tensor,
}

impl Trace {
    /// The file of a finished image.
    ///
    /// # Errors
    /// If the run did not keep its latents.
    pub fn to_bytes(rendered: &Rendered) -> Result<Vec<u8>> {
        let record = &rendered.record;
        let n = record.timesteps.len();
        if record.latents.len() != n {
            let message = "the run did not keep the latents of every step".into();
            return Err(Error::Tensors { message });
        }
        let mut all = record.tensors()?;
        let step_sizes = record.step_sizes.iter().map(|&a| a as f32);
        all.extend([
            ("noise".to_owned(), rendered.noise.clone()),
            ("text_states".to_owned(), rendered.text_states.clone()),
            ("timesteps".to_owned(), floats(record.timesteps.iter().copied(), &[n])?),
            ("step_sizes".to_owned(), floats(step_sizes, &[n])?),
            ("final_latents".to_owned(), rendered.final_latents.clone()),
            ("image".to_owned(), rendered.image.clone()),
        ]);
        let spec = rendered.spec.canonical_json();
        let spec = spec.map_err(|e| Error::Tensors { message: e.to_string() })?;
        let texts = BTreeMap::from([
            ("spec".to_owned(), spec),
            ("model".to_owned(), rendered.spec.model.clone()),
            ("engine".to_owned(), rendered.spec.engine.to_string()),
            ("kind".to_owned(), rendered.kind.clone()),
        ]);
        tensors::to_bytes(&all, &texts)
    }

    /// Reads a trace.
    ///
    /// # Errors
    /// If the bytes are no trace.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let (all, texts) = tensors::from_bytes(bytes)?;
        let wrong = |message: String| Error::Tensors { message };
        let spec = texts.get("spec").ok_or_else(|| wrong("there is no text `spec`".into()))?;
        let spec: Spec =
            serde_json::from_str(spec).map_err(|e| wrong(format!("the text `spec`: {e}")))?;
        let timesteps = tensor(&all, "timesteps")?.to_vec1::<f32>()?;
        let step_sizes = tensor(&all, "step_sizes")?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        let mut record = Record::new(&timesteps, step_sizes, spec.subjects.len());
        record.restore(&all)?;
        Ok(Self { spec, record, image: tensor(&all, "image")?.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let mut record = Record::new(&[981., 961.], vec![20., 19.], 2);
        let latents = Tensor::zeros((4, 2, 2), DType::F32, &Device::Cpu).unwrap();
        let seen = |v: f32| Observed {
            scores: vec![v, v + 0.1],
            maps: vec![vec![v; 6], vec![2. * v; 6]],
            size: (2, 3),
        };
        let evaluations = vec![(0.9, vec![0.1, 0.4]), (0.7, vec![0.3, 0.5])];
        let guided = Step { loss: 0.7, scores: vec![0.3, 0.5], refinements: 2, evaluations };
        let plain =
            Step { loss: f32::NAN, scores: Vec::new(), refinements: 0, evaluations: Vec::new() };
        record.keep(guided, Some(seen(0.2)), Some(latents.clone()));
        record.keep(plain, Some(seen(0.4)), Some(latents));
        record
    }

    #[test]
    fn a_record_survives_its_tensors() {
        let before = record();
        let mut after = Record::new(&[981., 961.], vec![20., 19.], 2);
        after.restore(&before.tensors().unwrap()).unwrap();
        assert_eq!(after.steps[0], before.steps[0]);
        assert!(after.steps[1].loss.is_nan() && after.steps[1].scores.len() == 2);
        assert_eq!(after.observed, before.observed);
        assert_eq!(after.latents.len(), 2);
    }

    #[test]
    fn decided_scores_go_before_observed_ones() {
        let record = record();
        assert_eq!(record.scores(0), Some(&[0.3, 0.5][..]));
        assert_eq!(record.scores(1), Some(&[0.4, 0.5][..]));
        assert_eq!(record.scores(2), None);
    }

    #[test]
    fn tensors_that_do_not_belong_together_are_refused() {
        for missing in ["losses", "scores", "refinements", "eval_step"] {
            let mut tensors = record().tensors().unwrap();
            tensors.remove(missing);
            let error = record().restore(&tensors).unwrap_err().to_string();
            assert!(error.contains(missing), "{error}");
        }
        let mut other = Record::new(&[981., 961.], vec![20., 19.], 3);
        assert!(other.restore(&record().tensors().unwrap()).is_err());
    }
}
