//! The JSON beside every image: what it is, how well its subjects were attended to, step by step.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use excite_diffusion::Record;
use excite_jobs::{AttendAndExcite, Method, Spec};
use serde::{Deserialize, Serialize};

use crate::files::sha256;

/// Numbers that are not there (NaN) are `null`.
type Number = Option<f32>;

/// What is known of a finished image. Written after it, so an image with its sidecar is finished.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Sidecar {
    pub(crate) v: u32,
    /// Of the PNG file.
    pub(crate) sha256: String,
    /// Kind of machine.
    pub(crate) kind: String,
    /// Wall time: of the micro-batch, divided by its images.
    pub(crate) seconds: f64,
    pub(crate) custom_id: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) spec: Spec,
    #[serde(flatten)]
    pub(crate) attention: Attention,
    pub(crate) steps: Vec<StepLine>,
}

/// How well the subjects are attended to at the last step that guidance may change, in the
/// conditional half of the denoising pass: comparable between methods.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Attention {
    pub(crate) measured_at_step: usize,
    /// One minus the least score.
    pub(crate) loss: Number,
    /// In the order of the spec's subjects.
    pub(crate) scores: Vec<Number>,
    pub(crate) weakest: Option<String>,
}

/// One step of the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StepLine {
    pub(crate) timestep: f32,
    /// Factor of an update.
    pub(crate) step_size: Number,
    /// The loss that decided the update.
    pub(crate) loss: Number,
    /// The scores that decided the update; where there was none, those that were observed.
    pub(crate) scores: Vec<Number>,
    pub(crate) refinements: u32,
}

impl Sidecar {
    /// Refinement iterations of all steps.
    pub(crate) fn refinements(&self) -> u32 {
        self.steps.iter().map(|step| step.refinements).sum()
    }

    /// Reads the sidecar of an image; `None` if there is none that belongs to these bytes.
    pub(crate) fn of(image: &Path, bytes: &[u8]) -> Option<Self> {
        let text = std::fs::read(path(image)).ok()?;
        let sidecar: Self = serde_json::from_slice(&text).ok()?;
        (sidecar.v == 1 && sidecar.sha256 == sha256(bytes)).then_some(sidecar)
    }
}

/// Where the sidecar of an image is.
pub(crate) fn path(image: &Path) -> PathBuf {
    image.with_extension("json")
}

/// What the record says at the last step that guidance may change.
pub(crate) fn attention(spec: &Spec, record: &Record) -> Attention {
    let alter = match &spec.method {
        Method::AttendAndExcite(params) => params.max_iter_to_alter,
        Method::None => AttendAndExcite::official().max_iter_to_alter,
    };
    let last = record.observed().len().saturating_sub(1);
    let step = (alter as usize).saturating_sub(1).min(last);
    let scores = record.observed().get(step).map_or(&[][..], |seen| &seen.scores);
    let weakest = weakest(scores);
    Attention {
        measured_at_step: step,
        loss: weakest.map(|s| (1. - scores[s]).max(0.)),
        scores: scores.iter().map(|&s| number(s)).collect(),
        weakest: weakest.and_then(|s| spec.subjects.get(s)).map(|s| s.word.clone()),
    }
}

/// The steps of a record.
pub(crate) fn step_lines(record: &Record) -> Vec<StepLine> {
    let line = |(i, step): (usize, &excite_diffusion::Step)| StepLine {
        timestep: record.timesteps().get(i).copied().unwrap_or_default(),
        step_size: record.step_sizes().get(i).and_then(|&a| number(a as f32)),
        loss: number(step.loss),
        scores: record.scores(i).unwrap_or_default().iter().map(|&s| number(s)).collect(),
        refinements: step.refinements,
    };
    record.steps().iter().enumerate().map(line).collect()
}

/// Position of the least score, the first of equals.
pub(crate) fn weakest(scores: &[f32]) -> Option<usize> {
    (0..scores.len()).min_by(|&a, &b| scores[a].total_cmp(&scores[b]))
}

fn number(value: f32) -> Number {
    value.is_finite().then_some(value)
}
