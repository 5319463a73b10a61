//! From a line to specs: defaults filled in, every field checked, words turned into positions.

use std::collections::BTreeMap;

use excite_prompt::{Encoding, FoundSubject, MAX_SUBJECTS, Subject, Tokenizer, find_subjects};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::LineError;
use crate::limits;
use crate::line::{Line, SubjectRequest};
use crate::method::{AttendAndExcite, Composable, Method, MethodName, Structure, SynGen};
use crate::seeds::Seeds;
use crate::spec::{ENGINE, SchedulerName, Spec};
use crate::tries::Accept;
use crate::warning::Warning;

/// Denoising steps where nobody says otherwise, as in the paper.
const STEPS: u32 = 50;
/// Guidance scale where nobody says otherwise, as in the paper.
const GUIDANCE_SCALE: f64 = 7.5;
/// The option that names phrases.
const PHRASES: &str = "method_params.phrases";

/// What a line is checked against.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ModelFacts {
    /// `name@digest`.
    pub name: String,
    /// Pixels, where nobody says otherwise.
    pub width: u32,
    /// Pixels, where nobody says otherwise.
    pub height: u32,
    /// Pixels that both sides must be a multiple of.
    pub size_multiple: u32,
    /// Pixels that both sides must have at least.
    pub side_min: u32,
    /// Timesteps the model was trained with; fewer steps than that can be made.
    pub train_timesteps: u32,
    /// The model's own scheduler, or its class if that is none of ours.
    #[serde(with = "scheduler_or_class")]
    #[schema(value_type = String)]
    pub scheduler: Result<SchedulerName, String>,
    /// Whether only the prompt's own tokens should compete in the second softmax.
    pub prompt_only_tokens: bool,
}

/// A scheduler of ours as its name, another as its class.
mod scheduler_or_class {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::spec::SchedulerName;

    pub(super) fn serialize<S: Serializer>(
        value: &Result<SchedulerName, String>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(value.as_ref().map_or_else(String::as_str, |name| name.as_str()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Result<SchedulerName, String>, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(text.parse().map_err(|_| text))
    }
}

/// What a method's options are about.
struct Place<'a> {
    facts: &'a ModelFacts,
    tokenizer: &'a Tokenizer,
    prompt: &'a str,
    encoding: &'a Encoding,
    subjects: &'a [Subject],
}

/// A checked line.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// The spec with the first seed; the others differ in the seed alone.
    pub first: Spec,
    /// All seeds.
    pub seeds: Seeds,
    /// When an image is good enough; none without subjects, which have the scores.
    pub accept: Option<Accept>,
    /// The person's own name for the job.
    pub custom_id: Option<String>,
    /// What the person wants to find it by.
    pub labels: BTreeMap<String, String>,
    /// The subjects that were found, with their attributes; empty where they were named.
    pub found: Vec<FoundSubject>,
    /// What the person should know.
    pub warnings: Vec<Warning>,
}

impl Resolved {
    /// One spec a seed.
    pub fn specs(&self) -> impl Iterator<Item = Spec> + '_ {
        self.seeds.iter().map(|seed| Spec { seed, ..self.first.clone() })
    }
}

impl Line {
    /// Checks the line against a model.
    ///
    /// # Errors
    /// The first thing that is wrong, with field, value and remedy.
    pub fn resolve(
        &self,
        facts: &ModelFacts,
        tokenizer: &Tokenizer,
    ) -> Result<Resolved, LineError> {
        let prompt = self.prompt.clone().unwrap_or_default();
        if prompt.trim().is_empty() {
            return Err(LineError::Empty { field: "prompt" });
        }
        let negative_prompt = self.negative_prompt.clone().unwrap_or_default();
        check_text("prompt", &prompt)?;
        check_text("negative_prompt", &negative_prompt)?;
        let mut warnings = Vec::new();
        let encoding = encode(tokenizer, "prompt", &prompt, &mut warnings)?;
        if !negative_prompt.is_empty() {
            encode(tokenizer, "negative_prompt", &negative_prompt, &mut warnings)?;
        }
        let (subjects, found) = match &self.subjects {
            Some(requests) => (named_subjects(&encoding, requests)?, Vec::new()),
            None => {
                let found = find_subjects(&encoding);
                // Without a method nobody asks for the subjects.
                if self.method != Some(MethodName::None) {
                    warnings.extend(found.doubts.into_iter().map(Warning::Doubt));
                }
                let subjects = found.subjects.iter().map(|found| found.subject.clone());
                (subjects.collect(), found.subjects)
            }
        };
        let guidance_scale = guidance_scale(self.guidance_scale.unwrap_or(GUIDANCE_SCALE))?;
        let place =
            Place { facts, tokenizer, prompt: &prompt, encoding: &encoding, subjects: &subjects };
        let method = self.method(&place, guidance_scale, &mut warnings)?;
        let accept = self.accept(&subjects, &mut warnings)?;
        let seeds = self.seeds()?;
        let first = Spec {
            prompt,
            negative_prompt,
            subjects,
            seed: seeds.iter().next().unwrap_or_default(),
            noise: self.noise.unwrap_or_default(),
            width: side("width", self.width.unwrap_or(facts.width), facts)?,
            height: side("height", self.height.unwrap_or(facts.height), facts)?,
            steps: steps(self.steps.unwrap_or(STEPS), facts)?,
            guidance_scale,
            scheduler: self.scheduler(facts)?,
            method,
            model: facts.name.clone(),
            engine: ENGINE,
        };
        let (custom_id, labels) = self.names()?;
        Ok(Resolved { first, seeds, accept, custom_id, labels, found, warnings })
    }

