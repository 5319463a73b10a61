//! Publishing: what was claimed, and what follows of outcomes.
//!
//! A publication counts when it is confirmed. One that failed stays where it was and is tried
//! again after a pause; it may have been stored all the same, and a job that is published twice is
//! run once or found done. Not here: what is claimed (`feed`).

use std::sync::Arc;

use excite_jobs::queue::{Message, QueueError};
use excite_jobs::{Batch, BatchId, Class, DeadReason, Failure, Job, JobState};
use excite_service::failpoint;
use futures::{StreamExt, stream};
use tracing::{error, warn};

use super::JOB_TYPE;
use super::leader::{Leader, Leave};
use super::running::Follow;
use crate::header::json;

/// Publications that wait for their confirmation at a time.
const WINDOW: usize = 256;

/// A publication that is due.
struct Due {
    batch: BatchId,
    header: Arc<Batch>,
    index: u32,
    follow: Follow,
    /// Of the feeder, not of an outcome.
    fed: bool,
}

/// Why a publication did not happen.
enum Failed {
    /// It may work later.
    Later,
    /// It never will.
    Never(Failure),
}

impl Leader {
    /// Publishes what is due, as long as that works.
    pub(super) async fn publish_pending(&mut self) -> Result<(), Leave> {
        while self.publishing.is_over() && self.storing.is_over() {
            let mut due = self.follows();
            let room = WINDOW - due.len();
            due.extend(self.take_unfed(room));
            if due.is_empty() {
                break;
            }
            self.publish(due).await;
        }
        Ok(())
    }

    /// What follows of outcomes, neighbours together, so that a part of lines is read once.
    fn follows(&self) -> Vec<Due> {
        let mut due = Vec::new();
        for (id, running) in &self.batches {
            for entry in &running.pending {
                let Some(follow) = &entry.follow else { continue };
                due.push(Due {
                    batch: *id,
                    header: running.header.clone(),
                    index: entry.record.index,
                    follow: follow.clone(),
                    fed: false,
                });
                if due.len() == WINDOW {
                    return due;
                }
            }
        }
        due.sort_by_key(|due| (due.batch, due.index));
        due
    }

    fn take_unfed(&mut self, room: usize) -> Vec<Due> {
        let mut due = Vec::new();
        while due.len() < room
            && let Some((batch, index)) = self.unfed.pop_front()
        {
            let Some(running) = self.batches.get(&batch) else { continue };
            // Something was heard of it meanwhile, or nobody wants it any more.
            if running.header.cancelled || running.folded.states.get(index) != JobState::QUEUED {
                continue;
            }
            let follow = Follow { rung: None, job: JobState::QUEUED, checkpoint: None };
            due.push(Due { batch, header: running.header.clone(), index, follow, fed: true });
        }
        due
    }

    async fn publish(&mut self, due: Vec<Due>) {
        let mut ready = Vec::with_capacity(due.len());
        let mut failed = Vec::new();
        for due in due {
            match self.message(&due).await {
                Ok(message) => ready.push((due, message)),
                Err(why) => failed.push((due, why)),
            }
        }
        let queue = self.ports.queue.clone();
        let publish = |(due, message): (Due, Message)| {
            let queue = queue.clone();
            async move {
                let Batch { class, lane, .. } = &*due.header;
                let sent = queue.publish_job(class, *lane, due.follow.rung, message).await;
                (due, sent)
            }
        };
        let sent: Vec<_> = stream::iter(ready).map(publish).buffered(WINDOW).collect().await;
        for (due, sent) in sent {
            self.metrics
                .published
                .with_label_values(&[if sent.is_ok() { "ok" } else { "failed" }])
                .inc();
            match sent {
                Ok(()) => {
                    let fed = if due.fed { "dispatcher_fed" } else { "dispatcher_followed" };
                    failpoint::reach(fed);
                    self.published(&due);
                }
                Err(error) => {
                    let why = self.refused(&due, error).await;
                    failed.push((due, why));
                }
            }
        }
        self.put_back(failed);
    }

    async fn message(&mut self, due: &Due) -> Result<Message, Failed> {
        let job = match self.manifests.job(&due.header, due.index).await {
            Ok(job) => job,
            Err(error) if error.is_transient() => {
                warn!(batch = %due.batch, %error, "lines cannot be read yet");
                self.storing.failed();
                return Err(Failed::Later);
            }
            Err(error) => {
                error!(batch = %due.batch, index = due.index, %error, "a job is lost");
                let failure = Failure::new(Class::Invalid, "manifest", error.to_string());
                return Err(Failed::Never(failure));
            }
        };
        let JobState { lease, attempt, .. } = due.follow.job;
        let job = Job { lease, attempt, checkpoint: due.follow.checkpoint.clone(), ..job };
        Ok(Message {
            id: job.id.to_string(),
            body: json(&job),
            kind: JOB_TYPE.to_owned(),
            traceparent: due.header.traceparent.clone(),
            expires: None,
        })
    }

    async fn refused(&mut self, due: &Due, error: QueueError) -> Failed {
        if let QueueError::TooLarge { .. } = error {
            return Failed::Never(Failure::new(Class::Invalid, "too_large", error.to_string()));
        }
        if self.publishing.is_over() {
            warn!(%error, "jobs cannot be published; they wait");
            if matches!(error, QueueError::Unroutable(_)) {
                let class = due.header.class.clone();
                if let Err(error) = self.ports.queue.declare(&[class]).await {
                    warn!(%error, "the queues of a class cannot be declared");
                }
            }
            self.publishing.failed();
        }
        Failed::Later
    }

    fn published(&mut self, due: &Due) {
        if due.fed {
            return;
        }
        let Some(running) = self.batches.get_mut(&due.batch) else { return };
        let same = |follow: &Follow| follow.job == due.follow.job;
        let entry = running.pending.iter_mut().find(|entry| {
            entry.record.index == due.index && entry.follow.as_ref().is_some_and(same)
        });
        if let Some(entry) = entry {
            entry.follow = None;
        }
    }

    fn put_back(&mut self, failed: Vec<(Due, Failed)>) {
        if failed.is_empty() {
            self.publishing.worked();
        }
        for (due, why) in failed.into_iter().rev() {
            match why {
                Failed::Later if due.fed => self.unfed.push_front((due.batch, due.index)),
                Failed::Later => {}
                Failed::Never(failure) => {
                    // Its last publication, if it was one of an outcome, never happened.
                    self.published(&due);
                    if let Some(running) = self.batches.get_mut(&due.batch) {
                        let lease = due.follow.job.lease;
                        running.give_up(due.index, lease, DeadReason::Invalid, failure);
                    }
                }
            }
        }
    }
}
