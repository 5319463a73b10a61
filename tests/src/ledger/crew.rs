//! The services of a ledger: two dispatchers and three workers, each on a port of its own, killed
//! and started again as often as one likes.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::{Port, Program, Try, built, eventually};

/// A worker that is told to stop is gone by then, as the deadline of a pod demands.
pub(super) const STOP_MAX: Duration = Duration::from_secs(20);
const READY_MAX: Duration = Duration::from_secs(180);

/// Jobs that a worker of images runs at a time.
pub(super) const SLOTS: u64 = 2;
/// Jobs that the worker without a model runs at a time.
const VOLUME_SLOTS: &str = "16";

/// The class of the jobs that need no model: they are for volume.
pub(super) const VOLUME: &str = "volume";

/// What a service does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Dispatcher,
    /// Makes images.
    Worker,
    /// Makes single pixels, many a second.
    Volume,
}

/// A service, running or not.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) role: Role,
    pub(super) name: String,
    port: Port,
    program: Option<Program>,
    /// The point where it will crash.
    pub(super) armed: Option<&'static str>,
    /// When it starts again, while it does not run.
    back_at: Option<Instant>,
}

/// All services of a ledger.
#[derive(Debug)]
pub(super) struct Crew {
    env: Vec<(String, String)>,
    pub(super) seats: Vec<Seat>,
    /// Steps that were begun with and done, by job.
    pub(super) steps: BTreeMap<String, u64>,
    /// What a service did that it must not do.
    pub(super) violations: Vec<String>,
}

impl Crew {
    /// Starts all of them and waits until they are ready.
    pub(super) async fn start(cluster: &Cluster) -> Result<Self> {
        let env: Vec<(String, String)> = cluster.env().collect();
        let mut seats = Vec::new();
        for (role, name) in [
            (Role::Dispatcher, "dispatcher-1"),
            (Role::Dispatcher, "dispatcher-2"),
            (Role::Worker, "worker-1"),
            (Role::Worker, "worker-2"),
            (Role::Volume, "volume-1"),
        ] {
            let port = Port::free()?;
            let name = name.to_owned();
            seats.push(Seat { role, name, port, program: None, armed: None, back_at: None });
        }
        let (steps, violations) = (BTreeMap::new(), Vec::new());
        let mut crew = Self { env, seats, steps, violations };
        crew.launch(0, None)?;
        crew.ready(0).await?;
        for (name, class) in [("emoji", "default"), (VOLUME, VOLUME)] {
            let push = ["model", "push", "emoji", "--name", name, "--class", class];
            cluster.excite_at(&crew.seats[0].url(), &push).await?;
        }
        for at in 1..crew.seats.len() {
            crew.launch(at, None)?;
        }
        for at in 1..crew.seats.len() {
            crew.ready(at).await?;
        }
        Ok(crew)
    }

    /// Where the dispatchers are, whether they run or not.
    pub(super) fn dispatchers(&self) -> Vec<String> {
        let all = self.seats.iter().filter(|seat| seat.role == Role::Dispatcher);
        all.map(Seat::url).collect()
    }

