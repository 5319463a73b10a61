//! Messages of the control queue, taken into memory.
//!
//! What must be recorded keeps its message; all others are acknowledged here. What needs the store
//! while it fails is deferred. Not here: publishing (`publish`) and recording (`record`).

use std::sync::Arc;

use bytes::Bytes;
use excite_jobs::queue::{Acker, Delivery};
use excite_jobs::store::Condition;
use excite_jobs::{
    BatchId, Class, Control, DeadReason, Failure, Job, MessageError, Outcome, OutcomeKind, State,
    Success, keys, limits,
};
use tokio::time::Instant;
use tracing::{info, warn};

use super::forward::put_aside;
use super::leader::Leader;
use super::running::Concluded;
use crate::estimates::Measured;
use crate::header;

/// A message of the control queue.
#[derive(Debug)]
pub(super) enum Received {
    Control(Box<Control>),
    Unreadable(Bytes),
}

impl Received {
    /// Whether it is seldom, and must not be taken by one that does not lead any more.
    pub(super) fn is_rare(&self) -> bool {
        match self {
            Self::Control(control) => {
                !matches!(**control, Control::Tick { .. } | Control::Outcome(_))
            }
            Self::Unreadable(_) => true,
        }
    }
}

/// Acknowledges a message, if nothing else of it is open.
pub(super) async fn ack(acker: Arc<Acker>) {
    if let Some(acker) = Arc::into_inner(acker) {
        // A lost lease is no fault: the message comes again and changes nothing.
        acker.ack().await;
    }
}

impl Leader {
    /// Reads messages; those deferred before come first.
    pub(super) fn parse(&mut self, group: Vec<Delivery>) -> Vec<(Received, Arc<Acker>)> {
        let read = |delivery: Delivery| {
            let received = match serde_json::from_slice::<Control>(&delivery.body) {
                Ok(control) => Received::Control(Box::new(control)),
                Err(error) => {
                    warn!(%error, "a control message cannot be read");
                    Received::Unreadable(delivery.body)
                }
            };
            (received, Arc::new(delivery.acker))
        };
        group.into_iter().map(read).collect()
    }

    /// Takes messages in.
    pub(super) async fn take_in(&mut self, group: Vec<(Received, Arc<Acker>)>) {
        let mut due = Vec::new();
        if self.storing.is_over() {
            due.append(&mut self.deferred);
        }
        due.extend(group);
        for (received, acker) in due {
            let taken = match &received {
                Received::Control(control) => self.receive(control, &acker).await,
                Received::Unreadable(body) => self.put_aside(body).await,
            };
            match taken {
                // Unless a conclusion keeps it.
                Ok(()) => ack(acker).await,
                Err(()) => self.deferred.push((received, acker)),
            }
        }
    }

    async fn put_aside(&mut self, body: &Bytes) -> Result<(), ()> {
        let put = put_aside(&*self.ports.store, &self.metrics, body).await;
        self.stored(put)
    }

    async fn receive(&mut self, control: &Control, acker: &Arc<Acker>) -> Result<(), ()> {
        match control {
            Control::Tick { .. } => {
                self.feed_now = true;
                Ok(())
            }
            Control::Outcome(outcome) => self.outcome(outcome, acker).await,
            Control::Batch { batch } => self.refresh(*batch).await,
            Control::Delete { batch } => {
                self.forget(*batch).await;
                Ok(())
            }
            Control::Replay { batch, indices } => self.replay(*batch, indices, acker).await,
            Control::DeadLetter { reason, body } => self.dead_letter(reason, body, acker).await,
        }
    }

    async fn outcome(&mut self, outcome: &Outcome, acker: &Arc<Acker>) -> Result<(), ()> {
        let started = matches!(outcome.kind, OutcomeKind::Started);
        let known = self.batches.contains_key(&outcome.batch);
        // Nothing is rebuilt only to learn that a job ran before it was done.
        let here = known || !started && self.ensure(outcome.batch).await?;
        self.metrics.outcomes.with_label_values(&[outcome.kind.name()]).inc();
        let running = self.batches.get_mut(&outcome.batch).filter(|_| here);
        let Some(running) = running else {
            self.metrics.stale_outcomes.inc();
            return Ok(());
        };
        match running.outcome(outcome, rand::random()) {
            Concluded::Nothing => {
                self.metrics.stale_outcomes.inc();
                running.hold(outcome.index, acker);
            }
            Concluded::Moved => {}
            Concluded::Recorded => {
                self.recorded(outcome.batch, acker);
                if let OutcomeKind::Succeeded(success) = &outcome.kind {
                    self.learn(outcome, success);
                }
            }
        }
        Ok(())
    }

