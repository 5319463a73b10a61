//! The guided pipeline: step by step, on the models of the cache.

use std::sync::Arc;
use std::time::{Duration, Instant};

use excite_diffusion::{
    Checkpoint, Error, Model, Outputs, Rendered, Result, Search, StepReport, Wanted,
};
use excite_jobs::Spec;
use tracing::{debug, info, warn};

use super::{Made, Pipeline, Product, Row, RowError, RunError, each, run_error};
use crate::batch_size::Work;
use crate::checkpoints::Resumed;
use crate::metrics::{Metrics, Stage};
use crate::models::{Models, label};
use crate::self_test;
use crate::task::{Task, wanted};
use crate::watch::{Stop, Watch};

/// The guided pipeline.
pub struct Guided {
    models: Arc<Models>,
    metrics: Metrics,
}

/// A micro-batch that runs.
struct Running<'a> {
    search: Search<'a>,
    tasks: &'a [Task],
    watch: &'a Watch,
    metrics: &'a Metrics,
}

impl Guided {
    /// On these models.
    pub fn new(models: Arc<Models>, metrics: Metrics) -> Self {
        Self { models, metrics }
    }

    /// All images of a run with the steps that were made for each, or the reason why there are
    /// none; `None` for a job that was cancelled.
    fn run(
        &self,
        model: &Model,
        tasks: &[Task],
        watch: &Watch,
    ) -> Result<(Vec<Option<Rendered>>, Vec<usize>), RunError> {
        let begun = Instant::now();
        let search =
            self.start(model, tasks).map_err(|error| run_error(&error, watch.pass(tasks)))?;
        let mut running = Running { search, tasks, watch, metrics: &self.metrics };
        let ran = running.run(begun);
        let made = running.search.made();
        if let Err(error) = ran {
            // What was made is lost, but for what another worker goes on with.
            if !matches!(error, RunError::Stopped(Stop::Abandoned)) {
                let lost = running.search.live().map(|place| made[place] as u64).sum();
                self.metrics.steps_wasted.inc_by(lost);
            }
            return Err(error);
        }
        Ok((running.search.finish(), made))
    }

    /// A run at the step where its tasks are: they all are at the same.
    fn start<'m>(&self, model: &'m Model, tasks: &[Task]) -> Result<Search<'m>> {
        let all: Vec<Wanted> = tasks.iter().map(|task| wanted(&task.job)).collect();
        let latents = tasks.iter().any(|task| task.job.outputs.trace);
        let outputs = Outputs { latents, maps: true };
        let checkpoints: Option<Vec<Checkpoint>> =
            tasks.iter().map(|task| task.checkpoint.as_deref().cloned()).collect();
        let Some(checkpoints) = checkpoints else { return Search::start(model, &all, outputs) };
        match Search::resume(model, &all, outputs, &checkpoints) {
            Err(Error::Checkpoint(reason)) => {
                warn!(reason, jobs = tasks.len(), "a saved state does not fit; back to step 0");
                self.metrics.resumed(Resumed::Mismatch);
                Search::start(model, &all, outputs)
            }
            resumed => resumed,
        }
    }
}

impl<'a> Running<'a> {
    /// Round after round, until every image is made or cancelled. The first one began already.
    fn run(&mut self, mut begun: Instant) -> Result<(), RunError> {
        // What a saved state ends with may be judged already.
        self.judge()?;
        while self.search.next_round().map_err(|error| self.error(&error))? {
            let rows: Vec<Task> = self.running().cloned().collect();
            self.watch.begin(&rows, self.search.done(), self.search.steps());
            self.metrics.stage(Stage::Encode, begun.elapsed().as_secs_f64());
            let denoising = Instant::now();
            let steps = self.denoise()?;
            let seconds = denoising.elapsed().as_secs_f64();
            self.metrics.stage(Stage::Denoise, seconds);
            self.watch.made(&rows, steps, seconds);
            let decoding = Instant::now();
            self.search.decode().map_err(|error| self.error(&error))?;
            self.metrics.stage(Stage::Decode, decoding.elapsed().as_secs_f64());
            begun = Instant::now();
        }
        Ok(())
    }

    /// Makes the steps of a round; how many, counted for each image.
    fn denoise(&mut self) -> Result<usize, RunError> {
        let mut steps = 0;
        while self.search.has_step() {
            self.leave()?;
            if !self.search.has_step() {
                break;
            }
            let live: Vec<&Task> = self.live().collect();
            let stop = || self.watch.pass(live.iter().copied()).is_err();
            let report = self.search.step(&stop);
            let report = report.map_err(|error| {
                self.metrics.steps_wasted.inc_by(self.search.rows().len() as u64);
                self.error(&error)
            })?;
            steps += report.losses.len();
            for (row, task) in self.running().enumerate() {
                debug!(job = %task.job.id, step = report.step, "a step");
                match self.search.checkpoint(row) {
                    Ok(checkpoint) => self.watch.boundary(task.job.id, checkpoint),
                    Err(error) => warn!(%error, "the state of a job cannot be kept"),
                }
            }
            self.tell(&report);
            self.judge()?;
        }
        Ok(steps)
    }