    /// What [`Line::resolve`] gives, from what it gave for a line that [is alike](Line::is_alike):
    /// no word is looked at again.
    ///
    /// # Errors
    /// If seeds, custom id or labels are wrong.
    pub fn resolve_as(&self, alike: &Resolved) -> Result<Resolved, LineError> {
        let seeds = self.seeds()?;
        let seed = seeds.iter().next().unwrap_or_default();
        let (custom_id, labels) = self.names()?;
        let first = Spec { seed, ..alike.first.clone() };
        let (found, warnings) = (alike.found.clone(), alike.warnings.clone());
        let accept = alike.accept;
        Ok(Resolved { first, seeds, accept, custom_id, labels, found, warnings })
    }

    /// Custom id and labels, checked.
    fn names(&self) -> Result<(Option<String>, BTreeMap<String, String>), LineError> {
        check_custom_id(self.custom_id.as_deref())?;
        let labels = self.labels.clone().unwrap_or_default();
        check_labels(&labels)?;
        Ok((self.custom_id.clone(), labels))
    }

    fn method(
        &self,
        place: &Place<'_>,
        guidance_scale: f64,
        warnings: &mut Vec<Warning>,
    ) -> Result<Method, LineError> {
        let name = self.method.unwrap_or_default();
        let options = self.method_params.clone().unwrap_or_default();
        let Place { facts, tokenizer, prompt, encoding, subjects } = *place;
        let none = Warning::NoPhrases { method: name.as_str() };
        match name {
            MethodName::None if options.is_empty() => Ok(Method::None),
            MethodName::None => Err(LineError::NoOptions { method: name.as_str() }),
            MethodName::AttendAndExcite => {
                let params = AttendAndExcite::from_options(&options, facts.prompt_only_tokens)?;
                if subjects.is_empty() {
                    warnings.push(Warning::NoSubjects);
                    return Ok(Method::None);
                }
                Ok(Method::AttendAndExcite(params))
            }
            MethodName::Composable => {
                let params = Composable::from_options(&options, prompt, guidance_scale)?;
                for phrase in &params.phrases {
                    check_text(PHRASES, &phrase.text)?;
                    encode(tokenizer, PHRASES, &phrase.text, warnings)?;
                }
                if !options.contains_key("phrases") && params.phrases.len() == 1 {
                    warnings.push(none);
                }
                Ok(Method::Composable(params))
            }
            MethodName::Structure => {
                let params = Structure::from_options(&options, encoding)?;
                if params.phrases.is_empty() {
                    warnings.push(none);
                }
                Ok(Method::Structure(params))
            }
            MethodName::SynGen => {
                let params = SynGen::from_options(&options, encoding, subjects)?;
                if params.sets.is_empty() {
                    warnings.push(none);
                }
                Ok(Method::SynGen(params))
            }
        }
    }

    fn accept(
        &self,
        subjects: &[Subject],
        warnings: &mut Vec<Warning>,
    ) -> Result<Option<Accept>, LineError> {
        let Some(accept) = self.accept else { return Ok(None) };
        accept.check()?;
        if subjects.is_empty() {
            warnings.push(Warning::AcceptIgnored);
            return Ok(None);
        }
        Ok(Some(accept))
    }

    fn scheduler(&self, facts: &ModelFacts) -> Result<SchedulerName, LineError> {
        match self.scheduler {
            Some(name) => Ok(name),
            None => facts.scheduler.clone().map_err(|own| LineError::NoScheduler { own }),
        }
    }

    fn seeds(&self) -> Result<Seeds, LineError> {
        match (&self.seeds, self.seed) {
            (Some(_), Some(_)) => Err(LineError::SeedAndSeeds),
            (Some(text), None) => text.parse().map_err(LineError::Seeds),
            (None, seed) => Ok(Seeds::one(seed.unwrap_or(0))),
        }
    }
}

