//! The port to the queue: RabbitMQ, or memory within one process.
//!
//! Both run `conformance::queue`. What holds of both: a publication that returned `Ok` is stored;
//! a message is delivered at least once; it is gone only when it was acknowledged; what a
//! [`Consumer`] was given comes back, marked as redelivered, when the connection or the process is
//! lost. Neither gives up on a lost connection: calls fail with [`QueueError::Unavailable`] until it
//! is back, consumers wait.

pub mod memory;
#[cfg(feature = "rabbit")]
pub mod rabbit;

use std::fmt;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::job::Lane;
use crate::keys;
use crate::retry::Rung;

/// A queue that messages are published to or taken from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum QueueName {
    /// Jobs of a class and lane.
    Jobs {
        /// Which workers.
        class: String,
        /// Which of the two.
        lane: Lane,
    },
    /// Outcomes, ticks and changes. Only one consumer at a time receives (single active consumer).
    Control,
    /// What the broker gave up.
    Dead,
}

impl QueueName {
    /// The queue of a class and lane.
    pub fn jobs(class: &str, lane: Lane) -> Self {
        Self::Jobs { class: class.to_owned(), lane }
    }

    /// Its name in the broker.
    pub fn key(&self) -> String {
        match self {
            Self::Jobs { class, lane } => keys::jobs_queue(class, *lane),
            Self::Control => keys::control_queue(),
            Self::Dead => keys::dead_queue(),
        }
    }
}

/// A message to publish.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// JSON.
    pub body: Bytes,
    /// The broker's message id: the job's, or empty.
    pub id: String,
    /// `excite.job.v1`, `excite.control.v1`.
    pub kind: String,
    /// W3C trace context, carried in headers only.
    pub traceparent: Option<String>,
    /// How long it may wait in its queue; then it is dropped.
    pub expires: Option<Duration>,
}

/// What was delivered.
#[derive(Debug)]
pub struct Delivery {
    /// The body.
    pub body: Bytes,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// It was delivered before, here or elsewhere.
    pub redelivered: bool,
    /// When it was published, by the publisher's clock, of which RabbitMQ keeps whole seconds. Nothing is
    /// decided by it.
    pub published_at: Option<SystemTime>,
    /// Why the broker gave it up, for messages of [`QueueName::Dead`].
    pub dead_reason: Option<String>,
    /// How to be rid of it.
    pub acker: Acker,
}

/// Acknowledges one delivery. Dropped without a word, the message stays with its consumer until
/// that is dropped too, or the connection is lost.
#[derive(Debug)]
pub struct Acker(pub(crate) AckerKind);

#[derive(Debug)]
pub(crate) enum AckerKind {
    Memory(memory::MemoryAcker),
    #[cfg(feature = "rabbit")]
    Rabbit(rabbit::RabbitAcker),
}

/// Whether an acknowledgement was in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acked {
    /// The message is gone.
    Yes,
    /// The connection it came by is lost: it is delivered again, here or elsewhere.
    LeaseLost,
}

impl Acker {
    /// Done: the message is gone. Bounded by the back end's time-out; a time-out is a lost lease.
    pub async fn ack(self) -> Acked {
        match self.0 {
            AckerKind::Memory(acker) => acker.ack(),
            #[cfg(feature = "rabbit")]
            AckerKind::Rabbit(acker) => acker.ack().await,
        }
    }

    /// Whether it is known that the connection is lost.
    fn is_lost(&self) -> bool {
        match &self.0 {
            AckerKind::Memory(acker) => acker.is_lost(),
            #[cfg(feature = "rabbit")]
            AckerKind::Rabbit(acker) => acker.is_lost(),
        }
    }

    /// Not done: the message goes back to its queue at once, for any consumer.
    pub async fn requeue(self) -> Acked {
        match self.0 {
            AckerKind::Memory(acker) => acker.requeue(),
            #[cfg(feature = "rabbit")]
            AckerKind::Rabbit(acker) => acker.requeue().await,
        }
    }
}

/// What a back end does when a [`Consumer`] is dropped, with what was delivered and never taken.
type Unsubscribe = Box<dyn FnOnce(Vec<Delivery>) + Send + Sync>;

/// Deliveries of one queue, also after a lost connection. Dropping it ends the subscription and
/// gives back what was not taken; what was taken can still be acknowledged.
pub struct Consumer {
    deliveries: mpsc::Receiver<Delivery>,
    unsubscribe: Option<Unsubscribe>,
}

