//! A batch in the leader's memory: where its jobs are, and what is not written down yet.
//!
//! Pure but for the clock: no call leaves the process here. What was concluded waits as an
//! [`Entry`] until its publication is confirmed and its record stored; only then its message is
//! acknowledged. Not here: the calls that do that (`conclude`), feeding (`feed`).

use std::collections::BTreeMap;
use std::sync::Arc;

use excite_jobs::queue::Acker;
use excite_jobs::store::Etag;
use excite_jobs::{
    Batch, Class, Cursor, DeadReason, Done, Event, Failure, JobState, Next, Outcome, OutcomeKind,
    Reason, Rung, State, VERSION, next, step,
};
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::done_log::Folded;

/// Leases and attempts are numbers of a real job below this: beyond it a message is damaged.
const LEASE_MAX: u32 = 1_000_000;

/// A batch that somebody still expects something of.
pub(crate) struct Running {
    /// Shared with publications under way.
    pub(crate) header: Arc<Batch>,
    /// Where its jobs are.
    pub(crate) folded: Folded,
    /// How far the feeder is, and the version of it in the store.
    pub(crate) cursor: Option<(Cursor, Etag)>,
    /// Concluded, but not recorded.
    pub(crate) pending: Vec<Entry>,
    /// When the oldest of them came.
    pub(crate) since: Option<Instant>,
    /// Its summary says what its jobs are now.
    pub(crate) summarized: Option<Instant>,
    /// What the mirror must still be told.
    pub(crate) mirror: Unmirrored,
}

/// A conclusion that is not recorded yet.
pub(crate) struct Entry {
    /// What must be published first.
    pub(crate) follow: Option<Follow>,
    /// What is recorded.
    pub(crate) record: Done,
    /// What is acknowledged then; a message with several conclusions by the last of them.
    pub(crate) ackers: Vec<Arc<Acker>>,
}

/// The next publication of a job.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Follow {
    /// How long it waits.
    pub(crate) rung: Option<Rung>,
    /// Its lease and attempt.
    pub(crate) job: JobState,
    /// Where it goes on.
    pub(crate) checkpoint: Option<String>,
}

/// What the mirror does not know yet.
#[derive(Debug, Default)]
pub(crate) struct Unmirrored {
    /// What it is at; none: it must be written whole.
    pub(crate) revision: Option<String>,
    /// Jobs with new states.
    pub(crate) changes: BTreeMap<u32, State>,
    /// When it was written last.
    pub(crate) at: Option<Instant>,
    /// It was told that the batch is finished.
    pub(crate) finished: bool,
}

/// What an outcome made of its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Concluded {
    /// Nothing: a duplicate, or too late.
    Nothing,
    /// It runs: nothing to record.
    Moved,
    /// Something that must be recorded.
    Recorded,
}

impl Running {
    /// A batch as the store has it.
    pub(crate) fn new(header: Batch, folded: Folded, cursor: Option<(Cursor, Etag)>) -> Self {
        Self {
            header: Arc::new(header),
            folded,
            cursor,
            pending: Vec::new(),
            since: None,
            summarized: None,
            mirror: Unmirrored::default(),
        }
    }

    /// Place of the first job that was never claimed.
    pub(crate) fn claimed(&self) -> u32 {
        self.cursor.as_ref().map_or(0, |(cursor, _)| cursor.to.min(self.header.jobs))
    }

    /// Jobs that can still be claimed.
    pub(crate) fn unclaimed(&self) -> u32 {
        if self.header.paused || self.header.cancelled || self.folded.open() == 0 {
            return 0;
        }
        self.header.jobs - self.claimed()
    }

    /// The store has another cursor: an earlier dispatcher, or another one, is further. Says which
    /// jobs of its last claim may not have been published.
    pub(crate) fn claimed_by(&mut self, cursor: Cursor, etag: Etag) -> Vec<u32> {
        for index in 0..cursor.to.min(self.header.jobs) {
            self.fed(index);
        }
        self.cursor = Some((cursor, etag));
        self.last_claim()
    }