    /// Jobs whose try was not good enough leave this round.
    fn judge(&mut self) -> Result<(), RunError> {
        let again = self.search.judge().map_err(|error| self.error(&error))?;
        self.metrics.steps_wasted.inc_by(again as u64);
        Ok(())
    }

    fn tell(&self, report: &StepReport) {
        let rows = self.running().zip(&report.losses).zip(&report.scores);
        let rows = rows.map(|((task, loss), scores)| (task, *loss, scores.as_slice()));
        let took = self.watch.step(report.step, report.steps, rows);
        self.metrics.step_duration.observe(took.as_secs_f64());
        self.metrics.steps.inc_by(report.losses.len() as u64);
        self.learn(report, took);
    }

    fn learn(&self, report: &StepReport, took: Duration) {
        let specs: Vec<&Spec> = self.running().map(|task| &task.job.spec).collect();
        let Some(first) = specs.first() else { return };
        let (images, work) = (specs.len(), Work::of(specs.iter().copied(), report));
        let sizes = self.watch.sizes();
        let changed = sizes.step(first, images, work, took);
        let model = label(&first.model);
        // Memory may have changed the choice since the last step, too.
        self.metrics.batch_size.with_label_values(&[model]).set(sizes.jobs(first) as i64);
        let Some(choice) = changed else { return };
        let jobs = choice.jobs;
        let size = format!("{}x{}", first.width, first.height);
        info!(model, size, jobs, reason = choice.reason, "the size of micro-batches");
    }

    /// Jobs that were cancelled leave the run between two steps.
    fn leave(&mut self) -> Result<(), RunError> {
        let (watch, tasks) = (self.watch, self.tasks);
        let keep = |place: usize| !watch.is_cancelled(tasks[place].job.batch);
        if !self.search.live().any(keep) {
            return Err(RunError::Stopped(Stop::Cancelled));
        }
        let lost = self.search.retain(keep).map_err(|error| run_error(&error, Ok(())))?;
        self.metrics.steps_wasted.inc_by(lost as u64);
        Ok(())
    }

    /// What this round makes steps of.
    fn running(&self) -> impl Iterator<Item = &'a Task> + '_ {
        let tasks = self.tasks;
        self.search.rows().iter().map(move |&place| &tasks[place])
    }

    /// What is not cancelled, in this round or not.
    fn live(&self) -> impl Iterator<Item = &'a Task> + use<'a> {
        let tasks = self.tasks;
        let live: Vec<usize> = self.search.live().collect();
        live.into_iter().map(move |place| &tasks[place])
    }

    fn error(&self, error: &Error) -> RunError {
        run_error(error, self.watch.pass(self.live()))
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
        let sizes = watch.sizes();
        sizes.begin(&model, &first.spec, tasks.len()).map_err(|fits| RunError::TooMany { fits })?;
        let started = Instant::now();
        let ran = self.run(&model, tasks, watch);
        sizes.end(&first.spec, tasks.len());
        let (rendered, made) = ran?;
        let seconds = started.elapsed().as_secs_f64();
        self.metrics
            .gpu_seconds
            .with_label_values(&[self.models.label(&first.spec.model)])
            .inc_by(seconds);
        let all: usize = made.iter().sum();
        let share = |made: usize| match all {
            0 => each(started, tasks.len()),
            all => seconds * made as f64 / all as f64,
        };
        let row = |(rendered, made): (Option<Rendered>, usize)| match rendered {
            Some(rendered) => {
                let made_of = Made::Rendered(Box::new(rendered));
                Ok(Product { made: made_of, seconds: share(made) })
            }
            None => Err(RowError::Cancelled),
        };
        Ok(rendered.into_iter().zip(made).map(row).collect())
    }

    fn free_memory(&mut self, tasks: &[Task]) -> bool {
        tasks.first().is_some_and(|task| self.models.evict_all_but(&task.job.spec.model))
    }

    fn kind(&self) -> Option<String> {
        Some(self.models.compute().kind().to_owned())
    }

    fn self_test(&mut self) -> Result<(), String> {
        let model = self.models.bundled().map_err(|error| error.to_string())?;
        self_test::run(&model)
    }
}
