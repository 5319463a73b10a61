//! The worker's loop: the one place that knows what is waiting, running and finishing.
//!
//! A job's path: a delivery joins or begins a job (`held`), is looked at (`prepare`), waits for its
//! micro-batch (`micro_batch`), runs (`execute`), is stored and reported (`finish`); or the worker
//! must go, and it is handed over (`preempt`). Everything that takes time is a task whose end is an
//! [`Event`] here; at most a task a held job, and the broker limits those.

mod stop;

use std::sync::Arc;
use std::time::Duration;

use excite_jobs::progress::{Progress, WorkerState};
use excite_jobs::queue::{Acker, Delivery, Queue};
use excite_jobs::store::{Store, StoreError};
use excite_jobs::{Class, Failure, Job, JobId, MessageError, Outcome, OutcomeKind};
use excite_service::usable;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, error, info, info_span, warn};

use crate::batch_size::BatchSizes;
use crate::beat::Beat;
use crate::breaker::Breaker;
use crate::checkpoints::Checkpoints;
use crate::config::Config;
use crate::execute::{Ended, Executor};
use crate::finish::Finisher;
use crate::held::{Arrival, Held};
use crate::lease::{Closed, Lanes};
use crate::metrics::{Metrics, Redelivery, Stage};
use crate::micro_batch::Waiting;
use crate::models::Models;
use crate::patience::PatientStore;
use crate::pipeline::{Pipeline, Row, RowError};
use crate::prepare::{Prepared, mark, prepare};
use crate::status::{Status, live};
use crate::task::Task;
use crate::watch::Watch;

/// How long the last calls may take when the worker stops.
const LAST_CALLS: Duration = Duration::from_secs(3);

/// What a worker stands on.
#[derive(Clone)]
pub struct Ports {
    /// Where jobs come from and outcomes go.
    pub queue: Arc<dyn Queue>,
    /// Where images go.
    pub store: Arc<dyn Store>,
    /// Where live progress goes.
    pub progress: Arc<dyn Progress>,
}

/// Why a worker ended that nobody told to.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// It cannot paint.
    #[error("the self-test failed: {0}; check the machine, and the program's files")]
    SelfTest(String),
    /// The store would lose images, whatever is tried.
    #[error(transparent)]
    Store(StoreError),
    /// A run stopped moving, and a thread cannot be ended from outside.
    #[error("nothing moved for {} s; the process must be started anew", .0.as_secs())]
    Stuck(Duration),
    /// The compute thread is gone.
    #[error(transparent)]
    Compute(#[from] EndedError),
    /// The queue was closed.
    #[error("the queue was closed")]
    Closed,
}

/// The compute thread ended by itself.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct EndedError(#[from] Ended);

/// A worker.
pub struct Worker {
    config: Config,
    /// Of the machine.
    kind: String,
    ports: Ports,
    models: Option<Arc<Models>>,
    executor: Executor,
    watch: Arc<Watch>,
    status: Arc<Status>,
    finisher: Finisher,
    held: Arc<Held>,
    metrics: Metrics,
    lanes: Lanes,
    waiting: Waiting,
    breaker: Breaker,
    mode: Mode,
    /// Jobs that are looked at, wait or run.
    active: usize,
    /// Jobs that are stored and reported.
    finishing: usize,
    /// The jobs that the compute thread has.
    running: Vec<JobId>,
    /// It is done with them soon: the next ones are made ready.
    ahead: bool,
    /// What the compute thread has: one task at most. A stop does not wait for it.
    compute: JoinSet<Event>,
    tasks: JoinSet<Event>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Taking,
    /// Too many failed: it tests itself once nothing runs.
    Broken,
    /// It finishes what runs.
    Draining,
    /// It hands over what runs.
    Leaving,
}

/// The end of a task.
enum Event {
    Prepared(JobId, Prepared),
    Ran(Vec<Task>, Result<Vec<Row>, Ended>),
    Concluded {
        ran: bool,
        kind: OutcomeKind,
    },
    Tested(Result<(), String>),
    /// A delivery that is no job was reported.
    Refused,
    HandedOver,
}

