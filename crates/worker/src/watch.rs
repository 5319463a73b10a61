//! What the compute thread does, for those who watch it: deadlines, stuck runs, cancelled jobs,
//! live progress.
//!
//! The compute thread writes here and asks here; it never waits for a server. Not here: who acts on
//! it (`worker`, `beat`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use excite_diffusion::Checkpoint;
use excite_jobs::progress::RunningJob;
use excite_jobs::{BatchId, JobId, Method};
use excite_service::failpoint;
use tokio::sync::Notify;

use crate::batch_size::{BatchSize, BatchSizes};
use crate::config::SLOTS_MAX;
use crate::task::Task;

/// No run may take longer, unless its like were measured to: RabbitMQ gives a delivery up after
/// half an hour.
const RUN_MAX: Duration = Duration::from_secs(20 * 60);
/// What a run may take beyond its steps, seconds.
const GRACE: f64 = 60.;
/// Fetching and loading a model; a slow store has many gigabytes to send.
const LOAD_MAX: Duration = Duration::from_secs(60 * 60);
/// A step may take this many times the usual one before it is stuck.
const STEP_FACTOR: u32 = 20;
/// Steps that the usual one is found from.
const STEPS_KEPT: usize = 65;
/// A run ends soon when its last step begins, or earlier if steps are shorter than this.
const SOON: Duration = Duration::from_millis(50);
/// What ends in less time ends before anything could be made ready.
const SOON_MIN: Duration = Duration::from_millis(10);
/// What takes longer leaves others waiting for too long.
const SOON_MAX: Duration = Duration::from_secs(1);
/// Weight of the newest measurement.
const NEWEST: f64 = 0.3;

/// Why a run must stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// All its jobs were cancelled.
    Cancelled,
    /// It takes far longer than its like.
    Deadline,
    /// The worker stops, and another one will make its images.
    Abandoned,
}

/// What the compute thread does.
#[derive(Debug)]
pub struct Watch {
    state: Mutex<State>,
    cancelled: Mutex<BTreeSet<BatchId>>,
    abandoned: AtomicBool,
    soon: Notify,
    factor: f64,
    stuck: Duration,
    sizes: Arc<BatchSizes>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// The last sign of life.
    moved: Instant,
    /// When the running step began.
    step_began: Instant,
    deadline: Option<Instant>,
    running: Vec<RunningJob>,
    /// Whether another round may follow: then nobody knows when the run ends.
    tries: bool,
    /// Whether the run ends soon; once a run.
    ends_soon: bool,
    /// What each job of the run can go on with elsewhere.
    boundaries: BTreeMap<JobId, Arc<Checkpoint>>,
    steps: VecDeque<Duration>,
    /// Seconds a step and pixel of an image, by model and method.
    pace: BTreeMap<(String, &'static str), f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Loading,
    Running,
}

impl Watch {
    /// Nothing runs. A run may take `factor` times what its like took, and a minute; it is stuck if
    /// it makes no pass for `stuck`.
    pub fn new(factor: f64, stuck: Duration) -> Self {
        let now = Instant::now();
        let state = State {
            phase: Phase::Idle,
            moved: now,
            step_began: now,
            deadline: None,
            running: Vec::new(),
            tries: false,
            ends_soon: false,
            boundaries: BTreeMap::new(),
            steps: VecDeque::new(),
            pace: BTreeMap::new(),
        };
        Self {
            state: Mutex::new(state),
            cancelled: Mutex::default(),
            abandoned: AtomicBool::new(false),
            soon: Notify::new(),
            factor,
            stuck,
            sizes: Arc::new(BatchSizes::new(BatchSize::Auto, SLOTS_MAX.into())),
        }
    }

    /// With these sizes of micro-batches, which are learnt from what runs.
    pub fn learning(self, sizes: Arc<BatchSizes>) -> Self {
        Self { sizes, ..self }
    }

    /// Sizes of micro-batches.
    pub fn sizes(&self) -> &BatchSizes {
        &self.sizes
    }

    // The compute thread says:

    /// A model is fetched or loaded.
    pub fn loading(&self, tasks: &[Task]) {
        let mut state = self.state();
        state.phase = Phase::Loading;
        state.moved = Instant::now();
        state.deadline = None;
        state.running = tasks
            .iter()
            .map(|task| running(task, task.first_step(), task.job.spec.steps as usize))
            .collect();
    }

