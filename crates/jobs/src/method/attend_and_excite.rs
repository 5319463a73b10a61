//! Options of Attend-and-Excite.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{in_range, merged};
use crate::error::LineError;
use crate::limits::{ITERATIONS_MAX, THRESHOLDS_MAX};

/// Denoising steps for which the paper states its threshold steps.
const PAPER_STEPS: f64 = 50.;

/// Options of Attend-and-Excite. Where the paper and the authors' code differ,
/// [`AttendAndExcite::official`] is the code and [`AttendAndExcite::paper`] the paper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AttendAndExcite {
    /// Updates are made at steps before this one.
    pub max_iter_to_alter: u32,
    /// Step index to the attention that the weakest subject must reach there by refinement.
    #[serde(with = "thresholds")]
    #[schema(value_type = BTreeMap<String, f64>)]
    pub thresholds: BTreeMap<u32, f64>,
    /// Whether the keys of `thresholds` are meant for 50 steps and follow `steps`.
    pub scale_thresholds: bool,
    /// Refinement iterations at one threshold.
    pub max_refinement_steps: u32,
    /// When refinement ends.
    pub refinement: Refinement,
    /// Factor of the step size.
    pub scale_factor: f64,
    /// Ends of the line whose square root shrinks the step size over the loop.
    pub scale_range: (f64, f64),
    /// Factor on the attention before the second softmax.
    pub gain: f64,
    /// Tokens that compete in the second softmax.
    pub tokens: TokenRange,
    /// Smoothing of a subject's map.
    pub smoothing: Smoothing,
    /// Which token of a word in several pieces counts.
    pub pieces: Pieces,
}

/// When refinement ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Refinement {
    /// The loss before the last update was good enough (the authors' code).
    Official,
    /// The loss after the last update is good enough (the paper's Algorithm 1).
    Paper,
}

/// Tokens that compete in the second softmax.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenRange {
    /// 1..76: all but the start and the last column (the authors' code on SD 1.x).
    Content,
    /// The prompt's own, without end of text and pads (the authors' code on SD 2.x).
    Prompt,
    /// 1..77: all but the start (the paper).
    All,
}

/// Which token of a word in several pieces counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pieces {
    /// The one with the highest score at the first evaluation.
    Strongest,
    /// The last.
    Last,
    /// The mean of their maps.
    Mean,
}

/// Smoothing of a subject's map.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Smoothing {
    /// Pixels along a side of the kernel, odd; 1 smooths nothing.
    pub kernel_size: u32,
    /// Width of the kernel in map pixels.
    pub sigma: f64,
    /// A true Gaussian; otherwise the authors' kernel, which is wider by the square root of two.
    pub textbook: bool,
}

impl AttendAndExcite {
    /// As the authors' code computes it.
    pub fn official() -> Self {
        Self {
            max_iter_to_alter: 25,
            thresholds: BTreeMap::from([(0, 0.05), (10, 0.5), (20, 0.8)]),
            scale_thresholds: false,
            max_refinement_steps: 20,
            refinement: Refinement::Official,
            scale_factor: 20.,
            scale_range: (1., 0.5),
            gain: 100.,
            tokens: TokenRange::Content,
            smoothing: Smoothing { kernel_size: 3, sigma: 0.5, textbook: false },
            pieces: Pieces::Strongest,
        }
    }

    /// As the paper describes it: every token but the start competes, refinement ends with the
    /// first loss that is good enough and has no cap (here: a bound of 1000).
    pub fn paper() -> Self {
        Self {
            tokens: TokenRange::All,
            refinement: Refinement::Paper,
            max_refinement_steps: ITERATIONS_MAX,
            ..Self::official()
        }
    }

    /// Options as people write them: a `preset` (`official` or `paper`) and what differs from it.
    /// `prompt_only` says that only the prompt's own tokens compete unless the options say
    /// otherwise, as SD 2.x needs.
    ///
    /// # Errors
    /// If an option is unknown, of another type, or out of range.
    pub fn from_options(
        options: &Map<String, Value>,
        prompt_only: bool,
    ) -> Result<Self, LineError> {
        let mut params = match options.get("preset") {
            None | Some(Value::Null) => Self::official(),
            Some(Value::String(name)) if name == "official" => Self::official(),
            Some(Value::String(name)) if name == "paper" => Self::paper(),
            Some(other) => {
                return Err(LineError::unknown_name(
                    "method_params.preset",
                    other,
                    "official, paper",
                ));
            }
        };
        if prompt_only {
            params.tokens = TokenRange::Prompt;
        }
        if options.is_empty() {
            return Ok(params);
        }
        let params: Self = merged(&params, options, &["preset"])?;
        params.check()?;
        Ok(params)
    }