impl Consumer {
    pub(crate) fn new(
        deliveries: mpsc::Receiver<Delivery>,
        unsubscribe: impl FnOnce(Vec<Delivery>) + Send + Sync + 'static,
    ) -> Self {
        Self { deliveries, unsubscribe: Some(Box::new(unsubscribe)) }
    }

    /// The next delivery. `None` only if the queue itself was closed.
    pub async fn recv(&mut self) -> Option<Delivery> {
        loop {
            let delivery = self.deliveries.recv().await?;
            // What waited here while its connection was lost comes again: once is enough.
            if !delivery.acker.is_lost() {
                return Some(delivery);
            }
        }
    }

    /// A delivery that is there already.
    pub fn try_recv(&mut self) -> Option<Delivery> {
        loop {
            let delivery = self.deliveries.try_recv().ok()?;
            if !delivery.acker.is_lost() {
                return Some(delivery);
            }
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.deliveries.close();
        let untaken = std::iter::from_fn(|| self.deliveries.try_recv().ok()).collect();
        if let Some(unsubscribe) = self.unsubscribe.take() {
            unsubscribe(untaken);
        }
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").finish_non_exhaustive()
    }
}

/// What a queue holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Depth {
    /// Messages that nobody has.
    pub ready: u64,
    /// Consumers that receive: of [`QueueName::Control`] one, however many wait. One that was dropped
    /// may count until all that it took is acknowledged.
    pub consumers: u64,
}

/// How the queue is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// Both directions work.
    pub connected: bool,
    /// The broker takes no publications: it is short of memory or disk.
    pub blocked: bool,
    /// The broker's product and version.
    pub server: Option<String>,
    /// What went wrong last.
    pub last_error: Option<String>,
}

/// A failure of the queue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// There is no connection at the moment; it is being made again.
    #[error("the broker cannot be reached: {0}")]
    Unavailable(String),
    /// No answer in time. The message may be stored or not: publish it again.
    #[error("the broker did not confirm within {} s", .0.as_secs_f64())]
    Timeout(Duration),
    /// The broker takes no publications.
    #[error("the broker is blocked: {0}")]
    Blocked(String),
    /// No queue takes such messages.
    #[error("no queue takes messages for `{0}`")]
    Unroutable(String),
    /// The queue is full.
    #[error("the queue `{0}` is full")]
    Full(String),
    /// The message has more bytes than a broker should hold.
    #[error("the message has {bytes} bytes, more than {max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The most.
        max: usize,
    },
    /// The broker's objects are not as they should be.
    #[error("{0}")]
    Topology(String),
}

/// The queue.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Makes what the dispatcher needs: the queues of these classes, rungs, `control`, `dead`.
    /// Doing it again changes nothing.
    ///
    /// # Errors
    /// [`QueueError::Topology`] names queue, argument and remedy if one is there otherwise.
    async fn declare(&self, classes: &[String]) -> Result<(), QueueError>;

    /// Publishes a job, at once or after a rung, and waits until it is stored.
    ///
    /// # Errors
    /// See [`QueueError`]; unless it is `Unroutable` or `TooLarge`, the message may be stored.
    async fn publish_job(
        &self,
        class: &str,
        lane: Lane,
        rung: Option<Rung>,
        message: Message,
    ) -> Result<(), QueueError>;

    /// Publishes to [`QueueName::Control`] or, what cannot be read, to [`QueueName::Dead`], and
    /// waits until it is stored.
    ///
    /// # Errors
    /// As [`Queue::publish_job`].
    async fn publish(&self, queue: &QueueName, message: Message) -> Result<(), QueueError>;

    /// Subscribes. At most `prefetch` deliveries are unacknowledged at a time. Never fails for want
    /// of a connection: the consumer waits for it.
    async fn consume(&self, queue: &QueueName, prefetch: u16) -> Consumer;

    /// What a queue holds.
    ///
    /// # Errors
    /// If the broker cannot be asked, or there is no such queue ([`QueueError::Unroutable`]).
    async fn depth(&self, queue: &QueueName) -> Result<Depth, QueueError>;

    /// How the queue is, as far as it is known now.
    fn health(&self) -> Health;

    /// Stops: consumers end, connections close. Unacknowledged messages go back.
    async fn close(&self);
}
