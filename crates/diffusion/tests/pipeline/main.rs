//! The pipeline on the bundled model: against diffusers' figures, against itself in other batches
//! and after interruptions, against central differences, and on broken models.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "differences are shown with --nocapture")]

mod broken_models;
mod checkpoints;
mod contract;
mod forms;
mod formula;
mod golden;
#[cfg(feature = "cuda")]
mod gpu;
mod gradient;
mod methods;
mod same_bytes;
mod schedulers;
mod search;

use std::path::PathBuf;
use std::sync::OnceLock;

use excite_diffusion::{Folder, Model};
use excite_jobs::{Line, Spec};

fn project() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn emoji() -> &'static Model {
    static ONE: OnceLock<Model> = OnceLock::new();
    ONE.get_or_init(|| Model::load(&Folder::Directory(project().join("models/emoji"))).unwrap())
}

/// The specs of a job line on the bundled model.
fn specs(line: &str) -> Vec<Spec> {
    let line = Line::parse(line).unwrap();
    line.resolve(&emoji().facts(), emoji().tokenizer()).unwrap().specs().collect()
}

fn never() -> bool {
    false
}
