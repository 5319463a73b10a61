//! What lines come to, and how they are refused.

use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;
use crate::method::{NounPhrase, NounSet, WeightedPhrase};

macro_rules! data {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/emoji/tokenizer/", $name))
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
    let tokenizer =
        ONE.get_or_init(|| Tokenizer::new(data!("vocab.json"), data!("merges.txt"), None).unwrap());
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
        assert_eq!((&got.first.method, got.warnings), (&Method::None, vec![Warning::NoSubjects]));
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
