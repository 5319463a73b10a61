//! The guided pipeline: step by step, on the models of the cache.

use std::sync::Arc;
use std::time::Instant;

use excite_diffusion::{Error, Model, Outputs, Rendered, Run, StepReport};
use excite_jobs::{Job, Spec};

use super::{Made, Pipeline, Product, Row, RowError, RunError, each, run_error};
use crate::metrics::{Metrics, Stage};
use crate::models::Models;
use crate::self_test;
use crate::watch::{Stop, Watch};

/// The guided pipeline.
pub struct Guided {
    models: Arc<Models>,
    metrics: Metrics,
}

impl Guided {
    /// On these models.
    pub fn new(models: Arc<Models>, metrics: Metrics) -> Self {
        Self { models, metrics }
    }

    /// All images of a run, or the reason why there are none; `None` for a job that was cancelled.
    fn run(
        &self,
        model: &Model,
        jobs: &[Job],
        watch: &Watch,
    ) -> Result<Vec<Option<Rendered>>, RunError> {
        let begun = Instant::now();
        let specs: Vec<Spec> = jobs.iter().map(|job| job.spec.clone()).collect();
        let latents = jobs.iter().any(|job| job.outputs.trace);
        let failed = |error: &Error| run_error(error, watch.pass(jobs));
        let mut run =
            Run::start(model, &specs, Outputs { latents, maps: true }).map_err(|e| failed(&e))?;
        watch.begin(jobs, run.steps());
        self.metrics.stage(Stage::Encode, begun.elapsed().as_secs_f64());
        let denoising = Instant::now();
        let mut live: Vec<usize> = (0..jobs.len()).collect();
        while run.done() < run.steps() {
            leave(&mut run, &mut live, jobs, watch)?;
            let running = || live.iter().map(|&place| &jobs[place]);
            let stop = || watch.pass(running()).is_err();
            let report =
                run.step(&stop).map_err(|error| run_error(&error, watch.pass(running())))?;
            self.tell(&report, running(), watch);
        }
        self.metrics.stage(Stage::Denoise, denoising.elapsed().as_secs_f64());
        watch.made(jobs, run.steps(), denoising.elapsed().as_secs_f64());
        let decoding = Instant::now();
        let rendered = run.finish().map_err(|e| failed(&e))?;
        self.metrics.stage(Stage::Decode, decoding.elapsed().as_secs_f64());
        let mut all: Vec<Option<Rendered>> = jobs.iter().map(|_| None).collect();
        for (place, rendered) in live.into_iter().zip(rendered) {
            all[place] = Some(rendered);
        }
        Ok(all)
    }

    fn tell<'a>(&self, report: &StepReport, jobs: impl Iterator<Item = &'a Job>, watch: &Watch) {
        let rows = jobs.zip(&report.losses).zip(&report.scores);
        let rows = rows.map(|((job, loss), scores)| (job, *loss, scores.as_slice()));
        let took = watch.step(report.step, report.steps, rows);
        self.metrics.step_duration.observe(took.as_secs_f64());
        self.metrics.steps.inc_by(report.losses.len() as u64);
    }
}

/// Jobs that were cancelled leave the run between two steps.
fn leave(
    run: &mut Run<'_>,
    live: &mut Vec<usize>,
    jobs: &[Job],
    watch: &Watch,
) -> Result<(), RunError> {
    let keep: Vec<bool> =
        live.iter().map(|&place| !watch.is_cancelled(jobs[place].batch)).collect();
    if !keep.contains(&true) {
        return Err(RunError::Stopped(Stop::Cancelled));
    }
    if keep.contains(&false) {
        run.retain(&keep).map_err(|error| run_error(&error, Ok(())))?;
        let mut keep = keep.into_iter();
        live.retain(|_| keep.next().unwrap_or(true));
    }
    Ok(())
}

impl Pipeline for Guided {
    fn render(&mut self, jobs: &[Job], watch: &Watch) -> Result<Vec<Row>, RunError> {
        let Some(first) = jobs.first() else { return Ok(Vec::new()) };
        watch.loading(jobs);
        let model =
            self.models.get(&first.spec.model).map_err(|error| match error.is_out_of_memory() {
                true => RunError::OutOfMemory(error.to_string()),
                false => RunError::Model(error.failure()),
            })?;
        let started = Instant::now();
        let rendered = self.run(&model, jobs, watch)?;
        self.metrics
            .gpu_seconds
            .with_label_values(&[self.models.label(&first.spec.model)])
            .inc_by(started.elapsed().as_secs_f64());
        let seconds = each(started, rendered.len());
        let row = |rendered: Option<Rendered>| match rendered {
            Some(rendered) => Ok(Product { made: Made::Rendered(Box::new(rendered)), seconds }),
            None => Err(RowError::Cancelled),
        };
        Ok(rendered.into_iter().map(row).collect())
    }

    fn free_memory(&mut self, jobs: &[Job]) -> bool {
        jobs.first().is_some_and(|job| self.models.evict_all_but(&job.spec.model))
    }

    fn self_test(&mut self) -> Result<(), String> {
        let model = self.models.bundled().map_err(|error| error.to_string())?;
        self_test::run(&model)
    }
}
