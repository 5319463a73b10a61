//! A server where something of everything is there to be looked at.

use std::path::{Path, PathBuf};

use excite_tests::lines;
use serde_json::json;

use super::served::Served;

const EMOJI: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/emoji");
/// Bytes that no number and no text has.
const NOISE: [u8; 64] = [0xff; 64];
/// Where in a file of weights.
const AT: usize = 4_000_000;

/// What is there.
pub(crate) struct Scene {
    pub(crate) served: Served,
    /// A batch with all its images, each with a plain one beside it.
    pub(crate) finished: String,
    /// One that is paused.
    pub(crate) paused: String,
    /// One whose jobs are dead: its model is damaged.
    pub(crate) dead: String,
    weights: PathBuf,
    /// What was there before the damage.
    good: Vec<u8>,
}

impl Scene {
    /// Makes all of it; with further arguments for the server, whose `token` may do everything.
    pub(crate) async fn set(args: &[&str], token: Option<&str>) -> Self {
        let other = tempfile::tempdir().unwrap();
        let model = other.path().join("other");
        copy(Path::new(EMOJI), &model);
        let models = ["--model", "emoji", "--model", model.to_str().unwrap()];
        let mut served = Served::start_with(&[&models[..], args].concat()).await;
        served.token = token.map(ToOwned::to_owned);
        let (weights, good) = damage(&served);

        let two = r#"{"prompt": "a cat and a frog", "seeds": "0..2", "steps": 12}"#;
        let query = "name=pairs&compare=true&attention=true&trace=true";
        let finished = served.submit(query, two).await;
        // One try only, for whatever is wrong with files might be mended by others later.
        let query = "name=of+a+damaged+model&model=other&max_attempts=1";
        let dead = served.submit(query, r#"{"prompt": "a dog and a bear", "seeds": "0..2"}"#).await;
        served.finish(&finished).await;
        served.finish(&dead).await;
        let paused = served.submit("name=for+later", &lines(300, 2)).await;
        served.change(&paused, json!({"paused": true})).await;
        Self { served, finished, paused, dead, weights, good }
    }

    /// Mends the damaged model.
    pub(crate) fn mend(&self) {
        std::fs::write(&self.weights, &self.good).unwrap();
    }
}

/// Spoils the largest file of the model in the store.
fn damage(served: &Served) -> (PathBuf, Vec<u8>) {
    let mut files = Vec::new();
    list(&served.folder.path().join("data/store/models/other"), &mut files);
    let weights = files.into_iter().max_by_key(|file| file.metadata().unwrap().len()).unwrap();
    let good = std::fs::read(&weights).unwrap();
    let mut bad = good.clone();
    bad[AT..AT + NOISE.len()].copy_from_slice(&NOISE);
    std::fs::write(&weights, bad).unwrap();
    (weights, good)
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { list(&path, files) } else { files.push(path) }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