    /// A run of `steps` steps begins, at step `first`; if it is another round of what runs already,
    /// with as much time again.
    pub fn begin(&self, tasks: &[Task], first: usize, steps: usize) {
        let mut state = self.state();
        let now = Instant::now();
        (state.phase, state.moved, state.step_began) = (Phase::Running, now, now);
        let left = steps.saturating_sub(first);
        state.deadline = now.checked_add(state.limit(tasks, left, self.factor));
        let rows = tasks.iter().map(|task| running(task, first, steps)).collect();
        self.show(&mut state, rows);
        state.tries = tasks.iter().any(|task| task.job.accept.is_some());
        self.note_end(&mut state);
    }

    /// Asked before each pass; a sign of life.
    ///
    /// # Errors
    /// Why the run must stop.
    pub fn pass<'a>(&self, tasks: impl IntoIterator<Item = &'a Task>) -> Result<(), Stop> {
        failpoint::reach("worker_pass");
        let mut state = self.state();
        state.moved = Instant::now();
        let late = state.deadline.is_some_and(|deadline| state.moved > deadline);
        drop(state);
        if self.abandoned.load(Ordering::Relaxed) {
            return Err(Stop::Abandoned);
        }
        if tasks.into_iter().all(|task| self.is_cancelled(task.job.batch)) {
            return Err(Stop::Cancelled);
        }
        if late { Err(Stop::Deadline) } else { Ok(()) }
    }

    /// A step is done: what runs still, with losses and scores.
    pub fn step<'a>(
        &self,
        step: usize,
        steps: usize,
        rows: impl Iterator<Item = (&'a Task, f32, &'a [f32])>,
    ) -> Duration {
        let number = |value: &f32| value.is_finite().then_some(*value);
        let rows = rows.map(|(task, loss, scores)| RunningJob {
            loss: number(&loss),
            scores: scores.iter().map(number).collect(),
            ..running(task, step + 1, steps)
        });
        let mut state = self.state();
        self.show(&mut state, rows.collect());
        state.moved = Instant::now();
        let took = state.moved - state.step_began;
        state.step_began = state.moved;
        state.steps.push_back(took);
        if state.steps.len() > STEPS_KEPT {
            state.steps.pop_front();
        }
        self.note_end(&mut state);
        took
    }

    fn note_end(&self, state: &mut State) {
        if !state.ends_soon && state.has_little_left() {
            state.ends_soon = true;
            self.soon.notify_one();
        }
    }

    /// Shows what moved; what waits for its next try, or for the others, runs still.
    fn show(&self, state: &mut State, mut rows: Vec<RunningJob>) {
        let moved = |id: JobId| rows.iter().any(|row| row.job == id);
        let stays = |known: &&RunningJob| !moved(known.job) && !self.is_cancelled(known.job.batch);
        let others: Vec<RunningJob> = state.running.iter().filter(stays).cloned().collect();
        rows.extend(others);
        state.running = rows;
    }

    /// What a job can go on with elsewhere from now on.
    pub fn boundary(&self, job: JobId, checkpoint: Checkpoint) {
        self.state().boundaries.insert(job, Arc::new(checkpoint));
    }

    /// A run of tasks of one size made `steps` steps in `seconds`, counted for each image.
    pub fn made(&self, tasks: &[Task], steps: usize, seconds: f64) {
        let Some(first) = tasks.first() else { return };
        let measured = seconds / work(std::slice::from_ref(first), steps).max(1.);
        let mut state = self.state();
        // The slowest method decides: that a mixed run is slower than its fastest is no surprise.
        let slow = tasks.iter().find(|task| task.job.spec.method != Method::None);
        let spec = &slow.unwrap_or(first).job.spec;
        let key = (spec.model.clone(), spec.method.name().as_str());
        let known = state.pace.get(&key).copied().unwrap_or(measured);
        state.pace.insert(key, known + NEWEST * (measured - known));
    }

    /// The compute thread waits for work.
    pub fn idle(&self) {
        let mut state = self.state();
        (state.phase, state.moved, state.deadline) = (Phase::Idle, Instant::now(), None);
        state.running.clear();
        state.ends_soon = false;
        // Who hands jobs over still needs them.
        if !self.abandoned.load(Ordering::Relaxed) {
            state.boundaries.clear();
        }
    }

    // The others say and ask:

    /// What runs now.
    pub fn running(&self) -> Vec<RunningJob> {
        self.state().running.clone()
    }

    /// Waits until a run ends soon: within its last step, and in time for the next to be made
    /// ready. Of a run of which that cannot be said nothing is said. Loses nothing when it is
    /// dropped.
    pub async fn ends_soon(&self) {
        loop {
            self.soon.notified().await;
            // It may have ended since.
            if self.state().ends_soon {
                return;
            }
        }
    }

    /// What a job of this run can go on with elsewhere; `None` before its first step here.
    pub fn boundary_of(&self, job: JobId) -> Option<Arc<Checkpoint>> {
        self.state().boundaries.get(&job).cloned()
    }

    /// For how long nothing moved, if that is too long.
    pub fn stuck(&self) -> Option<Duration> {
        let state = self.state();
        let still = state.moved.elapsed();
        let limit = match state.phase {
            Phase::Idle => return None,
            Phase::Loading => LOAD_MAX.max(self.stuck),
            Phase::Running => self.stuck.max(state.usual_step() * STEP_FACTOR),
        };
        (still > limit).then_some(still)
    }

    /// These batches are cancelled, and no others.
    pub fn set_cancelled(&self, batches: BTreeSet<BatchId>) {
        *self.cancelled.lock().unwrap_or_else(PoisonError::into_inner) = batches;
    }

    /// Whether a batch is cancelled.
    pub fn is_cancelled(&self, batch: BatchId) -> bool {
        self.cancelled.lock().unwrap_or_else(PoisonError::into_inner).contains(&batch)
    }

    /// What runs stops at its next pass, for good.
    pub fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn usual_step(&self) -> Duration {
        let mut steps: Vec<Duration> = self.steps.iter().copied().collect();
        steps.sort_unstable();
        steps.get(steps.len() / 2).copied().unwrap_or_default()
    }

    fn has_little_left(&self) -> bool {
        let left = self.running.iter().map(|row| row.steps.saturating_sub(row.step)).max();
        let left = left.unwrap_or(0);
        let rest = self.usual_step() * left;
        let little = left == 1 || rest <= SOON;
        !self.tries && little && (SOON_MIN..=SOON_MAX).contains(&rest)
    }

    /// How long a run may take.
    fn limit(&self, tasks: &[Task], steps: usize, factor: f64) -> Duration {
        let paces = tasks.iter().map(|task| {
            let spec = &task.job.spec;
            let key = (spec.model.clone(), spec.method.name().as_str());
            self.pace.get(&key).copied()
        });
        // Unknown if one is unknown.
        let slowest = paces.reduce(|a, b| Some(f64::max(a?, b?))).flatten();
        let Some(pace) = slowest else { return RUN_MAX };
        let expected = pace * work(tasks, steps);
        let seconds = (factor * expected + GRACE).min(RUN_MAX.as_secs_f64());
        let seconds = seconds.max(1.5 * expected + GRACE);
        Duration::try_from_secs_f64(seconds).unwrap_or(RUN_MAX)
    }
}