    /// Jobs of the last claim of which nothing was heard: whoever claimed them may have died.
    pub(crate) fn last_claim(&self) -> Vec<u32> {
        let Some((cursor, _)) = &self.cursor else { return Vec::new() };
        let unheard = |index: &u32| self.folded.states.get(*index) == JobState::QUEUED;
        (cursor.from..cursor.to.min(self.header.jobs)).filter(unheard).collect()
    }

    /// A job was claimed. `false` if something is known of it already.
    pub(crate) fn fed(&mut self, index: u32) -> bool {
        let known = self.folded.states.get(index);
        let Some((after, _)) = step(known, Event::Fed) else { return false };
        self.go(index, known, after);
        true
    }

    /// The queue is gone with all that was published: every such job is published anew, as if its
    /// worker had given it back, and goes on where its state was saved last.
    pub(crate) fn give_back_all(&mut self) {
        for index in 0..self.claimed() {
            let known = self.folded.states.get(index);
            let event = Event::Preempted { lease: known.lease, attempt: known.attempt };
            let Some((after, reason)) = step(known, event) else { continue };
            let follow = Follow { rung: None, job: after, checkpoint: None };
            self.record(record(index, after, reason), known, Some(follow));
        }
    }

    /// Takes an outcome in. `random` is in 0..1: it decides whether a retry waits longer.
    pub(crate) fn outcome(&mut self, outcome: &Outcome, random: f64) -> Concluded {
        let (lease, attempt) = (outcome.lease, outcome.attempt);
        if outcome.index >= self.header.jobs || lease.max(attempt) > LEASE_MAX {
            return Concluded::Nothing;
        }
        self.proven_published(outcome.index, lease);
        let (event, follows) = match &outcome.kind {
            OutcomeKind::Started => (Event::Started { lease, attempt }, None),
            OutcomeKind::Succeeded(_) => (Event::Succeeded, None),
            OutcomeKind::Cancelled => (Event::Cancelled, None),
            OutcomeKind::Failed(failure) if failure.class == Class::Cancelled => {
                (Event::Cancelled, None)
            }
            OutcomeKind::Failed(failure) => {
                let after = failure.retry_after_seconds;
                let next = next(failure.class, attempt, self.header.max_attempts, after);
                let retry = matches!(next, Next::Retry(_));
                (Event::Failed { lease, attempt, retry }, Some(next))
            }
            OutcomeKind::Preempted { .. } => (Event::Preempted { lease, attempt }, None),
        };
        let known = self.folded.states.get(outcome.index);
        let Some((after, reason)) = step(known, event) else { return Concluded::Nothing };
        if after.state == State::Running {
            self.go(outcome.index, known, after);
            return Concluded::Moved;
        }
        let mut record = record(outcome.index, after, reason);
        record.worker = Some(outcome.worker.clone());
        record.run = outcome.run;
        let mut follow = Follow { rung: None, job: after, checkpoint: None };
        match &outcome.kind {
            OutcomeKind::Succeeded(success) => record.success = Some(success.clone()),
            OutcomeKind::Failed(failure) => record.failure = Some(failure.clone()),
            OutcomeKind::Preempted { checkpoint, .. } => {
                record.checkpoint.clone_from(checkpoint);
                follow.checkpoint.clone_from(checkpoint);
            }
            OutcomeKind::Started | OutcomeKind::Cancelled => {}
        }
        match follows {
            Some(Next::Dead(reason)) if after.state == State::Dead => record.dead = Some(reason),
            Some(Next::Retry(rung)) => follow.rung = Some(rung.jittered(random)),
            _ => {}
        }
        let published = matches!(after.state, State::Queued | State::Retrying);
        self.record(record, known, published.then_some(follow));
        Concluded::Recorded
    }

