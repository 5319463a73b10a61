//! The queue in memory: a broker within one process, for a cluster in one process and for tests.
//!
//! It does what RabbitMQ does, as `conformance::queue` says: quorum queues, single active consumer,
//! prefetch, expiry, rungs. Rungs are timers of tokio. Not here: how messages move (`broker`).

mod broker;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::time::Instant;

use self::broker::{Broker, Subscription};
use super::{Acked, Consumer, Delivery, Depth, Health, Message, Queue, QueueError, QueueName};
use crate::job::Lane;
use crate::retry::Rung;
use crate::{keys, limits};

/// A connection to a broker in memory. A clone is the same connection; [`MemoryQueue::connection`]
/// makes another one.
#[derive(Clone)]
pub struct MemoryQueue {
    broker: Shared,
    connection: u64,
}

type Shared = Arc<Mutex<Broker>>;

impl MemoryQueue {
    /// A broker without queues, and a connection to it.
    pub fn new() -> Self {
        Self { broker: Arc::default(), connection: 0 }
    }

    /// Another connection to the same broker.
    #[must_use]
    pub fn connection(&self) -> Self {
        let connection = lock(&self.broker).next_number();
        Self { broker: self.broker.clone(), connection }
    }

    /// Loses this connection as a network would: what its consumers hold comes back, they
    /// subscribe again, behind the others.
    pub fn lose(&self) {
        let mut broker = lock(&self.broker);
        broker.lose(|connection| connection == self.connection);
        broker.dispatch_all(&self.broker);
    }

    /// Loses all connections to this broker.
    pub fn lose_connections(&self) {
        let mut broker = lock(&self.broker);
        broker.lose(|_| true);
        broker.dispatch_all(&self.broker);
    }

    fn put(&self, key: &str, message: Message) -> Result<(), QueueError> {
        let mut broker = lock(&self.broker);
        broker.put(key, message)?;
        broker.dispatch(key, &self.broker);
        Ok(())
    }

    /// What every publication is asked first.
    fn admit(&self, message: &Message) -> Result<(), QueueError> {
        let bytes = message.body.len();
        if bytes > limits::MESSAGE_BYTES_MAX {
            return Err(QueueError::TooLarge { bytes, max: limits::MESSAGE_BYTES_MAX });
        }
        self.is_open()
    }

    fn is_open(&self) -> Result<(), QueueError> {
        if lock(&self.broker).is_closed(self.connection) {
            return Err(QueueError::Unavailable("this connection was closed".to_owned()));
        }
        Ok(())
    }
}

impl Default for MemoryQueue {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryQueue").field("connection", &self.connection).finish_non_exhaustive()
    }
}

#[async_trait]
impl Queue for MemoryQueue {
    async fn declare(&self, classes: &[String]) -> Result<(), QueueError> {
        self.is_open()?;
        let mut broker = lock(&self.broker);
        let jobs = classes.iter().flat_map(|class| Lane::ALL.map(|lane| (class, lane)));
        let jobs = jobs.map(|(class, lane)| keys::jobs_queue(class, lane));
        for key in jobs.chain([keys::control_queue(), keys::dead_queue()]) {
            broker.declare(&key);
        }
        broker.dispatch_all(&self.broker);
        Ok(())
    }

    async fn publish_job(
        &self,
        class: &str,
        lane: Lane,
        rung: Option<Rung>,
        message: Message,
    ) -> Result<(), QueueError> {
        self.admit(&message)?;
        let key = keys::jobs_queue(class, lane);
        let Some(rung) = rung else {
            return self.put(&key, message);
        };
        if !lock(&self.broker).has_rungs() {
            return Err(QueueError::Unroutable(keys::delay_queue(rung)));
        }
        // It outlives the connection, as in a broker, but not the broker.
        let (broker, due) = (Arc::downgrade(&self.broker), Instant::now() + wait(rung));
        tokio::spawn(async move {
            tokio::time::sleep_until(due).await;
            if let Some(broker) = broker.upgrade() {
                let mut held = lock(&broker);
                // Like a dead letter: dropped if its queue is gone meanwhile.
                if held.put(&key, message).is_ok() {
                    held.dispatch(&key, &broker);
                }
            }
        });
        Ok(())
    }

    async fn publish(&self, queue: &QueueName, message: Message) -> Result<(), QueueError> {
        self.admit(&message)?;
        self.put(&queue.key(), message)
    }