/// Steps times pixels of all images.
fn work(tasks: &[Task], steps: usize) -> f64 {
    let pixels = |task: &Task| f64::from(task.job.spec.width) * f64::from(task.job.spec.height);
    tasks.iter().map(pixels).sum::<f64>() * steps as f64
}

fn running(task: &Task, step: usize, steps: usize) -> RunningJob {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let (job, step, steps) = (task.job.id, count(step), count(steps));
    RunningJob { job, step, steps, loss: None, scores: Vec::new() }
}

#[cfg(test)]
mod tests {
    use excite_jobs::Accept;
    use futures::FutureExt;

    use super::*;
    use crate::examples::task;

    fn limit(watch: &Watch, tasks: &[Task], steps: usize) -> f64 {
        watch.state().limit(tasks, steps, watch.factor).as_secs_f64()
    }

    #[test]
    fn a_deadline_grows_with_the_work() {
        let watch = Watch::new(4., Duration::from_secs(120));
        let one = [task(0)];
        assert_eq!(limit(&watch, &one, 50), 1200., "unknown: generous");
        watch.made(&one, 50, 10.);
        assert!((limit(&watch, &one, 50) - 100.).abs() < 1e-6);
        assert!((limit(&watch, &[task(0), task(1)], 50) - 140.).abs() < 1e-6);
        assert!((limit(&watch, &one, 5000) - 1560.).abs() < 1e-6, "longer, as it was measured");
        watch.made(&one, 50, 20.);
        assert!((limit(&watch, &one, 50) - 112.).abs() < 1e-6, "the newest counts for a part");
        let mut other = task(1);
        other.job.spec.model = "other@0".into();
        assert_eq!(limit(&watch, &[other], 50), 1200.);
    }

