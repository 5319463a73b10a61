//! The guided pipeline: step by step, on the models of the cache.

use std::sync::Arc;
use std::time::Instant;

use excite_diffusion::{Checkpoint, Error, Model, Outputs, Rendered, Run, StepReport};
use excite_jobs::Spec;
use tracing::{debug, warn};

use super::{Made, Pipeline, Product, Row, RowError, RunError, each, run_error};
use crate::checkpoints::Resumed;
use crate::metrics::{Metrics, Stage};
use crate::models::Models;
use crate::self_test;
use crate::task::Task;
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
        tasks: &[Task],
        watch: &Watch,
    ) -> Result<Vec<Option<Rendered>>, RunError> {
        let begun = Instant::now();
        let mut run =
            self.start(model, tasks).map_err(|error| run_error(&error, watch.pass(tasks)))?;
        let first = run.done();
        watch.begin(tasks, first, run.steps());
        self.metrics.stage(Stage::Encode, begun.elapsed().as_secs_f64());
        let denoising = Instant::now();
        let mut live: Vec<usize> = (0..tasks.len()).collect();
        let denoised = self.denoise(&mut run, &mut live, tasks, watch);
        if let Err(error) = denoised {
            // What was made is lost, but for what another worker goes on with.
            if !matches!(error, RunError::Stopped(Stop::Abandoned)) {
                self.metrics.steps_wasted.inc_by(((run.done() - first) * live.len()) as u64);
            }
            return Err(error);
        }
        self.metrics.stage(Stage::Denoise, denoising.elapsed().as_secs_f64());
        watch.made(tasks, run.steps() - first, denoising.elapsed().as_secs_f64());
        let decoding = Instant::now();
        let rendered = run.finish().map_err(|error| run_error(&error, watch.pass(tasks)))?;
        self.metrics.stage(Stage::Decode, decoding.elapsed().as_secs_f64());
        let mut all: Vec<Option<Rendered>> = tasks.iter().map(|_| None).collect();
        for (place, rendered) in live.into_iter().zip(rendered) {
            all[place] = Some(rendered);
        }
        Ok(all)
    }

    /// A run at the step where its tasks are: they all are at the same.
    fn start<'m>(&self, model: &'m Model, tasks: &[Task]) -> excite_diffusion::Result<Run<'m>> {
        let specs: Vec<Spec> = tasks.iter().map(|task| task.job.spec.clone()).collect();
        let latents = tasks.iter().any(|task| task.job.outputs.trace);
        let outputs = Outputs { latents, maps: true };
        let checkpoints: Option<Vec<Checkpoint>> =
            tasks.iter().map(|task| task.checkpoint.as_deref().cloned()).collect();
        let Some(checkpoints) = checkpoints else { return Run::start(model, &specs, outputs) };
        match Run::resume(model, &specs, outputs, &checkpoints) {
            Err(Error::Checkpoint(reason)) => {
                warn!(reason, jobs = tasks.len(), "a saved state does not fit; back to step 0");
                self.metrics.resumed(Resumed::Mismatch);
                Run::start(model, &specs, outputs)
            }
            resumed => resumed,
        }
    }

    fn denoise(
        &self,
        run: &mut Run<'_>,
        live: &mut Vec<usize>,
        tasks: &[Task],
        watch: &Watch,
    ) -> Result<(), RunError> {
        while run.done() < run.steps() {
            self.leave(run, live, tasks, watch)?;
            let running = || live.iter().map(|&place| &tasks[place]);
            let stop = || watch.pass(running()).is_err();
            let report = run.step(&stop).map_err(|error| {
                self.metrics.steps_wasted.inc_by(live.len() as u64);
                run_error(&error, watch.pass(running()))
            })?;
            for (row, task) in running().enumerate() {
                debug!(job = %task.job.id, step = report.step, "a step");
                match run.checkpoint(row) {
                    Ok(checkpoint) => watch.boundary(task.job.id, checkpoint),
                    Err(error) => warn!(%error, "the state of a job cannot be kept"),
                }
            }
            self.tell(&report, running(), watch);
        }
        Ok(())
    }

    fn tell<'a>(&self, report: &StepReport, tasks: impl Iterator<Item = &'a Task>, watch: &Watch) {
        let rows = tasks.zip(&report.losses).zip(&report.scores);
        let rows = rows.map(|((task, loss), scores)| (task, *loss, scores.as_slice()));
        let took = watch.step(report.step, report.steps, rows);
        self.metrics.step_duration.observe(took.as_secs_f64());
        self.metrics.steps.inc_by(report.losses.len() as u64);
    }

    /// Jobs that were cancelled leave the run between two steps.
    fn leave(
        &self,
        run: &mut Run<'_>,
        live: &mut Vec<usize>,
        tasks: &[Task],
        watch: &Watch,
    ) -> Result<(), RunError> {
        let keep: Vec<bool> =
            live.iter().map(|&place| !watch.is_cancelled(tasks[place].job.batch)).collect();
        if !keep.contains(&true) {
            return Err(RunError::Stopped(Stop::Cancelled));
        }
        let leaving = keep.iter().filter(|keep| !**keep).count();
        if leaving > 0 {
            run.retain(&keep).map_err(|error| run_error(&error, Ok(())))?;
            let first = tasks.first().map_or(0, Task::first_step);
            self.metrics.steps_wasted.inc_by((leaving * run.done().saturating_sub(first)) as u64);
            let mut keep = keep.into_iter();
            live.retain(|_| keep.next().unwrap_or(true));
        }
        Ok(())
    }
}

impl Pipeline for Guided {
    fn render(&mut self, tasks: &[Task], watch: &Watch) -> Result<Vec<Row>, RunError> {
        let Some(Task { job: first, .. }) = tasks.first() else { return Ok(Vec::new()) };
        watch.loading(tasks);
        let model =
            self.models.get(&first.spec.model).map_err(|error| match error.is_out_of_memory() {
                true => RunError::OutOfMemory(error.to_string()),
                false => RunError::Model(error.failure()),
            })?;
        let started = Instant::now();
        let rendered = self.run(&model, tasks, watch)?;
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

    fn free_memory(&mut self, tasks: &[Task]) -> bool {
        tasks.first().is_some_and(|task| self.models.evict_all_but(&task.job.spec.model))
    }

    fn self_test(&mut self) -> Result<(), String> {
        let model = self.models.bundled().map_err(|error| error.to_string())?;
        self_test::run(&model)
    }
}