    /// Starts a service; it crashes at a point, if one is named: `worker_reported=3*off->return`.
    fn launch(&mut self, at: usize, failpoint: Option<(&'static str, u32)>) -> Result<()> {
        let seat = &mut self.seats[at];
        let mut env = self.env.clone();
        let listen = format!("127.0.0.1:{}", seat.port.number());
        let mut set = |key: &str, value: &str| env.push((key.to_owned(), value.to_owned()));
        set("EXCITE_LOG__FILTER", "info,lapin=off,excite_worker::pipeline::guided=debug");
        let slots = SLOTS.to_string();
        let mut args: Vec<&str> = Vec::new();
        let program = match seat.role {
            Role::Dispatcher => {
                set("EXCITE_DISPATCHER__LISTEN", &listen);
                set("EXCITE_DISPATCHER__NAME", &seat.name);
                "excite-dispatcher"
            }
            Role::Worker | Role::Volume => {
                set("EXCITE_WORKER__LISTEN", &listen);
                set("EXCITE_WORKER__NAME", &seat.name);
                // Some of these jobs run for two seconds only.
                set("EXCITE_WORKER__CHECKPOINT_SECONDS", "1");
                // Short, so that an outage of the store also makes jobs fail and be tried again.
                set("EXCITE_WORKER__STORE_PATIENCE_SECONDS", "15");
                if seat.role == Role::Volume {
                    let empty = ["--pipeline", "empty", "--class", VOLUME];
                    args.extend(empty.into_iter().chain(["--slots", VOLUME_SLOTS]));
                } else {
                    args.extend(["--slots", &slots]);
                }
                "excite-worker"
            }
        };
        if let Some((point, times)) = failpoint {
            set("FAILPOINTS", &format!("{point}={times}*off->return"));
        }
        seat.program = Some(Program::start(built(program)?, args, env)?);
        seat.armed = failpoint.map(|(point, _)| point);
        seat.back_at = None;
        Ok(())
    }

    async fn ready(&mut self, at: usize) -> Result<()> {
        let seat = &mut self.seats[at];
        let url = format!("{}/readyz", seat.url());
        let program = seat.program.as_mut().context("it does not run")?;
        program.wait_http(&url, READY_MAX).await.map(drop)
    }

    /// Whether it runs.
    pub(super) fn runs(&self, at: usize) -> bool {
        self.seats[at].program.is_some()
    }

    /// Kills a service; it comes back after a while.
    pub(super) fn kill(&mut self, at: usize, back: Duration) {
        if let Some(mut program) = self.seats[at].program.take() {
            program.kill();
            self.count_steps(&program);
        }
        self.seats[at].back_at = Some(Instant::now() + back);
    }

    /// Stops a service with `signals` of SIGTERM; it must be gone in time, and without complaint.
    pub(super) async fn stop(&mut self, at: usize, signals: u32, back: Duration) -> Result<()> {
        let Some(mut program) = self.seats[at].program.take() else { return Ok(()) };
        for _ in 0..signals {
            program.signal(Signal::SIGTERM)?;
        }
        let began = Instant::now();
        let ended = program.wait(STOP_MAX + Duration::from_secs(5)).await;
        let name = &self.seats[at].name;
        match ended {
            Ok(status) if status.success() => {
                if began.elapsed() > STOP_MAX {
                    let seconds = began.elapsed().as_secs_f64();
                    self.violations.push(format!("{name} took {seconds:.1} s to stop"));
                }
            }
            // A point where it was to crash may come while it stops.
            _ if self.seats[at].armed.is_some() => {}
            // It had not begun anything: signals are listened to before the first line of the log.
            Ok(status) if is_by_sigterm(status) && program.log().lines().is_empty() => {}
            Ok(status) => {
                let words = program.log().tail();
                let told =
                    format!("{name} was told to stop and ended with {status}, saying:\n{words}");
                self.violations.push(told);
            }
            Err(error) => self.violations.push(format!("{name} did not stop: {error:#}")),
        }
        program.kill();
        self.count_steps(&program);
        self.seats[at].back_at = Some(Instant::now() + back);
        Ok(())
    }

    /// Lets a service hang, or ends that.
    pub(super) fn freeze(&mut self, at: usize, on: bool) -> Result<()> {
        let signal = if on { Signal::SIGSTOP } else { Signal::SIGCONT };
        let Some(program) = &mut self.seats[at].program else { return Ok(()) };
        if program.ended()?.is_none() { program.signal(signal) } else { Ok(()) }
    }

    /// Stops a service and starts it so that it crashes at a point, once it has passed it so often.
    pub(super) async fn arm(&mut self, at: usize, point: &'static str, passes: u32) -> Result<()> {
        self.stop(at, 1, Duration::ZERO).await?;
        self.launch(at, Some((point, passes)))
    }

    /// Whether it runs and is to crash.
    pub(super) fn is_armed(&self, at: usize) -> bool {
        self.runs(at) && self.seats[at].armed.is_some()
    }

    /// Starts what ended or is due again; says at which points services crashed since.
    pub(super) fn tend(&mut self) -> Result<Vec<&'static str>> {
        let mut crashed = Vec::new();
        for at in 0..self.seats.len() {
            let seat = &mut self.seats[at];
            if let Some(program) = &mut seat.program
                && let Some(status) = program.ended()?
            {
                let tail = program.log().tail();
                match seat.armed.take() {
                    Some(point) => crashed.push(point),
                    // The orchestrator starts a worker anew that gave up on a server; a panic is
                    // a fault of ours.
                    None if tail.contains("panicked") => {
                        self.violations.push(format!("{} ended with {status}: {tail}", seat.name));
                    }
                    None => eprintln!("ledger: {} ended with {status}", seat.name),
                }
                seat.back_at = Some(Instant::now() + Duration::from_millis(500));
                if let Some(program) = seat.program.take() {
                    self.count_steps(&program);
                }
            }
            if self.seats[at].back_at.is_some_and(|due| due <= Instant::now()) {
                self.launch(at, None)?;
            }
        }
        Ok(crashed)
    }