impl Worker {
    /// Starts the compute thread; `config` must be settled. `models` are those of `pipeline`, to be
    /// told of.
    ///
    /// # Errors
    /// If the operating system gives no thread.
    pub fn new(
        config: Config,
        ports: Ports,
        pipeline: Box<dyn Pipeline>,
        models: Option<Arc<Models>>,
        metrics: Metrics,
    ) -> std::io::Result<Self> {
        let stuck = Duration::from_secs(config.stuck_seconds);
        let machine = pipeline.kind().unwrap_or_else(|| excite_diffusion::kind().to_owned());
        let sizes = Arc::new(BatchSizes::new(config.batch_size, usize::from(config.slots)));
        let watch = Watch::new(config.deadline_factor, stuck).learning(Arc::clone(&sizes));
        let watch = Arc::new(watch);
        let kind = pipeline.kind().filter(|_| config.reuse);
        let executor = Executor::start(pipeline, Arc::clone(&watch), metrics.clone())?;
        let held = Arc::new(Held::default());
        let patience = Duration::from_secs(config.store_patience_seconds);
        let store = PatientStore::new(Arc::clone(&ports.store), patience, metrics.clone());
        let every = Duration::from_secs(config.checkpoint_seconds);
        let checkpoints =
            Checkpoints::new(Arc::clone(&ports.store), metrics.clone(), machine.clone(), every);
        let finisher = Finisher {
            worker: config.name.clone(),
            queue: Arc::clone(&ports.queue),
            store,
            held: Arc::clone(&held),
            checkpoints: Arc::new(checkpoints),
            metrics: metrics.clone(),
            kind,
        };
        let wait = Duration::from_millis(config.micro_batch_wait_milliseconds);
        Ok(Self {
            lanes: Lanes::new(Arc::clone(&ports.queue), &config.class),
            waiting: Waiting::new(sizes, wait),
            breaker: Breaker::new(config.breaker_failures),
            status: Arc::new(Status::new()),
            mode: Mode::Taking,
            active: 0,
            finishing: 0,
            running: Vec::new(),
            ahead: false,
            compute: JoinSet::new(),
            tasks: JoinSet::new(),
            config,
            kind: machine,
            ports,
            models,
            executor,
            watch,
            finisher,
            held,
            metrics,
        })
    }

    /// For `/healthz` and `/readyz`.
    pub fn probes(&self) -> (excite_service::health::Probe, excite_service::health::Probe) {
        let (watch, status) = (Arc::clone(&self.watch), Arc::clone(&self.status));
        let queue = Arc::clone(&self.ports.queue);
        (Arc::new(move || live(&watch)), Arc::new(move || status.ready(&queue)))
    }

