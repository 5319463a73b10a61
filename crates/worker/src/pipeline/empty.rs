//! Makes images of one pixel, without a model: for measuring everything else. At once, or in steps
//! that take their time but no processor, as those of a GPU do.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use excite_diffusion::picture::Picture;
use excite_jobs::{Attention, Sidecar, Spec, VERSION};
use excite_service::failpoint;

use super::{Made, Pipeline, Product, Row, RunError, each};
use crate::metrics::Metrics;
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
        Ok(rows(tasks, started))
    }

    fn free_memory(&mut self, _tasks: &[Task]) -> bool {
        false
    }

    fn self_test(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// One pixel an image, after the steps of its spec.
#[derive(Debug)]
pub struct Paced {
    step: Duration,
    metrics: Metrics,
}

impl Paced {
    /// Each step of a micro-batch takes `step`.
    pub fn new(step: Duration, metrics: Metrics) -> Self {
        Self { step, metrics }
    }
}

impl Pipeline for Paced {
    fn render(&mut self, tasks: &[Task], watch: &Watch) -> Result<Vec<Row>, RunError> {
        let started = Instant::now();
        let steps = tasks.first().map_or(0, |task| task.job.spec.steps as usize);
        watch.begin(tasks, 0, steps);
        for step in 0..steps {
            watch.pass(tasks).map_err(RunError::Stopped)?;
            thread::sleep(self.step);
            let rows = tasks.iter().map(|task| (task, f32::NAN, &[][..]));
            let took = watch.step(step, steps, rows);
            self.metrics.step_duration.observe(took.as_secs_f64());
            self.metrics.steps.inc_by(tasks.len() as u64);
        }
        Ok(rows(tasks, started))
    }

    fn free_memory(&mut self, _tasks: &[Task]) -> bool {
        false
    }

    /// What costs so much is looked for before it is made.
    fn kind(&self) -> Option<String> {
        Some("empty".to_owned())
    }

    fn self_test(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// What was made of all tasks since then.
fn rows(tasks: &[Task], started: Instant) -> Vec<Row> {
    let seconds = each(started, tasks.len());
    let row = |task: &Task| {
        let made = Made::Empty(Box::new(task.job.spec.clone()));
        Ok(Product { made, seconds })
    };
    tasks.iter().map(row).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples::task;

    #[test]
    fn steps_take_their_time_and_are_counted() {
        let metrics = Metrics::new("test").unwrap();
        let step = Duration::from_millis(5);
        let mut task = task(0);
        task.job.spec.steps = 3;
        let watch = Watch::new(4., Duration::from_secs(120));
        let rows = Paced::new(step, metrics.clone()).render(&[task.clone(), task], &watch);
        let rows = rows.unwrap();
        assert!(rows.iter().all(|row| row.as_ref().unwrap().seconds >= 0.0075), "{rows:?}");
        assert_eq!((rows.len(), metrics.steps.get()), (2, 6));
        assert_eq!(metrics.step_duration.get_sample_count(), 3);
        assert!(metrics.step_duration.get_sample_sum() >= 0.015);
        assert_eq!(watch.running()[0].step, 3);
    }
}