fn encode(
    tokenizer: &Tokenizer,
    field: &'static str,
    text: &str,
    warnings: &mut Vec<Warning>,
) -> Result<Encoding, LineError> {
    let encoding = tokenizer.encode(text).map_err(|e| LineError::Tokenizer(e.to_string()))?;
    if let Some(cut) = &encoding.truncated {
        let (tokens, text) = (cut.tokens, cut.text.clone());
        warnings.push(Warning::Truncated { field, tokens, text });
    }
    Ok(encoding)
}

fn named_subjects(
    encoding: &Encoding,
    requests: &[SubjectRequest],
) -> Result<Vec<Subject>, LineError> {
    if requests.len() > MAX_SUBJECTS {
        return Err(LineError::TooManySubjects { count: requests.len(), max: MAX_SUBJECTS });
    }
    let mut subjects: Vec<Subject> = Vec::with_capacity(requests.len());
    for request in requests {
        let subject = request.find(encoding).map_err(LineError::Subject)?;
        if subjects.iter().any(|other| other.indices == subject.indices) {
            return Err(LineError::SubjectTwice { word: subject.word });
        }
        subjects.push(subject);
    }
    Ok(subjects)
}

fn check_text(field: &'static str, text: &str) -> Result<(), LineError> {
    let max = limits::PROMPT_BYTES_MAX;
    if text.len() > max {
        return Err(LineError::TextTooLong { field, length: text.len(), unit: "bytes", max });
    }
    // White space is folded by the tokenizer, so line breaks and tabs do no harm.
    let control = |c: char| c.is_control() && !c.is_whitespace();
    match text.char_indices().find(|(_, c)| control(*c)) {
        Some((at, c)) => Err(LineError::Character {
            field,
            character: c.escape_unicode().to_string(),
            at,
            allowed: "text without control characters",
        }),
        None => Ok(()),
    }
}

fn side(field: &'static str, value: u32, facts: &ModelFacts) -> Result<u32, LineError> {
    let multiple = facts.size_multiple.max(1);
    if !(facts.side_min..=limits::SIDE_MAX).contains(&value) {
        let (min, max) = (facts.side_min, limits::SIDE_MAX);
        let range = format!("a multiple of {multiple} from {min} up to {max}");
        return Err(LineError::OutOfRange { field: field.into(), value: value.to_string(), range });
    }
    if !value.is_multiple_of(multiple) {
        return Err(LineError::NotAMultiple { field, value, multiple });
    }
    Ok(value)
}

fn steps(value: u32, facts: &ModelFacts) -> Result<u32, LineError> {
    let max = facts.train_timesteps.saturating_sub(1);
    if (1..=max).contains(&value) {
        return Ok(value);
    }
    let range = format!("1 to {max}");
    Err(LineError::OutOfRange { field: "steps".into(), value: value.to_string(), range })
}

fn guidance_scale(value: f64) -> Result<f64, LineError> {
    let range = limits::GUIDANCE_SCALE;
    if range.contains(&value) {
        return Ok(value);
    }
    let range = format!("{} (off) to {}", range.start(), range.end());
    let field = "guidance_scale".into();
    Err(LineError::OutOfRange { field, value: value.to_string(), range })
}

fn check_custom_id(id: Option<&str>) -> Result<(), LineError> {
    let Some(id) = id else { return Ok(()) };
    let (field, max) = ("custom_id", limits::CUSTOM_ID_CHARS_MAX);
    if id.is_empty() {
        return Err(LineError::OutOfRange {
            field: field.into(),
            value: "empty".into(),
            range: format!("1 to {max} characters, or leave it out"),
        });
    }
    if id.len() > max {
        return Err(LineError::TextTooLong { field, length: id.len(), unit: "characters", max });
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    // It may name a file, so it must not be hidden or climb.
    let bad = id.char_indices().find(|(at, c)| !allowed(*c) || (*at == 0 && *c == '.'));
    match bad {
        Some((at, c)) => Err(LineError::Character {
            field,
            character: c.escape_default().to_string(),
            at,
            allowed: "letters, digits, `_`, `-` and, behind the first character, `.`",
        }),
        None => Ok(()),
    }
}

fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), LineError> {
    let field = "labels";
    if labels.len() > limits::LABELS_MAX {
        let max = limits::LABELS_MAX;
        return Err(LineError::TextTooLong { field, length: labels.len(), unit: "entries", max });
    }
    for text in labels.iter().flat_map(|(name, value)| [name, value]) {
        let (length, max) = (text.chars().count(), limits::LABEL_CHARS_MAX);
        if length > max {
            return Err(LineError::TextTooLong { field, length, unit: "characters", max });
        }
        check_text(field, text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