    /// The last conclusion of a batch keeps its message.
    pub(super) fn recorded(&mut self, batch: BatchId, acker: &Arc<Acker>) {
        let Some(running) = self.batches.get_mut(&batch) else { return };
        let key = (running.header.class.clone(), running.header.lane);
        let Some(entry) = running.pending.last_mut() else { return };
        entry.ackers.push(acker.clone());
        let record = &entry.record;
        if let (State::Retrying, Some(failure)) = (record.state, &record.failure) {
            self.metrics.retries.with_label_values(&[failure.class.as_str()]).inc();
        }
        if let Some(dead) = record.dead {
            self.metrics.dead.with_label_values(&[dead.as_str()]).inc();
        }
        self.flows.entry(key).or_default().concluded += 1;
        self.images.concluded += u64::from(record.success.is_some());
        self.activity.count(record);
    }

    fn learn(&mut self, outcome: &Outcome, success: &Success) {
        let Some(running) = self.batches.get(&outcome.batch) else { return };
        let header = &running.header;
        let (plain, guided) = (header.work.plain, header.work.guided);
        // A batch of both kinds does not say which this was: others will.
        if success.found || plain > 0. && guided > 0. {
            return;
        }
        let work = (plain + guided) / f64::from(header.jobs.max(1));
        let seconds = success.seconds / f64::from(success.tries.max(1));
        let measured = Measured { seconds, work, guided: guided > 0. };
        self.estimates.learn(&header.model, measured);
        self.estimates_saved.0 = true;
    }

    /// A batch is new, or its header was changed.
    async fn refresh(&mut self, id: BatchId) -> Result<(), ()> {
        if !self.batches.contains_key(&id) {
            return self.ensure(id).await.map(|_| ());
        }
        let loaded = header::load(&*self.ports.store, id).await;
        let Some((header, _)) = self.stored(loaded)? else {
            self.forget(id).await;
            return Ok(());
        };
        let Some(running) = self.batches.get_mut(&id) else { return Ok(()) };
        if running.changed(header) {
            info!(batch = %id, "cancelled");
            self.cancelled.insert(id, Instant::now());
            let key = (running.header.class.clone(), running.header.lane);
            if let Some(shares) = self.shares.get_mut(&key) {
                shares.leave(id);
            }
            self.announce_cancelled(id).await;
        }
        self.feed_now = true;
        Ok(())
    }

    /// A batch is taken away: nothing more is done about it.
    pub(super) async fn forget(&mut self, id: BatchId) {
        if let Some(running) = self.batches.remove(&id) {
            let key = (running.header.class.clone(), running.header.lane);
            if let Some(shares) = self.shares.get_mut(&key) {
                shares.leave(id);
            }
            for acker in running.pending.into_iter().flat_map(|entry| entry.ackers) {
                ack(acker).await;
            }
        }
        self.forget_mirror(id).await;
    }

    async fn replay(&mut self, id: BatchId, indices: &[u32], acker: &Arc<Acker>) -> Result<(), ()> {
        let here = self.ensure(id).await?;
        let running = self.batches.get(&id).filter(|_| here);
        let Some(running) = running.filter(|running| !running.header.cancelled) else {
            return Ok(());
        };
        let dead = |index: &&u32| running.folded.states.get(**index).state == State::Dead;
        if indices.iter().any(|index| dead(&index)) {
            // In this order: a batch that is marked and finished is merely finished again.
            let store = self.ports.store.clone();
            let marked = store.put(&keys::active(id), Bytes::new(), Condition::Always).await;
            self.stored(marked)?;
            self.stored(store.delete(&[keys::summary(id)]).await)?;
        }
        for index in indices.iter().take(limits::REPLAY_INDICES_MAX) {
            let Some(running) = self.batches.get_mut(&id) else { break };
            if running.replay(*index) {
                self.recorded(id, acker);
            } else {
                // Already replayed by this very message, perhaps: it stays until that is stored.
                running.hold(*index, acker);
            }
        }
        Ok(())
    }

    async fn dead_letter(
        &mut self,
        reason: &str,
        body: &str,
        acker: &Arc<Acker>,
    ) -> Result<(), ()> {
        let about = match Job::parse(body.as_bytes()) {
            Ok(job) => Some((job.id, job.lease)),
            Err(MessageError::Version { about, .. } | MessageError::Unreadable { about, .. }) => {
                about.map(|about| (about.job, about.lease))
            }
        };
        let Some((job, lease)) = about else {
            return self.put_aside(&Bytes::copy_from_slice(body.as_bytes())).await;
        };
        let here = self.ensure(job.batch).await?;
        let Some(running) = self.batches.get_mut(&job.batch).filter(|_| here) else {
            return Ok(());
        };
        let failure = Failure::new(Class::Lost, "broker", format!("the broker says `{reason}`"));
        match running.give_up(job.index, lease, DeadReason::Broker, failure) {
            Concluded::Recorded => self.recorded(job.batch, acker),
            _ => running.hold(job.index, acker),
        }
        Ok(())
    }

    /// Remembers whether the store works.
    pub(super) fn stored<T, E: std::fmt::Display>(
        &mut self,
        result: Result<T, E>,
    ) -> Result<T, ()> {
        match result {
            Ok(value) => {
                self.storing.worked();
                Ok(value)
            }
            Err(error) => {
                warn!(%error, "the store fails; what needs it waits");
                self.storing.failed();
                Err(())
            }
        }
    }
}
