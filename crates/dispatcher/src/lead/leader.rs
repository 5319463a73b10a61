//! The one task that leads: it receives, and after each group of messages does what is due.
//!
//! The order of a turn: take messages in, publish what follows, record, feed, finish, mirror.
//! Every call it waits for is bounded in time; what fails is due again after a pause, and meanwhile
//! the messages stay unacknowledged, so the broker holds the next ones back.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use excite_jobs::progress::WorkerBeat;
use excite_jobs::queue::{Acker, Consumer, Delivery, QueueName};
use excite_jobs::{BatchId, Lane};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::activity::Activity;
use super::canary::Canary;
use super::conclude::Received;
use super::running::Running;
use super::share::Shares;
use super::status::Flow;
use super::uploads::UploadSweep;
use super::{LeadConfig, Metrics, Pause};
use crate::estimates::Estimates;
use crate::manifest::Manifests;
use crate::ports::Ports;

/// Unacknowledged control messages: two groups, so that one is on its way while one is concluded.
const PREFETCH: u16 = 2000;
/// Messages that are taken in together.
const GROUP_MAX: usize = 1000;
/// Without a message for so long, another one may lead: ticks come twice a second.
const SILENCE: Duration = Duration::from_secs(3);
/// How long each of the three last things may take: the turn that runs when the signal comes, writing
/// what can be written, and giving the rest back. Together they are less than the time that a
/// service has to stop.
const LAST_MAX: Duration = Duration::from_secs(5);
/// The shortest and longest wait for the next message.
const WAKE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

/// Why the leader stopped leading.
#[derive(Debug)]
pub(super) enum Leave {
    /// Another one leads.
    Superseded,
    /// The queue was closed.
    Closed,
}

/// Who leads, and everything it knows.
pub(super) struct Leader {
    pub(super) ports: Ports,
    pub(super) config: LeadConfig,
    pub(super) metrics: Arc<Metrics>,
    pub(super) manifests: Manifests,
    /// Its number among all that ever led.
    pub(super) epoch: u64,
    /// `done/` parts written in this epoch.
    pub(super) parts: u64,
    /// Revisions of the mirror given out in this epoch.
    pub(super) revisions: u64,
    pub(super) batches: BTreeMap<BatchId, Running>,
    /// Who is fed next, by queue.
    pub(super) shares: BTreeMap<(String, Lane), Shares>,
    /// Claimed, in the order in which they are published; not confirmed yet.
    pub(super) unfed: VecDeque<(BatchId, u32)>,
    /// Messages that could not be taken in because the store failed.
    pub(super) deferred: Vec<(Received, Arc<Acker>)>,
    /// Batches whose running jobs should stop, and since when.
    pub(super) cancelled: BTreeMap<BatchId, Instant>,
    pub(super) canary: Canary,
    pub(super) estimates: Estimates,
    /// They were changed; when they were written.
    pub(super) estimates_saved: (bool, Instant),
    pub(super) workers: Vec<WorkerBeat>,
    pub(super) flows: BTreeMap<(String, Lane), Flow>,
    /// Images alone.
    pub(super) images: Flow,
    pub(super) activity: Activity,
    pub(super) uploads: UploadSweep,
    pub(super) publishing: Pause,
    pub(super) storing: Pause,
    pub(super) mirroring: Pause,
    /// A tick came, or a new batch: feed in this turn.
    pub(super) feed_now: bool,
    pub(super) heard: Instant,
    pub(super) checked: Instant,
    pub(super) status_at: Option<Instant>,
    pub(super) listed_at: Instant,
    /// Where looking for lost mirrors goes on.
    pub(super) looked_at: Option<BatchId>,
}

