//! Options of Composable Diffusion.

use excite_prompt::split_prompt;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::in_range;
use crate::error::LineError;
use crate::limits::{GUIDANCE_SCALE, PHRASES_MAX};

/// Options of Composable Diffusion: in each step every phrase has a prediction of its own, and
/// `e = e_u + sum w_j (e_j - e_u)` (Liu et al. 2022: conjunction; a negative weight is negation).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Composable {
    /// At least one; with a single one that is the prompt, the image is the plain one.
    pub phrases: Vec<WeightedPhrase>,
}

/// A prompt of its own and how strongly it counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WeightedPhrase {
    /// The phrase.
    pub text: String,
    /// Guidance scale of this phrase; negative: the image must not show it.
    pub weight: f64,
}

/// A phrase as people write it.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a text, or an object with `text` and `weight`")]
enum Written {
    Text(String),
    Weighted(Weighted),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Weighted {
    text: String,
    #[serde(default)]
    weight: Option<f64>,
}

impl Composable {
    /// The phrases that are named, or the parts of the prompt: at `AND` and `NOT` in capitals, else
    /// at `and`, else at `with`. Whatever has no weight has the guidance scale; behind `NOT`, minus
    /// that.
    ///
    /// # Errors
    /// If an option is unknown, there are too many phrases, or one has no text or a weight that is
    /// out of range.
    pub fn from_options(
        options: &Map<String, Value>,
        prompt: &str,
        guidance_scale: f64,
    ) -> Result<Self, LineError> {
        if let Some(other) = options.keys().find(|name| *name != "phrases") {
            let field = format!("method_params.{other}");
            return Err(LineError::UnknownField { field, known: "phrases".into() });
        }
        let phrases: Vec<WeightedPhrase> = match options.get("phrases") {
            None | Some(Value::Null) => split_prompt(prompt)
                .into_iter()
                .map(|part| {
                    let weight = part.weight.unwrap_or(guidance_scale);
                    let weight = if part.negated { -weight } else { weight };
                    WeightedPhrase { text: part.text, weight }
                })
                .collect(),
            Some(value) => {
                let written: Vec<Written> = serde_path_to_error::deserialize(value)
                    .map_err(|e| LineError::from_path("method_params.phrases", &e))?;
                let phrase = |written| match written {
                    Written::Text(text) => WeightedPhrase { text, weight: guidance_scale },
                    Written::Weighted(Weighted { text, weight }) => {
                        WeightedPhrase { text, weight: weight.unwrap_or(guidance_scale) }
                    }
                };
                written.into_iter().map(phrase).collect()
            }
        };
        let composable = Self { phrases };
        composable.check()?;
        Ok(composable)
    }

    fn check(&self) -> Result<(), LineError> {
        let most = *GUIDANCE_SCALE.end();
        in_range("phrases", self.phrases.len() as f64, 1., PHRASES_MAX as f64)?;
        for (i, phrase) in self.phrases.iter().enumerate() {
            in_range(&format!("phrases.{i}.weight"), phrase.weight, -most, most)?;
            if phrase.text.trim().is_empty() {
                return Err(LineError::Empty { field: "method_params.phrases" });
            }
        }
        if self.phrases.iter().all(|phrase| phrase.weight <= 0.) {
            return Err(LineError::OutOfRange {
                field: "method_params.phrases".into(),
                value: "nothing but what must not be shown".into(),
                range: "at least one phrase with a weight above 0".into(),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(prompt: &str, options: Value) -> Result<Vec<(String, f64)>, LineError> {
        let options = options.as_object().unwrap();
        let phrases = Composable::from_options(options, prompt, 7.5)?.phrases;
        Ok(phrases.into_iter().map(|phrase| (phrase.text, phrase.weight)).collect())
    }

    #[test]
    fn phrases_are_parts_of_the_prompt_or_given() {
        #[rustfmt::skip]
        let table = [
            ("a cat and a frog",        json!({}),                  vec![("a cat", 7.5), ("a frog", 7.5)]),
            ("a cat",                   json!({}),                  vec![("a cat", 7.5)]),
            ("a cat AND a pond NOT a frog", json!({}),
             vec![("a cat", 7.5), ("a pond", 7.5), ("a frog", -7.5)]),
            ("a cat and a frog",        json!({"phrases": ["two cats"]}), vec![("two cats", 7.5)]),
            ("a cat and a frog",
             json!({"phrases": ["a cat", {"text": "a frog", "weight": 5}, {"text": "a dog", "weight": -2.5}]}),
             vec![("a cat", 7.5), ("a frog", 5.), ("a dog", -2.5)]),
        ];
        for (prompt, options, want) in table {
            let got = of(prompt, options.clone()).unwrap();
            let got: Vec<_> = got.iter().map(|(text, weight)| (text.as_str(), *weight)).collect();
            assert_eq!(got, want, "{prompt} {options}");
        }
    }

    #[test]
    fn wrong_phrases_are_named() {
        for (options, want) in [
            (json!({"phrase": []}), "method_params.phrase"),
            (json!({"phrases": []}), "method_params.phrases"),
            (json!({"phrases": vec!["a"; 9]}), "method_params.phrases"),
            (json!({"phrases": "a cat"}), "method_params.phrases"),
            (json!({"phrases": [" "]}), "method_params.phrases"),
            (json!({"phrases": [{"text": "a", "weight": 1e9}]}), "method_params.phrases.0.weight"),
            (json!({"phrases": [{"text": "a", "weight": -1}]}), "method_params.phrases"),
            (json!({"phrases": [{"text": "a", "wait": 1}]}), "method_params.phrases[0]"),
        ] {
            let error = of("a cat", options.clone()).unwrap_err();
            assert_eq!(error.field(), want, "{options}: {error}");
        }
    }
}
