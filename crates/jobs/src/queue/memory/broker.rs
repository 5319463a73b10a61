//! How messages move within the broker in memory. Not here: locks, timers, the port.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::MemoryAcker;
use crate::keys;
use crate::queue::{Acker, AckerKind, Delivery, Depth, Message, QueueError};

/// Queues by name, with their consumers. A queue that was not declared has consumers only.
#[derive(Default)]
pub(super) struct Broker {
    queues: BTreeMap<String, Held>,
    closed: BTreeSet<u64>,
    last: u64,
}

#[derive(Default)]
struct Held {
    declared: bool,
    ready: VecDeque<Stored>,
    /// By the number of the delivery.
    unacked: BTreeMap<u64, (Holder, Stored)>,
    subscriptions: VecDeque<Subscription>,
}

struct Stored {
    message: Message,
    /// Its place in the queue, which it keeps.
    place: u64,
    redelivered: bool,
    expires: Option<Instant>,
    published_at: SystemTime,
}

/// Who has a message: consumer and connection.
#[derive(Clone, Copy)]
struct Holder {
    consumer: u64,
    connection: u64,
}

pub(super) struct Subscription {
    pub(super) id: u64,
    pub(super) connection: u64,
    pub(super) prefetch: u16,
    pub(super) held: u16,
    pub(super) deliveries: mpsc::Sender<Delivery>,
}

impl Subscription {
    /// Prefetch 0 is no limit in a broker, and none is wanted here either: at least one.
    fn has_room(&self) -> bool {
        self.held < self.prefetch.max(1) && self.deliveries.capacity() > 0
    }
}

impl Broker {
    pub(super) fn next_number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    pub(super) fn declare(&mut self, key: &str) {
        self.queues.entry(key.to_owned()).or_default().declared = true;
    }

    /// Rungs are declared with everything else.
    pub(super) fn has_rungs(&self) -> bool {
        self.queues.get(&keys::control_queue()).is_some_and(|queue| queue.declared)
    }

    pub(super) fn put(&mut self, key: &str, message: Message) -> Result<(), QueueError> {
        let place = self.next_number();
        let queue = self.queues.get_mut(key).filter(|queue| queue.declared);
        let queue = queue.ok_or_else(|| QueueError::Unroutable(key.to_owned()))?;
        let expires = message.expires.map(|after| Instant::now() + after);
        let published_at = SystemTime::now();
        queue.ready.push_back(Stored { message, place, redelivered: false, expires, published_at });
        Ok(())
    }

    pub(super) fn subscribe(&mut self, key: &str, subscription: Subscription) {
        self.queues.entry(key.to_owned()).or_default().subscriptions.push_back(subscription);
    }

    /// Ends a subscription; what it holds stays with whoever took it, but for what nobody took.
    pub(super) fn unsubscribe(&mut self, key: &str, id: u64, untaken: impl Iterator<Item = u64>) {
        if let Some(queue) = self.queues.get_mut(key) {
            queue.subscriptions.retain(|subscription| subscription.id != id);
            untaken.for_each(|number| {
                queue.take_back(number);
            });
        }
    }

    pub(super) fn depth(&self, key: &str) -> Option<Depth> {
        let queue = self.queues.get(key).filter(|queue| queue.declared)?;
        let receiving = if key == keys::control_queue() { 1 } else { usize::MAX };
        let consumers = queue.subscriptions.len().min(receiving);
        let [ready, consumers] = [queue.ready.len(), consumers].map(|number| number as u64);
        Some(Depth { ready, consumers })
    }

    pub(super) fn holds(&self, key: &str, number: u64) -> bool {
        self.queues.get(key).is_some_and(|queue| queue.unacked.contains_key(&number))
    }

    /// Whether it was there to be acknowledged.
    pub(super) fn ack(&mut self, key: &str, number: u64) -> bool {
        self.queues.get_mut(key).and_then(|queue| queue.release(number)).is_some()
    }