/// Waits for this dispatcher's turn, leads, and waits again, until `stop`.
pub(super) async fn follow(
    ports: &Ports,
    config: &LeadConfig,
    metrics: &Arc<Metrics>,
    stop: &CancellationToken,
) {
    let mut pause = Pause::default();
    while !stop.is_cancelled() {
        let mut consumer = ports.queue.consume(&QueueName::Control, PREFETCH).await;
        let first = tokio::select! {
            () = stop.cancelled() => return,
            first = consumer.recv() => first,
        };
        let Some(first) = first else {
            stop.cancelled().await;
            return;
        };
        let took_over = tokio::select! {
            () = stop.cancelled() => {
                give_back([first.acker], consumer).await;
                return;
            }
            leader = Leader::take_over(ports, config, metrics) => leader,
        };
        match took_over {
            Ok(leader) => {
                pause.worked();
                let left = leader.run(first, consumer, stop).await;
                info!(?left, "this dispatcher does not lead any more");
                metrics.leader.set(0);
            }
            Err(error) => {
                warn!(%error, "this dispatcher cannot take over; another one may");
                give_back([first.acker], consumer).await;
                pause.failed();
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = pause.wait() => {}
        }
    }
}

/// Messages go back for whoever leads next. The subscription ends first, and with it goes back
/// what nobody took: the active consumer would be given again whatever it gives back, for ever.
async fn give_back(held: impl IntoIterator<Item = Acker>, consumer: Consumer) {
    drop(consumer);
    for acker in held {
        acker.requeue().await;
    }
}

impl Leader {
    async fn run(
        mut self,
        first: Delivery,
        mut consumer: Consumer,
        stop: &CancellationToken,
    ) -> Leave {
        let mut group = vec![first];
        loop {
            let turn = tokio::select! {
                turn = self.turn(group) => turn,
                // What it had in hand comes again, as after a crash, when the queue is closed.
                () = late(stop) => break,
            };
            if let Err(leave) = turn {
                self.step_down(consumer).await;
                return leave;
            }
            group = tokio::select! {
                () = stop.cancelled() => break,
                group = receive(&mut consumer, self.wake()) => match group {
                    Some(group) => group,
                    None => return Leave::Closed,
                },
            };
        }
        // Orderly: what can be recorded is, so that the next one has less to do again.
        let last = async {
            if self.publish_pending().await.is_ok() {
                let _ = self.record_due(true).await;
            }
        };
        let recorded = timeout(LAST_MAX, last).await;
        let given_back = timeout(LAST_MAX, self.step_down(consumer)).await;
        if recorded.and(given_back).is_err() {
            warn!("stopping took too long; what was not concluded comes again");
        }
        Leave::Closed
    }

    async fn turn(&mut self, group: Vec<Delivery>) -> Result<(), Leave> {
        if group.is_empty() {
            self.check_in_silence().await?;
        } else {
            let group = self.parse(group);
            if self.heard.elapsed() > SILENCE || group.iter().any(|(what, _)| what.is_rare()) {
                // Otherwise one that is superseded would take for itself what the next must know.
                if let Err(leave) = self.check().await {
                    self.deferred.extend(group);
                    return Err(leave);
                }
            }
            self.heard = Instant::now();
            self.take_in(group).await;
        }
        self.publish_pending().await?;
        self.record_due(false).await?;
        if std::mem::take(&mut self.feed_now) {
            self.feed().await?;
        }
        self.finish().await;
        if self.is_heard() {
            self.mirror().await;
            self.report().await;
            self.canary().await;
            self.look_for_batches().await;
            self.sweep_uploads();
        }
        self.forget_finished();
        Ok(())
    }

    /// Whether messages come: otherwise another one may lead, and write the mirror.
    fn is_heard(&self) -> bool {
        self.heard.elapsed() <= SILENCE
    }

    /// How long to wait for messages before looking what is due.
    fn wake(&self) -> Duration {
        let unfinished =
            |running: &Running| !running.pending.is_empty() || !running.mirror.changes.is_empty();
        let busy = !self.unfed.is_empty()
            || !self.deferred.is_empty()
            || self.batches.values().any(unfinished);
        if busy { WAKE.0 } else { WAKE.1 }
    }

    async fn check_in_silence(&mut self) -> Result<(), Leave> {
        if self.is_heard() || self.checked.elapsed() < SILENCE {
            return Ok(());
        }
        self.metrics.leader.set(0);
        self.checked = Instant::now();
        self.check().await.map(|_| ())
    }

    /// Whether the epoch is still ours; an unreachable store leaves the question open.
    pub(super) async fn check(&mut self) -> Result<bool, Leave> {
        match self.current_epoch().await {
            Ok(epoch) if epoch != self.epoch => Err(Leave::Superseded),
            Ok(_) => {
                self.checked = Instant::now();
                self.metrics.leader.set(1);
                Ok(true)
            }
            Err(error) => {
                warn!(%error, "the epoch cannot be read");
                self.storing.failed();
                Ok(false)
            }
        }
    }

    /// What is not recorded goes back to the broker, and so does what arrived.
    async fn step_down(self, consumer: Consumer) {
        let pending = self.batches.into_values().flat_map(|running| running.pending);
        let held = pending.flat_map(|entry| entry.ackers);
        let deferred = self.deferred.into_iter().map(|(_, acker)| acker);
        // One that several conclusions keep is free with the last of them.
        let held = held.chain(deferred).filter_map(Arc::into_inner);
        give_back(held, consumer).await;
    }
}

/// Ends when a turn has had its time after the signal to stop.
async fn late(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(LAST_MAX).await;
}

/// What has arrived, at most [`GROUP_MAX`]; nothing after `wake`. `None`: the queue was closed.
async fn receive(consumer: &mut Consumer, wake: Duration) -> Option<Vec<Delivery>> {
    let first = match timeout(wake, consumer.recv()).await {
        Ok(first) => first?,
        Err(_) => return Some(Vec::new()),
    };
    let mut group = vec![first];
    group.extend(std::iter::from_fn(|| consumer.try_recv()).take(GROUP_MAX - 1));
    Some(group)
}
