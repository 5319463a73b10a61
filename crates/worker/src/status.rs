//! How the worker is, for probes and beats.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use excite_jobs::progress::WorkerState;
use excite_jobs::queue::Queue;

use crate::watch::Watch;

/// How the worker is.
#[derive(Debug)]
pub(crate) struct Status {
    state: AtomicU8,
    /// Why it is not ready, beyond the state.
    why: Mutex<String>,
}

impl Status {
    pub(crate) fn new() -> Self {
        let status = Self { state: AtomicU8::new(0), why: Mutex::default() };
        status.set(WorkerState::Starting, "it tries the store");
        status
    }

    pub(crate) fn set(&self, state: WorkerState, why: &str) {
        let code = match state {
            WorkerState::Starting => 0,
            WorkerState::Ready => 1,
            WorkerState::Broken => 2,
            WorkerState::Draining => 3,
        };
        why.clone_into(&mut self.why.lock().unwrap_or_else(PoisonError::into_inner));
        self.state.store(code, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> WorkerState {
        match self.state.load(Ordering::Relaxed) {
            0 => WorkerState::Starting,
            1 => WorkerState::Ready,
            2 => WorkerState::Broken,
            _ => WorkerState::Draining,
        }
    }

    /// For `/readyz`: it takes jobs.
    pub(crate) fn ready(&self, queue: &Arc<dyn Queue>) -> Result<(), String> {
        let why = self.why.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match self.get() {
            WorkerState::Ready => {}
            WorkerState::Starting => return Err(format!("starting: {why}")),
            WorkerState::Broken => return Err(format!("broken: {why}")),
            WorkerState::Draining => return Err(format!("draining: {why}")),
        }
        let health = queue.health();
        match (health.connected, health.last_error) {
            (true, _) => Ok(()),
            (false, Some(error)) => Err(format!("no connection to the broker: {error}")),
            (false, None) => Err("no connection to the broker".into()),
        }
    }
}

/// For `/healthz`: what runs moves. Depends on no server.
pub(crate) fn live(watch: &Watch) -> Result<(), String> {
    match watch.stuck() {
        Some(still) => Err(format!("nothing moved for {} s", still.as_secs())),
        None => Ok(()),
    }
}