    /// Whether it was there to be given back.
    pub(super) fn requeue(&mut self, key: &str, number: u64) -> bool {
        self.queues.get_mut(key).and_then(|queue| queue.take_back(number)).is_some()
    }

    /// Takes back what these connections hold. Their consumers subscribe again, behind the others.
    pub(super) fn lose(&mut self, whose: impl Fn(u64) -> bool) {
        for queue in self.queues.values_mut() {
            let held = queue.unacked.iter().filter(|(_, (holder, _))| whose(holder.connection));
            let held: Vec<u64> = held.map(|(number, _)| *number).collect();
            held.into_iter().for_each(|number| {
                queue.take_back(number);
            });
            let all = std::mem::take(&mut queue.subscriptions);
            let (lost, mut kept): (VecDeque<_>, VecDeque<_>) =
                all.into_iter().partition(|subscription| whose(subscription.connection));
            kept.extend(lost);
            queue.subscriptions = kept;
        }
    }

    pub(super) fn close(&mut self, connection: u64) {
        self.lose(|it| it == connection);
        for queue in self.queues.values_mut() {
            queue.subscriptions.retain(|subscription| subscription.connection != connection);
        }
        self.closed.insert(connection);
    }

    pub(super) fn is_closed(&self, connection: u64) -> bool {
        self.closed.contains(&connection)
    }

    pub(super) fn dispatch_all(&mut self, shared: &Arc<Mutex<Self>>) {
        let keys: Vec<String> = self.queues.keys().cloned().collect();
        keys.iter().for_each(|key| self.dispatch(key, shared));
    }

    /// Hands out what is ready to whom has room.
    pub(super) fn dispatch(&mut self, key: &str, shared: &Arc<Mutex<Self>>) {
        let Some(queue) = self.queues.get_mut(key).filter(|queue| queue.declared) else { return };
        let now = Instant::now();
        queue.ready.retain(|stored| stored.expires.is_none_or(|at| now < at));
        let single = key == keys::control_queue();
        while let Some(stored) = queue.ready.pop_front() {
            let Some(at) = queue.whose_turn(single) else {
                return queue.ready.push_front(stored);
            };
            self.last += 1;
            let number = self.last;
            let subscription = &mut queue.subscriptions[at];
            let acker = MemoryAcker { broker: shared.clone(), key: key.to_owned(), number };
            let delivery = Delivery {
                body: stored.message.body.clone(),
                traceparent: stored.message.traceparent.clone(),
                redelivered: stored.redelivered,
                published_at: Some(stored.published_at),
                dead_reason: None,
                acker: Acker(AckerKind::Memory(acker)),
            };
            if subscription.deliveries.try_send(delivery).is_err() {
                // Dropped this moment, and about to unsubscribe: the next one's turn.
                queue.subscriptions.remove(at);
                queue.ready.push_front(stored);
                continue;
            }
            subscription.held += 1;
            let (consumer, connection) = (subscription.id, subscription.connection);
            queue.unacked.insert(number, (Holder { consumer, connection }, stored));
            if !single {
                queue.subscriptions.rotate_left(at + 1);
            }
        }
    }
}

impl Held {
    /// Which subscription is next; of a single active consumer always the first.
    fn whose_turn(&self, single: bool) -> Option<usize> {
        let considered = if single { 1 } else { self.subscriptions.len() };
        self.subscriptions.iter().take(considered).position(Subscription::has_room)
    }

    fn release(&mut self, number: u64) -> Option<Stored> {
        let (holder, stored) = self.unacked.remove(&number)?;
        let mut subscriptions = self.subscriptions.iter_mut();
        if let Some(subscription) = subscriptions.find(|it| it.id == holder.consumer) {
            subscription.held = subscription.held.saturating_sub(1);
        }
        Some(stored)
    }

    /// Puts a message back where it was.
    fn take_back(&mut self, number: u64) -> Option<()> {
        let stored = self.release(number)?;
        let at = self.ready.partition_point(|other| other.place < stored.place);
        self.ready.insert(at, Stored { redelivered: true, ..stored });
        Some(())
    }
}
