//! A line: a job as a person writes it, in JSON or on a command line.

use std::collections::BTreeMap;

use excite_prompt::{Encoding, Subject, SubjectError};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::error::LineError;
use crate::limits::LINE_BYTES_MAX;
use crate::method::MethodName;
use crate::spec::{Noise, SchedulerName};
use crate::tries::Accept;

/// What a person asks for. What is left out comes from the defaults and the model.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// What the image shows.
    pub prompt: Option<String>,
    /// What to steer away from.
    pub negative_prompt: Option<String>,
    /// Words that must appear; found in the prompt if left out.
    pub subjects: Option<Vec<SubjectRequest>>,
    /// One seed.
    pub seed: Option<u32>,
    /// Several seeds, one image each: `0..4`, `0..=3`, `1,5,9`.
    pub seeds: Option<String>,
    /// Which generator draws the noise.
    pub noise: Option<Noise>,
    /// Pixels.
    pub width: Option<u32>,
    /// Pixels.
    pub height: Option<u32>,
    /// Denoising steps.
    pub steps: Option<u32>,
    /// Weight of classifier-free guidance; 1 is off.
    pub guidance_scale: Option<f64>,
    /// How noise predictions become latents.
    pub scheduler: Option<SchedulerName>,
    /// What is done for the subjects.
    pub method: Option<MethodName>,
    /// The method's options: a `preset` and what differs from it.
    #[schema(value_type = Option<Object>)]
    pub method_params: Option<Map<String, Value>>,
    /// When an image is good enough; until then further seeds are tried.
    pub accept: Option<Accept>,
    /// The person's own name for the job.
    pub custom_id: Option<String>,
    /// Whatever the person wants to find it by.
    pub labels: Option<BTreeMap<String, String>>,
}

/// The fields of a line.
pub const FIELDS: &[&str] = &[
    "prompt",
    "negative_prompt",
    "subjects",
    "seed",
    "seeds",
    "noise",
    "width",
    "height",
    "steps",
    "guidance_scale",
    "scheduler",
    "method",
    "method_params",
    "accept",
    "custom_id",
    "labels",
];

/// A subject as a person names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum SubjectRequest {
    /// `cat`, `cat#2` (the second one), `teddy bear`, or `#5` (the token at position 5).
    Word(String),
    /// By positions among the 77 tokens, with a name of one's own if wanted.
    At {
        /// What to call it; otherwise the words at the positions.
        #[serde(default)]
        word: Option<String>,
        /// Positions, one a piece.
        indices: Vec<u32>,
    },
}

impl SubjectRequest {
    /// Where it stands in a prompt.
    ///
    /// # Errors
    /// If it is not there, or not clearly.
    pub fn find(&self, encoding: &Encoding) -> Result<Subject, SubjectError> {
        match self {
            Self::Word(text) => {
                match text.trim().strip_prefix('#').and_then(|index| index.parse().ok()) {
                    Some(index) => encoding.subject_at(&[index]),
                    None => encoding.subject(text),
                }
            }
            Self::At { word, indices } => encoding.subject_at(indices).map(|found| match word {
                Some(word) => Subject { word: word.clone(), ..found },
                None => found,
            }),
        }
    }
}

impl Line {
    /// Reads one line of JSON.
    ///
    /// # Errors
    /// If it is no object, a field is unknown, or a value has another type.
    pub fn parse(text: &str) -> Result<Self, LineError> {
        if text.len() > LINE_BYTES_MAX {
            return Err(LineError::TooLong { bytes: text.len(), max: LINE_BYTES_MAX });
        }
        // Nearly every line is well, and read in one go; what is wrong is looked for only then. An
        // array would be taken for the fields in their order.
        if text.trim_ascii_start().starts_with('{')
            && let Ok(line) = serde_json::from_str(text)
        {
            return Ok(line);
        }
        let object: Map<String, Value> =
            serde_json::from_str(text).map_err(|e| LineError::Json(e.to_string()))?;
        if let Some(field) = object.keys().find(|field| !FIELDS.contains(&field.as_str())) {
            return Err(LineError::UnknownField { field: field.clone(), known: FIELDS.join(", ") });
        }
        for (field, known) in [
            ("scheduler", SchedulerName::NAMES),
            ("method", MethodName::NAMES),
            ("noise", Noise::NAMES),
        ] {
            let value = object.get(field);
            let known_name = |name: &str| known.contains(&name);
            if let Some(value) = value.filter(|v| v.as_str().is_some_and(|n| !known_name(n))) {
                return Err(LineError::unknown_name(field, value, &known.join(", ")));
            }
        }
        serde_path_to_error::deserialize(Value::Object(object))
            .map_err(|e| LineError::from_path("", &e))
    }

    /// Whether the images of both lines differ in their seeds at most. What jobs are called does
    /// not matter either.
    pub fn is_alike(&self, other: &Self) -> bool {
        // Without a rest pattern, so that a new field is not forgotten.
        let Self {
            prompt,
            negative_prompt,
            subjects,
            seed: _,
            seeds: _,
            noise,
            width,
            height,
            steps,
            guidance_scale,
            scheduler,
            method,
            method_params,
            accept,
            custom_id: _,
            labels: _,
        } = self;
        *prompt == other.prompt
            && *negative_prompt == other.negative_prompt
            && *subjects == other.subjects
            && *noise == other.noise
            && *width == other.width
            && *height == other.height
            && *steps == other.steps
            && *guidance_scale == other.guidance_scale
            && *scheduler == other.scheduler
            && *method == other.method
            && *method_params == other.method_params
            && *accept == other.accept
    }

