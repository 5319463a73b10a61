//! The JSON beside every image: what it is, how well its subjects were attended to, step by step.
//! Stored after the image, so an image with its sidecar is finished.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::spec::Spec;
use crate::tries::{Accept, Tries, Try};

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
    /// Wall time: its share of the micro-batch's, by the steps that were made for it.
    pub seconds: f64,
    /// The person's own name for it.
    pub custom_id: Option<String>,
    /// What the person wants to find it by.
    pub labels: BTreeMap<String, String>,
    /// What it is; its seed is the one that was kept.
    pub spec: Spec,
    /// The seeds that were tried, in their order; empty where any was good enough.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tries: Vec<Try>,
    /// The image was made by another worker, of another kind, which did not come to write this:
    /// kind, seconds and figures are those of a run of the same job that made it again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopted: bool,
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
    /// Where the model looked for each subject at that step, in the order of the spec's subjects;
    /// empty where that was not kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub maps: Vec<HeatMap>,
}

/// The attention of a subject on a grid over the image, row by row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeatMap {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// A byte a place, in base64; the highest is 255.
    pub values: String,
}

/// One step of the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StepLine {
    /// The scheduler's number.
    pub timestep: f32,
    /// Factor of an update.
    #[schema(value_type = Option<f32>)]
    pub step_size: Number,
    /// The loss that decided the update.
    #[schema(value_type = Option<f32>)]
    pub loss: Number,
    /// The scores that decided the update; where there was none, those that were observed.
    #[schema(value_type = Vec<Option<f32>>)]
    pub scores: Vec<Number>,
    /// Refinement iterations.
    pub refinements: u32,
}

impl Sidecar {
    /// Whether this is what a job for `spec` ends with, trying further seeds as `accept` says.
    pub fn is_of(&self, spec: &Spec, accept: Option<Accept>) -> bool {
        let tries = Tries::resume(spec.seed, accept, &self.tries);
        let tries = tries.filter(Tries::is_decided);
        tries.is_some_and(|tries| self.spec == Spec { seed: tries.seed(), ..spec.clone() })
    }

    /// Refinement iterations of all steps.
    pub fn refinements(&self) -> u32 {
        self.steps.iter().map(|step| step.refinements).sum()
    }
}
