//! The JSON beside every image: what it is, how well its subjects were attended to, step by step.
//! Stored after the image, so an image with its sidecar is finished.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::spec::Spec;

/// Numbers that are not there (NaN) are `null`.
pub type Number = Option<f32>;

/// What is known of a finished image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sidecar {
    /// [`crate::VERSION`].
    pub v: u32,
    /// Of the PNG file.
    pub sha256: String,
    /// Kind of machine.
    pub kind: String,
    /// Wall time: of the micro-batch, divided by its images.
    pub seconds: f64,
    /// The person's own name for it.
    pub custom_id: Option<String>,
    /// What the person wants to find it by.
    pub labels: BTreeMap<String, String>,
    /// What it is.
    pub spec: Spec,
    /// How well its subjects are attended to.
    #[serde(flatten)]
    pub attention: Attention,
    /// Every step.
    pub steps: Vec<StepLine>,
}

/// How well the subjects are attended to at the last step that guidance may change, in the
/// conditional half of the denoising pass: comparable between methods.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Attention {
    /// The step.
    pub measured_at_step: usize,
    /// One minus the least score.
    pub loss: Number,
    /// In the order of the spec's subjects.
    pub scores: Vec<Number>,
    /// The subject with the least score.
    pub weakest: Option<String>,
}

/// One step of the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepLine {
    /// The scheduler's number.
    pub timestep: f32,
    /// Factor of an update.
    pub step_size: Number,
    /// The loss that decided the update.
    pub loss: Number,
    /// The scores that decided the update; where there was none, those that were observed.
    pub scores: Vec<Number>,
    /// Refinement iterations.
    pub refinements: u32,
}

impl Sidecar {
    /// Refinement iterations of all steps.
    pub fn refinements(&self) -> u32 {
        self.steps.iter().map(|step| step.refinements).sum()
    }
}