    #[test]
    fn a_run_stops_when_all_its_jobs_are_cancelled_or_it_is_late() {
        let watch = Watch::new(4., Duration::from_secs(120));
        let mut other = task(1);
        other.job.batch = BatchId::new();
        let jobs = [task(0), other];
        watch.begin(&jobs, 0, 2);
        assert_eq!(watch.pass(&jobs), Ok(()));
        watch.set_cancelled(BTreeSet::from([jobs[0].job.batch]));
        assert_eq!(watch.pass(&jobs), Ok(()));
        assert_eq!(watch.pass(&jobs[..1]), Err(Stop::Cancelled));
        watch.state().deadline = Some(Instant::now());
        assert_eq!(watch.pass(&jobs), Err(Stop::Deadline));
        watch.abandon();
        assert_eq!(watch.pass(&jobs), Err(Stop::Abandoned));
    }

    #[test]
    fn what_waits_for_its_next_try_runs_still_unless_it_is_cancelled() {
        let watch = Watch::new(4., Duration::from_secs(120));
        let mut other = task(1);
        other.job.batch = BatchId::new();
        other.job.id = JobId::new(other.job.batch, 1);
        let jobs = [task(0), other];
        watch.begin(&jobs, 0, 2);
        let steps = |watch: &Watch| -> Vec<(u32, u32)> {
            watch.running().iter().map(|row| (row.job.index, row.step)).collect()
        };
        watch.step(0, 2, [(&jobs[0], 0.5, &[][..])].into_iter());
        assert_eq!(steps(&watch), [(0, 1), (1, 0)]);
        watch.begin(&jobs[1..], 0, 2);
        assert_eq!(steps(&watch), [(1, 0), (0, 1)], "another round");
        watch.set_cancelled(BTreeSet::from([jobs[1].job.batch]));
        watch.step(1, 2, [(&jobs[0], 0.5, &[][..])].into_iter());
        assert_eq!(steps(&watch), [(0, 2)]);
    }

    #[test]
    fn a_run_says_once_that_it_ends_soon_if_that_can_be_known() {
        let (milliseconds, mut tries) = (Duration::from_millis, task(0));
        tries.job.accept = Some(Accept { min_score: 0.5, max_seeds: 2 });
        // After which step, of five, with steps that take so long.
        for (step, job, said) in [
            (milliseconds(100), task(0), vec![3]),
            (milliseconds(20), task(0), vec![2]),
            (milliseconds(3), task(0), vec![0]),
            (milliseconds(1), task(0), vec![]),
            (milliseconds(1100), task(0), vec![]),
            (milliseconds(100), tries, vec![]),
        ] {
            let watch = Watch::new(4., Duration::from_secs(120));
            watch.state().steps.extend([step; STEPS_KEPT]);
            let jobs = [job];
            for _ in 0..2 {
                watch.begin(&jobs, 0, 5);
                let mut found = Vec::new();
                for n in 0..5 {
                    watch.step(n, 5, [(&jobs[0], 0.5, &[][..])].into_iter());
                    if watch.ends_soon().now_or_never().is_some() {
                        found.push(n);
                    }
                }
                assert_eq!(found, said, "{step:?}");
                watch.idle();
            }
        }
        let watch = Watch::new(4., Duration::from_secs(120));
        watch.state().steps.extend([milliseconds(100); STEPS_KEPT]);
        let jobs = [task(0), task(1)];
        watch.loading(&jobs);
        watch.begin(&jobs[..1], 0, 1);
        assert_eq!(watch.ends_soon().now_or_never(), None, "the other one comes after it");
        watch.begin(&jobs[1..], 0, 1);
        watch.idle();
        assert_eq!(watch.ends_soon().now_or_never(), None, "it has ended");
    }

    #[test]
    fn only_what_runs_can_be_stuck() {
        let watch = Watch::new(4., Duration::ZERO);
        assert_eq!(watch.stuck(), None);
        watch.begin(&[task(0)], 0, 2);
        while watch.stuck().is_none() {
            std::thread::yield_now();
        }
        watch.step(0, 2, [(&task(0), 0.5, &[f32::NAN][..])].into_iter());
        let running = watch.running();
        assert_eq!((running[0].step, running[0].loss), (1, Some(0.5)));
        assert_eq!(running[0].scores, [None]);
        watch.loading(&[task(0)]);
        assert_eq!(watch.stuck(), None);
        watch.idle();
        assert!(watch.running().is_empty());
    }
}
