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
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, json};

    use super::*;
    use crate::method::{NounPhrase, NounSet, WeightedPhrase};

    macro_rules! data {
        ($name:literal) => {
            include_bytes!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../../models/emoji/tokenizer/",
                $name
            ))
        };
    }

    fn resolve(json: &str) -> Result<Resolved, LineError> {
        resolve_with(json, Ok(SchedulerName::Pndm))
    }

    fn resolve_with(
        json: &str,
        scheduler: Result<SchedulerName, String>,
    ) -> Result<Resolved, LineError> {
        static ONE: std::sync::OnceLock<Tokenizer> = std::sync::OnceLock::new();
        let tokenizer = ONE.get_or_init(|| {
            Tokenizer::new(data!("vocab.json"), data!("merges.txt"), None).unwrap()
        });
        let facts = ModelFacts {
            name: "emoji@0".into(),
            width: 128,
            height: 128,
            size_multiple: 16,
            side_min: 16,
            train_timesteps: 1000,
            scheduler,
            prompt_only_tokens: false,
        };
        Line::parse(json)?.resolve(&facts, tokenizer)
    }

    fn words(resolved: &Resolved) -> Vec<String> {
        resolved.first.subjects.iter().map(|subject| subject.word.clone()).collect()
    }

    #[test]
    fn what_is_left_out_is_filled_in() {
        let got = resolve(r#"{"prompt": "a cat and a frog", "seeds": "3..5"}"#).unwrap();
        assert_eq!(words(&got), ["cat", "frog"]);
        assert!(got.warnings.is_empty());
        let specs: Vec<Spec> = got.specs().collect();
        assert_eq!(specs.iter().map(|spec| spec.seed).collect::<Vec<_>>(), [3, 4]);
        let spec = &specs[0];
        assert_eq!((spec.width, spec.height, spec.steps), (128, 128, 50));
        assert_eq!((spec.guidance_scale, spec.scheduler), (7.5, SchedulerName::Pndm));
        assert_eq!(spec.method, Method::AttendAndExcite(AttendAndExcite::official()));
        assert_eq!(spec.subjects[1].indices, [5]);
    }

    #[test]
    fn subjects_are_taken_as_named() {
        for (subjects, want) in [
            (json!(["frog"]), &["frog"][..]),
            (json!(["#2", "frog#1"]), &["cat", "frog"]),
            (json!([{"indices": [5]}]), &["frog"]),
            (json!([{"word": "the green one", "indices": [5]}]), &["the green one"]),
        ] {
            let line = json!({"prompt": "a cat and a frog", "subjects": subjects});
            let got = resolve(&line.to_string()).unwrap();
            assert_eq!(words(&got), want, "{line}");
            assert!(got.found.is_empty());
        }
    }

    #[test]
    fn what_the_finder_doubts_is_said_unless_the_subjects_are_named() {
        let got = resolve(r#"{"prompt": "a red cat and a blorp"}"#).unwrap();
        assert_eq!(words(&got), ["cat", "blorp"]);
        assert_eq!(got.found[0].attributes[0].word, "red");
        assert_eq!((got.found[0].sure, got.found[1].sure), (true, false));
        let codes = |got: &Resolved| got.warnings.iter().map(Warning::code).collect::<Vec<_>>();
        assert_eq!(codes(&got), ["subjects_guessed"]);
        let said = got.warnings[0].to_string();
        assert!(said.contains("`blorp`"), "{said}");
        let got = resolve(r#"{"prompt": "ein Hund und eine Katze"}"#).unwrap();
        assert_eq!(codes(&got), ["prompt_not_english", "no_subjects"]);
        let line = r#"{"prompt": "a red cat and a blorp", "subjects": ["cat", "blorp"]}"#;
        assert_eq!(codes(&resolve(line).unwrap()), [""; 0]);
        let line = r#"{"prompt": "a blorp", "method": "none"}"#;
        assert_eq!(codes(&resolve(line).unwrap()), [""; 0]);
    }

    #[test]
    fn a_model_with_an_unknown_scheduler_needs_one_named() {
        let resolve = |json| resolve_with(json, Err("LMSDiscreteScheduler".into()));
        let error = resolve(r#"{"prompt": "a cat"}"#).unwrap_err();
        assert_eq!((error.field(), error.advice().0), ("scheduler", "no_scheduler"));
        assert!(error.to_string().contains("LMSDiscreteScheduler"), "{error}");
        let got = resolve(r#"{"prompt": "a cat", "scheduler": "euler"}"#).unwrap();
        assert_eq!(got.first.scheduler, SchedulerName::Euler);
    }

    #[test]
    fn an_image_without_subjects_is_made_plain_and_says_so() {
        for line in [r#"{"prompt": "abstract mood"}"#, r#"{"prompt": "a cat", "subjects": []}"#] {
            let got = resolve(line).unwrap();
            assert_eq!(
                (&got.first.method, got.warnings),
                (&Method::None, vec![Warning::NoSubjects])
            );
        }
        let got = resolve(r#"{"prompt": "abstract mood", "method": "none"}"#).unwrap();
        assert_eq!(got.warnings, []);
    }

    #[test]
    fn methods_find_what_they_work_with() {
        let method = |line: &str| {
            let got = resolve(line).unwrap();
            let codes: Vec<&str> = got.warnings.iter().map(Warning::code).collect();
            (got.first.method, codes)
        };
        let phrase = |text: &str, weight| WeightedPhrase { text: text.into(), weight };
        let line = r#"{"prompt": "a cat and a frog", "method": "composable", "guidance_scale": 5}"#;
        let phrases = vec![phrase("a cat", 5.), phrase("a frog", 5.)];
        assert_eq!(method(line), (Method::Composable(Composable { phrases }), vec![]));
        let line = r#"{"prompt": "a cat", "method": "composable"}"#;
        let phrases = vec![phrase("a cat", 7.5)];
        assert_eq!(method(line), (Method::Composable(Composable { phrases }), vec!["no_phrases"]));

        let span = |text: &str, start, end| NounPhrase { text: text.into(), start, end };
        let line = r#"{"prompt": "a cat and a red car", "method": "structure"}"#;
        let phrases = vec![span("a cat", 1, 3), span("a red car", 4, 7)];
        assert_eq!(method(line), (Method::Structure(Structure { phrases }), vec![]));
        let line = r#"{"prompt": "a cat and a red car", "method": "structure",
            "method_params": {"phrases": ["red car", "red car"]}}"#;
        let phrases = vec![span("red car", 5, 7)];
        assert_eq!(method(line), (Method::Structure(Structure { phrases }), vec![]));
        let line = r#"{"prompt": "cats", "method": "structure"}"#;
        let none = Structure { phrases: vec![] };
        assert_eq!(method(line), (Method::Structure(none), vec!["no_phrases"]));

        let at = |word: &str, index| Subject { word: word.into(), indices: vec![index] };
        let sets = |line: &str| match method(line) {
            (Method::SynGen(params), codes) => (params.sets, codes),
            other => panic!("{other:?}"),
        };
        let car = NounSet { noun: at("car", 6), modifiers: vec![at("red", 5)] };
        let cat = NounSet { noun: at("cat", 2), modifiers: vec![] };
        let line = r#"{"prompt": "a cat and a red car", "method": "syngen"}"#;
        assert_eq!(sets(line), (vec![car.clone()], vec![]));
        let line = r#"{"prompt": "a cat and a red car", "method": "syngen",
            "method_params": {"include_entities": true}}"#;
        assert_eq!(sets(line), (vec![cat, car.clone()], vec![]));
        let line = r#"{"prompt": "a cat and a red car", "method": "syngen",
            "method_params": {"sets": [{"noun": "car", "modifiers": ["red"]}]}}"#;
        assert_eq!(sets(line), (vec![car], vec![]));
        let line = r#"{"prompt": "a cat and a frog", "method": "syngen"}"#;
        assert_eq!(sets(line), (vec![], vec!["no_phrases"]));

        for (options, field, code) in [
            (json!({"phrases": ["dog"]}), "method_params.phrases", "subject_not_in_prompt"),
            (json!({"phrases": [5]}), "method_params.phrases[0]", "wrong_type"),
            (json!({"spans": []}), "method_params.spans", "unknown_field"),
        ] {
            let line = json!({"prompt": "a cat", "method": "structure", "method_params": options});
            let error = resolve(&line.to_string()).unwrap_err();
            assert_eq!((error.field(), error.advice().0), (field, code), "{line}: {error}");
        }
        for (options, field, code) in [
            (json!({"sets": [{"noun": "dog"}]}), "method_params.sets", "subject_not_in_prompt"),
            (json!({"sets": [{"nouns": "cat"}]}), "method_params.sets[0].nouns", "wrong_type"),
            (json!({"scale_factor": -1}), "method_params.scale_factor", "out_of_range"),
        ] {
            let line = json!({"prompt": "a cat", "method": "syngen", "method_params": options});
            let error = resolve(&line.to_string()).unwrap_err();
            assert_eq!((error.field(), error.advice().0), (field, code), "{line}: {error}");
        }
    }

    #[test]
    fn further_seeds_need_a_subject_that_can_be_scored() {
        let accept = |line: &str| {
            let got = resolve(line).unwrap();
            let codes: Vec<&str> = got.warnings.iter().map(Warning::code).collect();
            (got.accept.map(|accept| accept.max_seeds), codes)
        };
        let line = r#"{"prompt": "a cat", "accept": {"min_score": 0.5, "max_seeds": 3}}"#;
        assert_eq!(accept(line), (Some(3), vec![]));
        let line = r#"{"prompt": "a cat", "method": "none", "accept": {"min_score": 0.5}}"#;
        assert_eq!(accept(line), (Some(4), vec![]), "plain images are scored, too");
        let line = r#"{"prompt": "abstract mood", "accept": {"min_score": 0.5}}"#;
        assert_eq!(accept(line), (None, vec!["no_subjects", "accept_ignored"]));
    }

    #[test]
    fn a_prompt_that_does_not_fit_is_reported() {
        let prompt = format!("a cat {} and a dog", "very ".repeat(80));
        let got = resolve(&json!({"prompt": prompt}).to_string()).unwrap();
        assert!(matches!(got.warnings[0], Warning::Truncated { field: "prompt", tokens: 10, .. }));
        let said = got.warnings[0].to_string();
        assert!(said.contains("and a dog"), "{said}");
    }

    #[test]
    fn wrong_values_are_named_with_their_remedy() {
        let edit = |field: &str, value: serde_json::Value| {
            let mut line = Map::from_iter([("prompt".to_owned(), json!("a cat and a frog"))]);
            line.insert(field.into(), value);
            serde_json::Value::Object(line).to_string()
        };
        #[rustfmt::skip]
        let table = [
            // line                                        code                     remedy
            (edit("prompt", json!(" \n")),                 "empty",                 "Say what"),
            (edit("prompt", json!("x".repeat(4097))),      "too_long",              "4096 bytes"),
            (edit("prompt", json!("a\u{0}cat")),           "character",             "control"),
            (edit("negative_prompt", json!("\u{1b}[1m")),  "character",             "control"),
            (edit("width", json!(100)),                    "not_a_multiple",        "96 or 112"),
            (edit("height", json!(8)),                     "out_of_range",          "from 16"),
            (edit("width", json!(0)),                      "out_of_range",          "up to 2048"),
            (edit("width", json!(4096)),                   "out_of_range",          "up to 2048"),
            (edit("steps", json!(0)),                      "out_of_range",          "1 to 999"),
            (edit("steps", json!(1000)),                   "out_of_range",          "1 to 999"),
            (edit("guidance_scale", json!(0.5)),           "out_of_range",          "1 (off) to 100"),
            (edit("guidance_scale", json!(1e300)),         "out_of_range",          "1 (off) to 100"),
            (edit("seeds", json!("4..4")),                 "seeds",                 "0..4"),
            (edit("subjects", json!(["dog"])),             "subject_not_in_prompt", "2 cat"),
            (edit("subjects", json!(["#9"])),              "subject_index",         "1 to 5"),
            (edit("subjects", json!([{"indices": []}])),   "subject_empty",         "Name"),
            (edit("subjects", json!(["cat", "#2"])),       "subject_twice",         "once"),
            (edit("subjects", json!(vec!["cat"; 9])),          "too_many_subjects",     "8"),
            (edit("custom_id", json!("../x")),             "character",             "letters"),
            (edit("custom_id", json!("")),                 "out_of_range",          "leave it out"),
            (edit("custom_id", json!("x".repeat(129))),    "too_long",              "128"),
            (edit("accept", json!({"min_score": 1.5})),    "out_of_range",          "0 to 1"),
            (edit("accept", json!({"min_score": -0.1})),   "out_of_range",          "0 to 1"),
            (edit("accept", json!({"min_score": 0.5, "max_seeds": 0})), "out_of_range", "1 to 16"),
            (edit("accept", json!({"min_score": 0.5, "max_seeds": 17})), "out_of_range", "1 to 16"),
            (edit("labels", json!({"k": "x".repeat(65)})), "too_long",              "64"),
        ];
        for (line, want, remedy) in table {
            let error = resolve(&line).unwrap_err();
            let (code, advice) = error.advice();
            assert_eq!(code, want, "{line}: {error}");
            assert!(advice.contains(remedy), "{line}: {advice}");
        }
        let both = r#"{"prompt": "a cat", "seed": 1, "seeds": "1..2"}"#;
        assert_eq!(resolve(both), Err(LineError::SeedAndSeeds));
        let options = r#"{"prompt": "a cat", "method": "none", "method_params": {"gain": 1}}"#;
        assert_eq!(resolve(options), Err(LineError::NoOptions { method: "none" }));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn any_job_is_answered(
            prompt in "\\PC{0,80}|([a-z]{1,8} ){0,90}",
            subject in "\\PC{0,12}|#[0-9]{0,4}",
            (width, steps) in (any::<u32>(), any::<u32>()),
            scale in any::<f64>(),
        ) {
            let line = json!({
                "prompt": prompt, "subjects": [subject], "width": width, "steps": steps,
                "guidance_scale": scale,
            });
            if let Ok(resolved) = resolve(&line.to_string()) {
                prop_assert_eq!(resolved.specs().count() as u64, resolved.seeds.count());
            }
        }
    }
}
