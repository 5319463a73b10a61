//! Makes images of one pixel, without a model: for measuring everything else.

use std::collections::BTreeMap;
use std::time::Instant;

use excite_diffusion::picture::Picture;
use excite_jobs::{Attention, Sidecar, Spec, VERSION};
use excite_service::failpoint;

use super::{Made, Pipeline, Product, Row, RunError, each};
use crate::task::Task;
use crate::watch::Watch;

/// Where tests let a worker be of another kind, whose pixels differ a little.
const OTHER_KIND: &str = "worker_other_kind";

/// One pixel an image, at once.
#[derive(Debug, Default)]
pub struct Empty;

impl Pipeline for Empty {
    fn render(&mut self, tasks: &[Task], watch: &Watch) -> Result<Vec<Row>, RunError> {
        let started = Instant::now();
        watch.begin(tasks, 0, 1);
        watch.pass(tasks).map_err(RunError::Stopped)?;
        let seconds = each(started, tasks.len());
        let row = |task: &Task| {
            let made = Made::Empty(Box::new(task.job.spec.clone()));
            Ok(Product { made, seconds })
        };
        Ok(tasks.iter().map(row).collect())
    }

    fn free_memory(&mut self, _tasks: &[Task]) -> bool {
        false
    }

    fn self_test(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// A pixel in a colour that follows from the seed.
pub(super) fn png(spec: &Spec) -> excite_diffusion::Result<Vec<u8>> {
    let [_, mut r, g, b] = spec.seed.wrapping_mul(0x9E37_79B9).to_be_bytes();
    if failpoint::is_set(OTHER_KIND) {
        r ^= 1;
    }
    Picture::filled(1, 1, [r, g, b]).to_png_of(spec)
}

pub(super) fn sidecar(
    spec: &Spec,
    sha256: String,
    seconds: f64,
    custom_id: Option<String>,
    labels: BTreeMap<String, String>,
) -> Sidecar {
    Sidecar {
        v: VERSION,
        sha256,
        kind: if failpoint::is_set(OTHER_KIND) { "other".into() } else { "empty".into() },
        seconds,
        custom_id,
        labels,
        spec: spec.clone(),
        tries: Vec::new(),
        adopted: false,
        attention: Attention::default(),
        steps: Vec::new(),
    }
}