    /// The thresholds of a run of `steps` steps, by step index.
    pub fn thresholds_for(&self, steps: u32) -> BTreeMap<u32, f64> {
        if !self.scale_thresholds {
            return self.thresholds.clone();
        }
        let scaled = |step: u32| (f64::from(step) * f64::from(steps) / PAPER_STEPS).round() as u32;
        self.thresholds.iter().map(|(&step, &threshold)| (scaled(step), threshold)).collect()
    }

    fn check(&self) -> Result<(), LineError> {
        let iterations = f64::from(ITERATIONS_MAX);
        in_range("max_iter_to_alter", f64::from(self.max_iter_to_alter), 0., iterations)?;
        in_range("max_refinement_steps", f64::from(self.max_refinement_steps), 1., iterations)?;
        in_range("scale_factor", self.scale_factor, 0., 1e4)?;
        in_range("scale_range", self.scale_range.0, 0., 100.)?;
        in_range("scale_range", self.scale_range.1, 0., 100.)?;
        in_range("gain", self.gain, 1e-3, 1e4)?;
        in_range("thresholds", self.thresholds.len() as f64, 0., THRESHOLDS_MAX as f64)?;
        for (step, threshold) in &self.thresholds {
            in_range(&format!("thresholds.{step}"), *threshold, 0., 1.)?;
        }
        in_range("smoothing.sigma", self.smoothing.sigma, 1e-3, 10.)?;
        let size = self.smoothing.kernel_size;
        if !(1..=9).contains(&size) || size.is_multiple_of(2) {
            return Err(LineError::OutOfRange {
                field: "method_params.smoothing.kernel_size".into(),
                value: size.to_string(),
                range: "1, 3, 5, 7 or 9".into(),
            });
        }
        Ok(())
    }
}

impl Default for AttendAndExcite {
    fn default() -> Self {
        Self::official()
    }
}

/// Steps are numbers, but the keys of a JSON object are text; serde's own conversion does not
/// survive a flattened enum.
mod thresholds {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        map: &BTreeMap<u32, f64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(map.iter().map(|(step, threshold)| (step.to_string(), threshold)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<u32, f64>, D::Error> {
        let text = BTreeMap::<String, f64>::deserialize(deserializer)?;
        text.into_iter()
            .map(|(step, threshold)| match step.parse() {
                Ok(step) => Ok((step, threshold)),
                Err(_) => Err(serde::de::Error::custom(format!("`{step}` is not a step index"))),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn from(options: Value) -> Result<AttendAndExcite, LineError> {
        AttendAndExcite::from_options(options.as_object().unwrap(), false)
    }

    #[test]
    fn options_change_a_preset() {
        assert_eq!(from(json!({})).unwrap(), AttendAndExcite::official());
        assert_eq!(from(json!({"preset": "paper"})).unwrap(), AttendAndExcite::paper());
        let got = from(json!({
            "preset": "paper", "gain": 50, "thresholds": {"5": 0.4}, "smoothing": {"sigma": 1.0}
        }))
        .unwrap();
        assert_eq!(got.refinement, Refinement::Paper);
        assert_eq!((got.gain, got.thresholds), (50., BTreeMap::from([(5, 0.4)])));
        assert_eq!(got.smoothing, Smoothing { kernel_size: 3, sigma: 1., textbook: false });
        let sd2 = AttendAndExcite::from_options(&Map::new(), true).unwrap();
        assert_eq!(sd2.tokens, TokenRange::Prompt);
    }

    #[test]
    fn wrong_options_are_named() {
        for (options, want) in [
            (json!({"preset": "mine"}), "method_params.preset"),
            (json!({"gian": 1}), "method_params.gian"),
            (json!({"gain": "x"}), "method_params.gain"),
            (json!({"gain": -1}), "method_params.gain"),
            (json!({"thresholds": {"x": 0.5}}), "method_params.thresholds"),
            (json!({"thresholds": {"0": 7}}), "method_params.thresholds.0"),
            (json!({"smoothing": {"kernel_size": 4}}), "method_params.smoothing.kernel_size"),
            (json!({"smoothing": {"width": 4}}), "method_params.smoothing"),
            (json!({"tokens": "some"}), "method_params.tokens"),
            (json!({"max_refinement_steps": 0}), "method_params.max_refinement_steps"),
        ] {
            let error = from(options.clone()).unwrap_err();
            assert!(error.field().starts_with(want), "{options}: {error} ({})", error.field());
            assert!(!error.advice().1.is_empty());
        }
    }

    #[test]
    fn thresholds_follow_the_steps_only_if_asked() {
        let mut params = AttendAndExcite::official();
        let keys = |p: &AttendAndExcite| p.thresholds_for(20).into_keys().collect::<Vec<_>>();
        assert_eq!(keys(&params), [0, 10, 20]);
        params.scale_thresholds = true;
        assert_eq!(keys(&params), [0, 4, 8]);
    }
}