    async fn consume(&self, queue: &QueueName, prefetch: u16) -> Consumer {
        // No more than the prefetch is ever live; what lost its connection lies beside it until
        // somebody looks.
        let (deliveries, from) = mpsc::channel(2 * usize::from(prefetch.max(1)));
        let (key, connection) = (queue.key(), self.connection);
        let mut broker = lock(&self.broker);
        let id = broker.next_number();
        if !broker.is_closed(connection) {
            let subscription = Subscription { id, connection, prefetch, held: 0, deliveries };
            broker.subscribe(&key, subscription);
            broker.dispatch(&key, &self.broker);
        }
        drop(broker);
        let shared = self.broker.clone();
        Consumer::new(from, move |untaken| {
            let mut broker = lock(&shared);
            broker.unsubscribe(&key, id, untaken.iter().filter_map(number));
            broker.dispatch(&key, &shared);
        })
    }

    async fn depth(&self, queue: &QueueName) -> Result<Depth, QueueError> {
        self.is_open()?;
        let key = queue.key();
        let mut broker = lock(&self.broker);
        broker.dispatch(&key, &self.broker);
        broker.depth(&key).ok_or(QueueError::Unroutable(key))
    }

    fn health(&self) -> Health {
        let connected = self.is_open().is_ok();
        Health { connected, server: Some("memory".to_owned()), ..Health::default() }
    }

    async fn close(&self) {
        let mut broker = lock(&self.broker);
        broker.close(self.connection);
        broker.dispatch_all(&self.broker);
    }
}

fn wait(rung: Rung) -> Duration {
    Duration::from_secs(rung.seconds())
}

fn number(delivery: &Delivery) -> Option<u64> {
    match &delivery.acker.0 {
        super::AckerKind::Memory(acker) => Some(acker.number),
        #[cfg(feature = "rabbit")]
        super::AckerKind::Rabbit(_) => None,
    }
}

/// A panic elsewhere does not make the messages wrong: every change is whole before anything can
/// panic.
fn lock(broker: &Shared) -> MutexGuard<'_, Broker> {
    broker.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Acknowledges one delivery.
pub(crate) struct MemoryAcker {
    broker: Shared,
    key: String,
    number: u64,
}

impl MemoryAcker {
    pub(crate) fn ack(self) -> Acked {
        self.end(Broker::ack)
    }

    pub(crate) fn requeue(self) -> Acked {
        self.end(Broker::requeue)
    }

    pub(crate) fn is_lost(&self) -> bool {
        let mut broker = lock(&self.broker);
        let lost = !broker.holds(&self.key, self.number);
        if lost {
            // It made room for another one where it lay.
            broker.dispatch(&self.key, &self.broker);
        }
        lost
    }

    fn end(self, what: impl FnOnce(&mut Broker, &str, u64) -> bool) -> Acked {
        let mut broker = lock(&self.broker);
        let done = what(&mut broker, &self.key, self.number);
        broker.dispatch(&self.key, &self.broker);
        if done { Acked::Yes } else { Acked::LeaseLost }
    }
}

impl fmt::Debug for MemoryAcker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryAcker({} of {})", self.number, self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::queue as conformance;

    struct InMemory(MemoryQueue);

    #[async_trait]
    impl conformance::Fixture for InMemory {
        async fn connect(&self) -> Arc<dyn Queue> {
            Arc::new(self.0.connection())
        }

        async fn lose_connections(&self) {
            self.0.lose_connections();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_in_memory_does_what_a_broker_does() {
        conformance::all(&async || InMemory(MemoryQueue::new())).await;
    }

    #[tokio::test]
    async fn what_a_closed_connection_held_comes_back_and_it_takes_nothing_more() {
        let queue = MemoryQueue::new();
        let other = queue.connection();
        queue.declare(&[]).await.unwrap();
        let mut consumer = queue.consume(&QueueName::Control, 1).await;
        queue.publish(&QueueName::Control, Message::default()).await.unwrap();
        let held = consumer.recv().await.unwrap();
        queue.close().await;
        assert!(consumer.recv().await.is_none());
        assert_eq!(held.acker.ack().await, Acked::LeaseLost);
        assert!(!queue.health().connected);
        let refused = queue.publish(&QueueName::Control, Message::default()).await;
        assert!(matches!(refused, Err(QueueError::Unavailable(_))));
        assert!(queue.consume(&QueueName::Control, 1).await.recv().await.is_none());
        let mut consumer = other.consume(&QueueName::Control, 1).await;
        assert!(consumer.recv().await.unwrap().redelivered);
    }

    #[tokio::test]
    async fn the_active_consumer_of_control_is_another_one_after_its_connection_was_lost() {
        let first = MemoryQueue::new();
        let second = first.connection();
        first.declare(&[]).await.unwrap();
        let mut active = first.consume(&QueueName::Control, 5).await;
        let mut waiting = second.consume(&QueueName::Control, 5).await;
        first.lose();
        first.publish(&QueueName::Control, Message::default()).await.unwrap();
        assert!(waiting.recv().await.is_some());
        assert!(active.try_recv().is_none());
    }
}
