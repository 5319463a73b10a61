//! What version 1 wrote is read by whatever comes after it, and written again without loss: a
//! worker or dispatcher of one version lives beside those of the next while they are replaced.
//!
//! The files are what a cluster stored, and its messages. They are never changed; a version that
//! adds a field adds files.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says why by ending")]

use std::path::{Path, PathBuf};

use excite_jobs::{
    Batch, Control, Cursor, Done, Idempotency, Job, Leader, ModelCard, Outcome, OutcomeKind,
    Sidecar, Summary,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/v1");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = files.collect();
    files.sort();
    files
}

/// What is written of what was read: all that was there, whatever is new beside it.
fn again<T: DeserializeOwned + Serialize>(text: &str) -> Value {
    serde_json::to_value(serde_json::from_str::<T>(text).unwrap()).unwrap()
}

fn assert_within(old: &Value, new: &Value, path: &str) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (name, value) in old {
                let path = format!("{path}.{name}");
                // What is not there and what is `null` say the same.
                assert_within(value, new.get(name).unwrap_or(&Value::Null), &path);
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            assert_eq!(old.len(), new.len(), "{path}");
            for (at, (old, new)) in old.iter().zip(new).enumerate() {
                assert_within(old, new, &format!("{path}[{at}]"));
            }
        }
        (Value::Number(old), Value::Number(new)) => {
            // Scores travel as text of single precision.
            let (old, new) = (old.as_f64().unwrap(), new.as_f64().unwrap());
            assert!((old - new).abs() <= 1e-6 * old.abs(), "{path}: {old} became {new}");
        }
        _ => assert_eq!(old, new, "{path}"),
    }
}

#[test]
fn what_version_1_stored_and_sent_is_read_and_written_again() {
    let mut seen = 0;
    for file in files() {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        let new = match name.split('_').next().unwrap() {
            "batch" => again::<Batch>(&text),
            "control" => again::<Control>(&text),
            "cursor" => again::<Cursor>(&text),
            "done" => again::<Done>(&text),
            "idempotency" => again::<Idempotency>(&text),
            "job" => again::<Job>(&text),
            "leader" => again::<Leader>(&text),
            "model" => again::<ModelCard>(&text),
            "sidecar" => again::<Sidecar>(&text),
            "summary" => again::<Summary>(&text),
            other => panic!("nobody reads {other}"),
        };
        assert_within(&serde_json::from_str(&text).unwrap(), &new, &name);
        seen += 1;
    }
    assert!(seen >= 20, "{seen} files");
}

#[test]
fn every_outcome_of_version_1_is_understood() {
    let mut kinds = Vec::new();
    for file in files() {
        let text = std::fs::read_to_string(&file).unwrap();
        if !text.contains(r#""type": "outcome""#) {
            continue;
        }
        let Control::Outcome(Outcome { kind, lease, .. }) = serde_json::from_str(&text).unwrap()
        else {
            panic!("{} is no outcome", file.display());
        };
        assert_eq!(lease, 1);
        if let OutcomeKind::Preempted { checkpoint, step } = &kind {
            assert!(checkpoint.is_some() && *step == 2);
        }
        kinds.push(kind.name());
    }
    kinds.sort_unstable();
    assert_eq!(kinds, ["cancelled", "failed", "preempted", "started", "succeeded"]);
}