    /// Tests itself, then takes jobs until `stop`, and hands over what runs; or until an operator's
    /// drain, and finishes what runs.
    ///
    /// # Errors
    /// If it cannot go on; see [`WorkerError`].
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), WorkerError> {
        let beating = CancellationToken::new();
        let drain = CancellationToken::new();
        let beat = Beat {
            config: self.config.clone(),
            kind: self.kind.clone(),
            progress: Arc::clone(&self.ports.progress),
            queue: Arc::clone(&self.ports.queue),
            watch: Arc::clone(&self.watch),
            status: Arc::clone(&self.status),
            models: self.models.clone(),
            metrics: self.metrics.clone(),
            drain: drain.clone(),
        };
        let beat = tokio::spawn(beat.run(beating.clone()));
        let ended = match self.start(&stop, &drain).await {
            Ok(true) => self.work(&stop, &drain).await,
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        beating.cancel();
        let last = async {
            // The beat may be lost, and so may its end: it expires.
            let _ = beat.await;
            let _ = self.ports.progress.gone(&self.config.name).await;
            self.ports.queue.close().await;
        };
        if tokio::time::timeout(LAST_CALLS, last).await.is_err() {
            warn!("the last calls were cut short");
        }
        ended
    }

    /// Whether the worker is to work; not if it was stopped meanwhile.
    async fn start(
        &self,
        stop: &CancellationToken,
        drain: &CancellationToken,
    ) -> Result<bool, WorkerError> {
        info!(worker = self.config.name, class = self.config.class, "the worker starts");
        let tell = |error: &StoreError| {
            self.status.set(WorkerState::Starting, &format!("the store: {error}"));
        };
        tokio::select! {
            () = stop.cancelled() => return Ok(false),
            () = drain.cancelled() => return Ok(false),
            usable = usable(&*self.ports.store, &self.config.name, tell) => {
                usable.map_err(WorkerError::Store)?;
            }
        }
        self.status.set(WorkerState::Starting, "it tests itself");
        tokio::select! {
            () = stop.cancelled() => return Ok(false),
            () = drain.cancelled() => return Ok(false),
            passed = self.executor.self_test() => passed.map_err(WorkerError::SelfTest)?,
        }
        self.status.set(WorkerState::Ready, "");
        info!(worker = self.config.name, slots = self.config.slots, "the worker takes jobs");
        Ok(true)
    }

    async fn work(
        &mut self,
        stop: &CancellationToken,
        drain: &CancellationToken,
    ) -> Result<(), WorkerError> {
        let mut checks = tokio::time::interval(Duration::from_secs(1));
        checks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut give_up: Option<Instant> = None;
        loop {
            self.subscribe().await;
            if self.launch() {
                // From now on express jobs are others'.
                self.subscribe().await;
            }
            let idle = self.tasks.is_empty();
            if self.mode == Mode::Draining && idle && !self.is_busy()
                || self.mode == Mode::Leaving && idle
            {
                info!("nothing is left to finish");
                return Ok(());
            }
            let due = self.due();
            tokio::select! {
                delivery = self.lanes.next() => match delivery {
                    Ok(delivery) => self.arrive(delivery),
                    Err(Closed) => return Err(WorkerError::Closed),
                },
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok(event) => self.on(event)?,
                    // Its job stays unacknowledged, and is delivered again.
                    Err(panic) => error!(%panic, "a task panicked"),
                },
                Some(ran) = self.compute.join_next() => match ran {
                    Ok(event) => self.on(event)?,
                    Err(panic) => error!(%panic, "a task panicked"),
                },
                () = self.watch.ends_soon() => self.look_ahead().await,
                () = sleep_until(due) => {}
                _ = checks.tick() => self.check().await?,
                () = stop.cancelled(), if self.mode != Mode::Leaving => {
                    let limit = Duration::from_secs(self.config.drain_seconds);
                    give_up = Some(Instant::now() + limit);
                    self.hand_over(limit).await;
                }
                () = drain.cancelled(), if matches!(self.mode, Mode::Taking | Mode::Broken) => {
                    self.drain().await;
                }
                () = sleep_until(give_up) => {
                    self.leave().await;
                    return Ok(());
                }
            }
        }
    }

    /// Express jobs are wanted only while nothing runs, or what runs ends soon: they start at once,
    /// here or elsewhere.
    async fn subscribe(&mut self) {
        let slots = self.breaker.slots(self.config.slots);
        let free = usize::from(slots).saturating_sub(self.active - self.running.len());
        let wanted = (!self.is_busy() || self.ahead) && self.has_room(2);
        let free = if wanted { u16::try_from(free).unwrap_or(slots) } else { 0 };
        let (bulk, express) = match self.mode {
            Mode::Taking => (slots, free),
            Mode::Broken | Mode::Draining | Mode::Leaving => (0, 0),
        };
        for delivery in self.lanes.adjust(bulk, express).await {
            self.arrive(delivery);
        }
    }

    /// The next jobs come while the last ones still run, so that storing, reporting and delivering
    /// cost the compute thread no time.
    async fn look_ahead(&mut self) {
        self.ahead = self.is_busy() && self.mode == Mode::Taking;
        // Of the consumer that is there nothing comes any more: all that it may hold runs.
        let all_run = self.active == self.running.len()
            && self.running.len() >= self.breaker.slots(self.config.slots).into();
        if self.ahead && all_run && self.has_room(1) {
            for delivery in self.lanes.renew_bulk().await {
                self.arrive(delivery);
            }
        }
    }

    /// While the store fails, what is finished piles up; more must not come than so many times the
    /// slots.
    fn has_room(&self, times: usize) -> bool {
        self.finishing <= times * usize::from(self.breaker.slots(self.config.slots))
    }

    /// Whether the compute thread has work.
    fn is_busy(&self) -> bool {
        !self.compute.is_empty()
    }

    /// When the next micro-batch should start.
    fn due(&self) -> Option<Instant> {
        let due = self.waiting.due().filter(|_| !self.is_busy() && self.mode == Mode::Taking)?;
        // What the express queue holds has a moment to come first.
        let wait = Duration::from_millis(self.config.micro_batch_wait_milliseconds);
        let settled = self.lanes.express_since().map(|since| since + wait);
        Some(Instant::from_std(settled.map_or(due, |settled| settled.max(due))))
    }

    fn arrive(&mut self, delivery: Delivery) {
        let Delivery { body, traceparent, redelivered, published_at, acker, .. } = delivery;
        let job = match Job::parse(&body) {
            Ok(job) => job,
            Err(error) => return self.refuse(error, body, traceparent, acker),
        };
        let span = self.span(&job, traceparent.as_deref());
        let id = job.id;
        let arrival = self.held.arrive(job.clone(), traceparent, redelivered, acker);
        self.metrics.held.set(self.held.len() as i64);
        match arrival {
            Arrival::Joined => {
                self.metrics.redelivery(Redelivery::Reattached);
                span.in_scope(|| info!("a job that is here was delivered again"));
            }
            Arrival::Known(kind) => {
                self.metrics.redelivery(Redelivery::Answered);
                self.conclude(id, kind, false);
            }
            Arrival::New => {
                self.active += 1;
                // What comes again waited on a rung, or with another worker.
                if let Some(since) = published_at.filter(|_| !redelivered && job.lease == 1) {
                    self.metrics.waited(job.lane, since);
                }
                let (finisher, watch) = (self.finisher.clone(), Arc::clone(&self.watch));
                let look = async move {
                    Event::Prepared(id, prepare(&finisher, &watch, &job, redelivered).await)
                };
                self.tasks.spawn(look.instrument(span));
            }
        }
    }

    /// Reports what cannot be read: to the dispatcher if it says whose it is, else to a person.
    fn refuse(
        &mut self,
        error: MessageError,
        body: bytes::Bytes,
        traceparent: Option<String>,
        acker: Acker,
    ) {
        warn!(%error, bytes = body.len(), "a message cannot be read");
        let (class, code) = match &error {
            MessageError::Version { .. } => (Class::Incompatible, "version"),
            MessageError::Unreadable { .. } => (Class::Invalid, "unreadable"),
        };
        let failure = Failure::new(class, code, error.to_string());
        let (MessageError::Version { about, .. } | MessageError::Unreadable { about, .. }) = error;
        let finisher = self.finisher.clone();
        self.tasks.spawn(async move {
            match about {
                Some(about) => {
                    let kind = OutcomeKind::Failed(failure);
                    finisher.metrics.jobs.with_label_values(&["", kind.name()]).inc();
                    let outcome = Outcome::about(about, &finisher.worker, kind);
                    finisher.report(outcome, traceparent).await;
                }
                None => finisher.set_aside(body, traceparent).await,
            }
            acker.ack().await;
            Event::Refused
        });
    }

    fn on(&mut self, event: Event) -> Result<(), WorkerError> {
        match event {
            Event::Prepared(id, _) if matches!(self.mode, Mode::Draining | Mode::Leaving) => {
                self.give_back(id);
            }
            Event::Prepared(id, Prepared::Run { alone, checkpoint }) => match self.held.said(id) {
                Some(said) => {
                    let task = Task { job: said.job, checkpoint };
                    self.waiting.push(task, alone, std::time::Instant::now());
                }
                None => self.active -= 1,
            },
            Event::Prepared(id, Prepared::Answer(kind)) => {
                self.active -= 1;
                self.conclude(id, kind, false);
            }
            // They are being handed over.
            Event::Ran(..) if self.mode == Mode::Leaving => {}
            Event::Ran(tasks, rows) => {
                self.running.clear();
                self.active -= tasks.len();
                let rows = rows.map_err(EndedError::from)?;
                for (task, row) in tasks.into_iter().zip(rows) {
                    self.finish(task.job, row);
                }
            }
            Event::Concluded { ran, kind } => {
                self.finishing -= 1;
                if ran && self.breaker.note(&kind) && self.mode == Mode::Taking {
                    warn!("too many jobs failed in a row; the worker tests itself");
                    self.mode = Mode::Broken;
                    self.status.set(WorkerState::Broken, "too many jobs failed in a row");
                }
            }
            Event::Tested(passed) => {
                passed.map_err(WorkerError::SelfTest)?;
                self.breaker.passed();
                if self.mode == Mode::Broken {
                    self.mode = Mode::Taking;
                    self.status.set(WorkerState::Ready, "");
                }
            }
            Event::Refused | Event::HandedOver => {}
        }
        Ok(())
    }

    /// Gives the compute thread what is due; whether there was anything.
    fn launch(&mut self) -> bool {
        if self.mode == Mode::Broken && !self.is_busy() && self.finishing == 0 {
            for task in self.waiting.drain() {
                self.give_back(task.job.id);
            }
            let executor = self.executor.clone();
            self.compute.spawn(async move { Event::Tested(executor.self_test().await) });
            return true;
        }
        if self.due().is_none_or(|due| due > Instant::now()) {
            return false;
        }
        let tasks = self.waiting.take();
        self.ahead = false;
        self.running = tasks.iter().map(|task| task.job.id).collect();
        let mut suspect = false;
        for task in &tasks {
            let job = &task.job;
            self.finisher.checkpoints.begin(job.id, task.steps_made());
            self.held.runs(job.id, task.steps_made());
            let Some(said) = self.held.said(job.id) else { continue };
            suspect |= said.suspect;
            self.metrics.stage(Stage::Queue, said.since.elapsed().as_secs_f64());
            let span = self.span(job, said.traceparent.as_deref());
            span.in_scope(|| info!(micro_batch = tasks.len(), "a job starts"));
            let (finisher, job) = (self.finisher.clone(), said.job);
            // Nobody waits for this one; it ends with its own time-out.
            tokio::spawn(async move { finisher.started(&job, said.traceparent).await });
        }
        let (executor, finisher) = (self.executor.clone(), self.finisher.clone());
        self.compute.spawn(async move {
            if let (true, [task]) = (suspect, tasks.as_slice())
                && let Err(error) = mark(&finisher, &task.job).await
            {
                let failed = RowError::Failed(crate::patience::failure(&error));
                return Event::Ran(tasks, Ok(vec![Err(failed)]));
            }
            let rows = executor.run(tasks.clone()).await;
            Event::Ran(tasks, rows)
        });
        true
    }

    fn finish(&mut self, job: Job, row: Row) {
        match row {
            Ok(product) => {
                self.finishing += 1;
                let span = self.span(&job, None);
                let finisher = self.finisher.clone();
                let finish = async move {
                    let kind = finisher.store(&job, product).await;
                    finisher.conclude(job.id, kind.clone()).await;
                    Event::Concluded { ran: true, kind }
                };
                self.tasks.spawn(finish.instrument(span));
            }
            Err(RowError::Cancelled) => self.conclude(job.id, OutcomeKind::Cancelled, true),
            Err(RowError::Failed(failure)) => {
                self.conclude(job.id, OutcomeKind::Failed(failure), true);
            }
            // Only a worker that leaves abandons, and it waits for no run.
            Err(RowError::Abandoned) => {}
        }
    }

    fn conclude(&mut self, id: JobId, kind: OutcomeKind, ran: bool) {
        self.finishing += 1;
        let Some(said) = self.held.said(id) else {
            self.finishing -= 1;
            return;
        };
        let span = self.span(&said.job, said.traceparent.as_deref());
        let finisher = self.finisher.clone();
        let conclude = async move {
            finisher.conclude(id, kind.clone()).await;
            Event::Concluded { ran, kind }
        };
        self.tasks.spawn(conclude.instrument(span));
    }

    /// A job that has not begun goes back at once.
    fn give_back(&mut self, id: JobId) {
        self.active -= 1;
        let ackers = self.held.give_up(id);
        self.tasks.spawn(async move {
            for acker in ackers {
                acker.requeue().await;
            }
            Event::Refused
        });
    }

    fn span(&self, job: &Job, traceparent: Option<&str>) -> Span {
        info_span!(
            "job",
            batch = %job.batch,
            job = %job.id,
            lease = job.lease,
            attempt = job.attempt,
            worker = self.config.name,
            traceparent = traceparent.unwrap_or_default(),
        )
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