    /// This line with another method. Options belong to the method that it names, or would have.
    pub fn with_method(self, method: MethodName) -> Self {
        let own = self.method.unwrap_or_default();
        let method_params = self.method_params.filter(|_| own == method);
        Self { method: Some(method), method_params, ..self }
    }

    /// This line, and `defaults` where it says nothing.
    pub fn or(self, defaults: &Self) -> Self {
        // A line that names its seeds in one way must not meet defaults that do in the other.
        let seeded = self.seed.is_some() || self.seeds.is_some();
        let (seed, seeds) =
            if seeded { (self.seed, self.seeds) } else { (defaults.seed, defaults.seeds.clone()) };
        // Options belong to their method: a line that names one does not get another's.
        let same_method = self.method.is_none() || self.method == defaults.method;
        let params = defaults.method_params.as_ref().filter(|_| same_method);
        Self {
            prompt: self.prompt.or_else(|| defaults.prompt.clone()),
            negative_prompt: self.negative_prompt.or_else(|| defaults.negative_prompt.clone()),
            subjects: self.subjects.or_else(|| defaults.subjects.clone()),
            seed,
            seeds,
            noise: self.noise.or(defaults.noise),
            width: self.width.or(defaults.width),
            height: self.height.or(defaults.height),
            steps: self.steps.or(defaults.steps),
            guidance_scale: self.guidance_scale.or(defaults.guidance_scale),
            scheduler: self.scheduler.or(defaults.scheduler),
            method: self.method.or(defaults.method),
            method_params: self.method_params.or_else(|| params.cloned()),
            accept: self.accept.or(defaults.accept),
            custom_id: self.custom_id.or_else(|| defaults.custom_id.clone()),
            labels: self.labels.or_else(|| defaults.labels.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_list_of_fields_is_complete() {
        let error = serde_json::from_str::<Line>(r#"{"no such": 1}"#).unwrap_err().to_string();
        for field in FIELDS {
            assert!(error.contains(&format!("`{field}`")), "{field}: {error}");
        }
        assert_eq!(error.matches('`').count(), 2 * FIELDS.len() + 2, "{error}");
    }

    #[test]
    fn wrong_lines_name_the_field() {
        for (line, field, message) in [
            ("", "line", "not a JSON object"),
            ("[1]", "line", "not a JSON object"),
            (r#"{"prompt": "a cat""#, "line", "not a JSON object"),
            (r#"{"promt": "a cat"}"#, "promt", "there is no field `promt`"),
            (r#"{"prompt": 7}"#, "prompt", "expected a string"),
            (r#"{"seed": -1}"#, "seed", "expected u32"),
            (r#"{"seed": 4294967296}"#, "seed", "expected u32"),
            (r#"{"steps": "50"}"#, "steps", "expected u32"),
            (r#"{"scheduler": "heun"}"#, "scheduler", "`scheduler` is \"heun\""),
            (r#"{"method": "magic"}"#, "method", "`method` is \"magic\""),
            (r#"{"labels": {"a": 1}}"#, "labels.a", "expected a string"),
            (r#"{"subjects": [1]}"#, "subjects[0]", "did not match"),
            (r#"{"accept": {"max_seeds": 2}}"#, "accept", "min_score"),
            (r#"{"accept": {"min_score": "x"}}"#, "accept.min_score", "expected f64"),
            (r#"{"accept": {"min_score": 0.5, "seeds": 2}}"#, "accept.seeds", "unknown field"),
        ] {
            let error = Line::parse(line).unwrap_err();
            assert_eq!(error.field(), field, "{line}: {error}");
            assert!(error.to_string().contains(message), "{line}: {error}");
            assert!(!error.advice().1.is_empty());
        }
        let long = format!(r#"{{"prompt": "{}"}}"#, "x".repeat(LINE_BYTES_MAX));
        assert!(matches!(Line::parse(&long), Err(LineError::TooLong { .. })));
    }

    #[test]
    fn a_line_goes_before_the_defaults() {
        let defaults = Line {
            steps: Some(20),
            seeds: Some("0..4".into()),
            method: Some(MethodName::AttendAndExcite),
            method_params: Some(Map::new()),
            ..Line::default()
        };
        let line = Line::parse(r#"{"prompt": "a cat", "seed": 7, "method": "none"}"#).unwrap();
        let got = line.or(&defaults);
        assert_eq!((got.steps, got.seed, got.seeds), (Some(20), Some(7), None));
        assert_eq!((got.method, got.method_params), (Some(MethodName::None), None));
        assert_eq!(Line::default().or(&defaults).seeds.as_deref(), Some("0..4"));
    }

    proptest! {
        #[test]
        fn any_line_is_answered(text in "\\PC{0,60}|\\{(\"(prompt|seed|seeds|subjects|labels|method_params)\": ?(\"[a-z]{0,4}\"|-?[0-9]{1,12}|\\[\\]|\\{\\}|null),? ?){0,4}\\}") {
            let _ = Line::parse(&text);
        }
    }
}