    /// A job is given up without a worker's word, if `lease` is not older than what is known.
    pub(crate) fn give_up(
        &mut self,
        index: u32,
        lease: u32,
        dead: DeadReason,
        failure: Failure,
    ) -> Concluded {
        if index >= self.header.jobs || lease > LEASE_MAX {
            return Concluded::Nothing;
        }
        let known = self.folded.states.get(index);
        let event = Event::Failed { lease, attempt: known.attempt, retry: false };
        let Some((after, reason)) = step(known, event) else { return Concluded::Nothing };
        let mut record = record(index, after, reason);
        record.failure = Some(failure);
        record.dead = Some(dead);
        self.record(record, known, None);
        Concluded::Recorded
    }

    /// A dead job is wanted back. `false` if it is not dead.
    pub(crate) fn replay(&mut self, index: u32) -> bool {
        if index >= self.header.jobs {
            return false;
        }
        let known = self.folded.states.get(index);
        let Some((after, reason)) = step(known, Event::Replayed) else { return false };
        let follow = Follow { rung: None, job: after, checkpoint: None };
        self.record(record(index, after, reason), known, Some(follow));
        true
    }

    /// The header was changed. Says whether the batch was cancelled by that.
    pub(crate) fn changed(&mut self, header: Batch) -> bool {
        let cancelled = header.cancelled && !self.header.cancelled;
        if header.revision >= self.header.revision {
            self.header = Arc::new(header);
        }
        if cancelled {
            for index in self.folded.cancel_all() {
                self.mirror.changes.insert(index, State::Cancelled);
            }
            // Whoever rebuilds the batch sees its header: nothing more needs to be published.
            self.pending.iter_mut().for_each(|entry| entry.follow = None);
        }
        cancelled
    }

    /// Hangs a message that changed nothing to the conclusion it may be a duplicate of: it may be
    /// the same message again, which must not be gone before that is stored.
    pub(crate) fn hold(&mut self, index: u32, acker: &Arc<Acker>) {
        let open = self.pending.iter_mut().rev().find(|entry| entry.record.index == index);
        if let Some(entry) = open {
            entry.ackers.push(acker.clone());
        }
    }

    /// Whether every job is terminal and that is recorded.
    pub(crate) fn is_settled(&self) -> bool {
        self.folded.open() == 0 && self.pending.is_empty()
    }

    /// A worker had this lease: it was published, though nobody confirmed it. Recorded after what
    /// comes now, it would not count.
    fn proven_published(&mut self, index: u32, lease: u32) {
        for entry in self.pending.iter_mut().filter(|entry| entry.record.index == index) {
            entry.follow.take_if(|follow| follow.job.lease <= lease);
        }
    }

    fn record(&mut self, record: Done, known: JobState, follow: Option<Follow>) {
        let after = JobState { state: record.state, lease: record.lease, attempt: record.attempt };
        self.go(record.index, known, after);
        // Also where only the sums change: a preemption before anybody heard of the start.
        self.mirror.changes.insert(record.index, after.state);
        self.folded.conclude(&record, known);
        self.since.get_or_insert_with(Instant::now);
        self.summarized = None;
        self.mirror.finished = false;
        self.pending.push(Entry { follow, record, ackers: Vec::new() });
    }

    fn go(&mut self, index: u32, known: JobState, after: JobState) {
        self.folded.moved(index, known, after);
        if known.state != after.state {
            self.mirror.changes.insert(index, after.state);
        }
    }
}

fn record(index: u32, job: JobState, reason: Reason) -> Done {
    Done {
        v: VERSION,
        index,
        state: job.state,
        reason,
        lease: job.lease,
        attempt: job.attempt,
        worker: None,
        at: OffsetDateTime::now_utc(),
        success: None,
        failure: None,
        dead: None,
        checkpoint: None,
        run: None,
    }
}
