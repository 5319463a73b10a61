//! The leading half of a dispatcher: it feeds the queue, concludes outcomes and keeps the mirror.
//!
//! Every replica runs [`lead`]. The broker delivers `control` to one of them at a time, and whoever
//! receives from it leads: it raises the epoch in `leader.json`, rebuilds the unfinished batches
//! from the store, and goes on until another epoch is there. One task owns all state, so there are
//! no locks. What follows of an outcome is published, then recorded in `done/`, then the outcome is
//! acknowledged: a crash anywhere gives a duplicate, never a loss.
//!
//! Not here: accepting batches and everything over HTTP; what a job's state becomes
//! (`excite_jobs::step`), which rung (`excite_jobs::next`).

pub(crate) mod activity;
mod canary;
mod conclude;
mod feed;
mod forward;
mod leader;
mod metrics;
mod mirror;
mod publish;
mod record;
mod running;
mod share;
mod status;
mod takeover;
mod uploads;

use std::sync::Arc;
use std::time::Duration;

use excite_jobs::queue::QueueError;
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub use self::metrics::Metrics;
use crate::pause::Pause;
use crate::ports::Ports;

/// The message type of a job in the broker.
pub const JOB_TYPE: &str = "excite.job.v1";

/// How to lead.
#[derive(Debug, Clone)]
pub struct LeadConfig {
    /// This dispatcher's name: shown, never compared.
    pub name: String,
    /// Classes whose queues are declared at the start; those of batches are added.
    pub classes: Vec<String>,
    /// Between two ticks: how often is fed.
    pub tick: Duration,
    /// Least jobs of a queue that may wait in the broker.
    pub window_min: u32,
    /// Most jobs of a queue that may wait in the broker.
    pub window_max: u32,
    /// Most jobs of a batch that are claimed at a time.
    pub claim: u32,
    /// Jobs of a batch of weight 1 that are fed before the next batch's turn.
    pub quantum: u32,
    /// How long conclusions are collected for one object in the store.
    pub done_delay: Duration,
    /// How long a cancelled batch is announced to workers: longer than the longest rung.
    pub cancelled_for: Duration,
    /// The queue was made with this process: nothing that was published before is in it.
    pub queue_is_new: bool,
    /// A job through the whole system now and then; none if no model is named.
    pub canary: Option<CanaryConfig>,
}

impl LeadConfig {
    /// What is used where nobody says otherwise.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            classes: vec!["default".into()],
            tick: Duration::from_millis(500),
            window_min: 16,
            window_max: 5000,
            claim: 256,
            quantum: 16,
            done_delay: Duration::from_secs(1),
            cancelled_for: Duration::from_secs(2 * 3600),
            queue_is_new: false,
            canary: None,
        }
    }
}

/// Which job goes through the system now and then.
#[derive(Debug, Clone)]
pub struct CanaryConfig {
    /// Name of a model in the store, without digest.
    pub model: String,
    /// Between two of them.
    pub every: Duration,
}

/// Why this dispatcher cannot lead at all.
#[derive(Debug, thiserror::Error)]
pub enum LeadError {
    /// The broker's objects are not as they should be.
    #[error(transparent)]
    Queue(QueueError),
}

/// Leads whenever it is this dispatcher's turn, until `stop`. Ends orderly: what was concluded is
/// recorded, the rest goes back to the broker.
///
/// # Errors
/// [`LeadError`] if the broker's topology is wrong, which a person must mend. Nothing else ends it.
pub async fn lead(
    ports: Ports,
    config: LeadConfig,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> Result<(), LeadError> {
    if declare(&ports, &config, &stop).await?.is_none() {
        return Ok(());
    }
    let ticks = forward::tick(&ports, &config, &stop);
    let dead = forward::dead_letters(&ports, &metrics, &stop);
    let turns = leader::follow(&ports, &config, &metrics, &stop);
    tokio::join!(ticks, dead, turns);
    Ok(())
}

/// Declares the topology, waiting for the broker; `None` if stopped meanwhile.
async fn declare(
    ports: &Ports,
    config: &LeadConfig,
    stop: &CancellationToken,
) -> Result<Option<()>, LeadError> {
    let mut pause = Pause::default();
    loop {
        let declared = tokio::select! {
            () = stop.cancelled() => return Ok(None),
            declared = ports.queue.declare(&config.classes) => declared,
        };
        match declared {
            Ok(()) => return Ok(Some(())),
            Err(error @ QueueError::Topology(_)) => return Err(LeadError::Queue(error)),
            Err(error) => warn!(%error, "queues cannot be declared yet"),
        }
        pause.failed();
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = pause.wait() => {}
        }
    }
}