    /// Runs everything as it should be, with no points to crash at, and waits until it is ready.
    pub(super) async fn mend(&mut self) -> Result<()> {
        // What crashed as it was to is not told to stop.
        self.tend()?;
        for at in 0..self.seats.len() {
            self.freeze(at, false)?;
            if self.seats[at].armed.is_some() {
                self.stop(at, 1, Duration::ZERO).await?;
            }
            if let Some(program) = &mut self.seats[at].program
                && program.ended()?.is_none()
            {
                continue;
            }
            if let Some(program) = self.seats[at].program.take() {
                self.count_steps(&program);
            }
            self.launch(at, None)?;
        }
        for at in 0..self.seats.len() {
            self.ready(at).await.with_context(|| format!("{} mended", self.seats[at].name))?;
        }
        Ok(())
    }

    /// Ends the services of some role in good order.
    pub(super) async fn dismiss(&mut self, which: impl Fn(Role) -> bool) -> Result<()> {
        for at in 0..self.seats.len() {
            if which(self.seats[at].role) {
                self.stop(at, 1, Duration::MAX / 4).await?;
                self.seats[at].back_at = None;
            }
        }
        Ok(())
    }

    /// Starts the first dispatcher and waits until it is ready.
    pub(super) async fn recall_dispatcher(&mut self) -> Result<String> {
        self.launch(0, None)?;
        self.ready(0).await?;
        Ok(self.seats[0].url())
    }

    /// Which dispatcher leads.
    pub(super) async fn leader(&self, cluster: &Cluster) -> Option<usize> {
        for (at, seat) in self.seats.iter().enumerate() {
            if seat.role == Role::Dispatcher
                && seat.program.is_some()
                && cluster.metric_at(&seat.url(), "excite_leader", "").await.ok() == Some(1.)
            {
                return Some(at);
            }
        }
        None
    }

    fn count_steps(&mut self, program: &Program) {
        for line in program.log().lines() {
            if !line.contains(r#""a step""#) {
                continue;
            }
            let Ok(line) = serde_json::from_str::<Value>(&line) else { continue };
            if let Some(job) = line["job"].as_str() {
                *self.steps.entry(job.to_owned()).or_default() += 1;
            }
        }
    }

    /// Waits until a dispatcher leads.
    pub(super) async fn led(&self, cluster: &Cluster) -> Result<()> {
        let led = eventually(READY_MAX, "a leading dispatcher", async || {
            match self.leader(cluster).await {
                Some(_) => Try::Done(()),
                None => Try::Again("none".to_owned()),
            }
        });
        led.await.with_context(|| self.last_words())
    }

    /// The ends of the dispatchers' logs.
    fn last_words(&self) -> String {
        let dispatchers = self.seats.iter().filter(|seat| seat.role == Role::Dispatcher);
        let words = dispatchers.map(|seat| {
            let tail = seat.program.as_ref().map(|program| program.log().tail());
            format!("{} says:\n{}", seat.name, tail.unwrap_or_default())
        });
        words.collect::<Vec<_>>().join("\n")
    }
}

fn is_by_sigterm(status: ExitStatus) -> bool {
    status.signal() == Some(Signal::SIGTERM as i32)
}

impl Seat {
    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.number())
    }
}
