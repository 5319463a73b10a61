//! The jobs that this worker was given and has not acknowledged.
//!
//! A job is here once, however often it is delivered: a delivery of a job that is here joins it,
//! and the outcome is reported under the highest lease seen. Not here: what is done with them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use excite_jobs::queue::Acker;
use excite_jobs::{Job, JobId, OutcomeKind, Run};
use time::OffsetDateTime;

/// Outcomes that are remembered: more than can be redelivered at once when a connection is lost.
const RECENT_MAX: usize = 1024;

/// Jobs by name.
#[derive(Debug, Default)]
pub(crate) struct Held {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    jobs: BTreeMap<JobId, Entry>,
    /// Lease and outcome of jobs that were here, the newest last.
    recent: VecDeque<(JobId, u32, OutcomeKind)>,
}

/// A job that is here.
#[derive(Debug)]
pub(crate) struct Entry {
    /// As its highest lease has it.
    pub(crate) job: Job,
    /// W3C trace context.
    pub(crate) traceparent: Option<String>,
    /// When it came.
    pub(crate) since: Instant,
    /// It may have killed a worker; there are marks of it in the store.
    pub(crate) suspect: bool,
    /// Once it runs.
    run: Option<Run>,
    /// Of all its deliveries.
    ackers: Vec<Acker>,
}

/// What a delivery is.
#[derive(Debug, PartialEq)]
pub(crate) enum Arrival {
    /// The first one of this job.
    New,
    /// The job is here already.
    Joined,
    /// The job was here, and this became of this lease.
    Known(OutcomeKind),
}

/// What a job's outcome must say.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub(crate) job: Job,
    pub(crate) traceparent: Option<String>,
    pub(crate) suspect: bool,
    /// When it came.
    pub(crate) since: Instant,
    /// Once it runs.
    pub(crate) run: Option<Run>,
}

impl Held {
    /// Takes a delivery.
    pub(crate) fn arrive(
        &self,
        job: Job,
        traceparent: Option<String>,
        redelivered: bool,
        acker: Acker,
    ) -> Arrival {
        let mut state = self.state();
        if let Some(entry) = state.jobs.get_mut(&job.id) {
            entry.ackers.push(acker);
            if job.lease > entry.job.lease {
                entry.job = job;
                entry.traceparent = traceparent;
            }
            return Arrival::Joined;
        }
        let known = state.recent.iter().rev().find(|(id, ..)| *id == job.id);
        let known = known.filter(|(_, lease, _)| *lease >= job.lease);
        let arrival = known.map_or(Arrival::New, |(.., kind)| Arrival::Known(kind.clone()));
        let suspect = redelivered && arrival == Arrival::New;
        let since = Instant::now();
        let id = job.id;
        state
            .jobs
            .insert(id, Entry { job, traceparent, since, suspect, run: None, ackers: vec![acker] });
        arrival
    }

    /// What the outcome of a job must say now; `None` if it is not here.
    pub(crate) fn said(&self, id: JobId) -> Option<Said> {
        let state = self.state();
        let Entry { job, traceparent, suspect, since, run, .. } = state.jobs.get(&id)?;
        let (job, traceparent) = (job.clone(), traceparent.clone());
        Some(Said { job, traceparent, suspect: *suspect, since: *since, run: *run })
    }

    /// A job runs from now on, beginning with this step.
    pub(crate) fn runs(&self, id: JobId, from_step: usize) {
        let from_step = u32::try_from(from_step).unwrap_or(u32::MAX);
        if let Some(entry) = self.state().jobs.get_mut(&id) {
            entry.run = Some(Run { started_at: OffsetDateTime::now_utc(), from_step });
        }
    }

    /// Lets a job go whose outcome was reported under `lease`, with all that is to be
    /// acknowledged; `None` if a higher lease came meanwhile, which must be reported too.
    pub(crate) fn release(
        &self,
        id: JobId,
        lease: u32,
        kind: &OutcomeKind,
    ) -> Option<(Entry, Vec<Acker>)> {
        let mut state = self.state();
        if state.jobs.get(&id).is_none_or(|entry| entry.job.lease > lease) {
            return None;
        }
        let entry = Self::remove(&mut state, id)?;
        state.recent.push_back((id, lease, kind.clone()));
        if state.recent.len() > RECENT_MAX {
            state.recent.pop_front();
        }
        Some(entry)
    }

    /// Lets a job go without an outcome.
    pub(crate) fn give_up(&self, id: JobId) -> Vec<Acker> {
        Self::remove(&mut self.state(), id).map(|(_, ackers)| ackers).unwrap_or_default()
    }

    /// How many are here.
    pub(crate) fn len(&self) -> usize {
        self.state().jobs.len()
    }

    /// Those that may have killed a worker.
    pub(crate) fn suspects(&self) -> Vec<JobId> {
        let state = self.state();
        state.jobs.iter().filter(|(_, entry)| entry.suspect).map(|(id, _)| *id).collect()
    }

    fn remove(state: &mut State, id: JobId) -> Option<(Entry, Vec<Acker>)> {
        let mut entry = state.jobs.remove(&id)?;
        let ackers = std::mem::take(&mut entry.ackers);
        Some((entry, ackers))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
