//! What every queue must do.
//!
//! Each check takes a broker of its own. Nothing sleeps: what takes time in a broker is asked for
//! until it is so, or a limit is over.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use crate::job::Lane;
use crate::limits;
use crate::queue::{Acked, Consumer, Delivery, Depth, Message, Queue, QueueError, QueueName};
use crate::retry::Rung;

/// A broker of its own, without queues.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// Another connection, as another process would have.
    async fn connect(&self) -> Arc<dyn Queue>;

    /// Ends every connection as a network would, and returns when the broker has noticed.
    async fn lose_connections(&self);
}

/// How long anything may take: a broker beside other tests is slow.
const LIMIT: Duration = Duration::from_secs(60);
const CLASS: &str = "default";

/// All checks. Those that lose connections come last and one by one, for a fixture may lose those
/// of other checks too.
pub async fn all<F: Fixture>(make: &impl AsyncFn() -> F) {
    tokio::join!(async { rungs_delay(&make().await).await }, async {
        order_and_depth(&make().await).await;
        a_consumer_waits_for_its_queue(&make().await).await;
        refusals(&make().await).await;
        an_unroutable_one_among_many(&make().await).await;
        prefetch(&make().await).await;
        requeue(&make().await).await;
        a_dropped_consumer(&make().await).await;
        one_active_consumer(&make().await).await;
        expiry(&make().await).await;
        parallel_publications(&make().await).await;
    });
    a_lost_connection(&make().await).await;
    nothing_is_lost_with_connections(&make().await).await;
}

/// What is published in order is delivered in order, once, with its trace; declaring again
/// changes nothing.
pub async fn order_and_depth(fixture: &impl Fixture) {
    let queue = declared(fixture).await;
    // Brokers keep whole seconds.
    let before = SystemTime::now() - Duration::from_secs(1);
    for n in 0..20 {
        publish(&queue, &n.to_string()).await;
    }
    queue.declare(&[CLASS.to_owned(), "other".to_owned()]).await.unwrap();
    depth_is(&queue, &jobs(), Depth { ready: 20, consumers: 0 }).await;
    assert_eq!(queue.depth(&QueueName::jobs("other", Lane::Bulk)).await, Ok(Depth::default()));
    let mut consumer = queue.consume(&jobs(), 3).await;
    for n in 0..20 {
        let delivery = next(&mut consumer).await;
        assert_eq!(text(&delivery), n.to_string());
        assert!(!delivery.redelivered);
        assert_eq!(delivery.traceparent.as_deref(), Some(TRACE));
        assert_eq!(delivery.dead_reason, None);
        let published = delivery.published_at.unwrap();
        assert!(before <= published && published <= SystemTime::now(), "{published:?}");
        assert_eq!(delivery.acker.ack().await, Acked::Yes);
    }
    depth_is(&queue, &jobs(), Depth { ready: 0, consumers: 1 }).await;
    assert!(consumer.try_recv().is_none());
    let dead = message("unreadable");
    queue.publish(&QueueName::Dead, dead).await.unwrap();
    let mut consumer = queue.consume(&QueueName::Dead, 1).await;
    assert_eq!(text(&next(&mut consumer).await), "unreadable");
    assert!(queue.health().connected);
    assert!(!queue.health().blocked);
}

/// A worker may be there before the dispatcher.
pub async fn a_consumer_waits_for_its_queue(fixture: &impl Fixture) {
    let worker = fixture.connect().await;
    let mut consumer = worker.consume(&jobs(), 1).await;
    let queue = declared(fixture).await;
    publish(&queue, "first").await;
    assert_eq!(text(&next(&mut consumer).await), "first");
}

/// What cannot be stored is refused.
pub async fn refusals(fixture: &impl Fixture) {
    let queue = ready(fixture).await;
    let control = queue.publish(&QueueName::Control, message("x")).await;
    assert!(matches!(control, Err(QueueError::Unroutable(_))), "{control:?}");
    assert!(matches!(queue.depth(&jobs()).await, Err(QueueError::Unroutable(_))));
    queue.declare(&[CLASS.to_owned()]).await.unwrap();
    let other = queue.publish_job("other", Lane::Bulk, None, message("x")).await;
    assert!(matches!(other, Err(QueueError::Unroutable(_))), "{other:?}");
    let body = Bytes::from(vec![b'x'; limits::MESSAGE_BYTES_MAX + 1]);
    let large = Message { body, ..message("") };
    let large = queue.publish_job(CLASS, Lane::Bulk, None, large).await;
    assert!(matches!(large, Err(QueueError::TooLarge { .. })), "{large:?}");
    let body = Bytes::from(vec![b'x'; limits::MESSAGE_BYTES_MAX]);
    let largest = Message { body: body.clone(), ..message("") };
    queue.publish_job(CLASS, Lane::Bulk, None, largest).await.unwrap();
    let mut consumer = queue.consume(&jobs(), 1).await;
    assert_eq!(next(&mut consumer).await.body, body);
}

/// Whoever publishes what nobody takes is told, and nobody else.
pub async fn an_unroutable_one_among_many(fixture: &impl Fixture) {
    let queue = declared(fixture).await;
    let publications = (0..400).map(|n| {
        let class = if n % 7 == 3 { "nobody" } else { CLASS };
        let queue = &queue;
        async move {
            let done = queue.publish_job(class, Lane::Bulk, None, message("x")).await;
            assert_eq!(matches!(done, Err(QueueError::Unroutable(_))), class == "nobody", "{n}");
            assert_eq!(done.is_ok(), class == CLASS, "{n}: {done:?}");
        }
    });
    join_all(publications).await;
    let stored = (0..400).filter(|n| n % 7 != 3).count() as u64;
    depth_is(&queue, &jobs(), Depth { ready: stored, consumers: 0 }).await;
}

/// No consumer holds more than its prefetch.
pub async fn prefetch(fixture: &impl Fixture) {
    let queue = declared(fixture).await;
    for n in 0..6 {
        publish(&queue, &n.to_string()).await;
    }
    let mut one = queue.consume(&jobs(), 2).await;
    depth_is(&queue, &jobs(), Depth { ready: 4, consumers: 1 }).await;
    let mut other = queue.consume(&jobs(), 1).await;
    depth_is(&queue, &jobs(), Depth { ready: 3, consumers: 2 }).await;
    let first = next(&mut one).await;
    assert_eq!([text(&first), text(&next(&mut one).await)], ["0", "1"]);
    assert!(one.try_recv().is_none());
    assert_eq!(text(&next(&mut other).await), "2");
    assert_eq!(first.acker.ack().await, Acked::Yes);
    assert_eq!(text(&next(&mut one).await), "3");
    depth_is(&queue, &jobs(), Depth { ready: 2, consumers: 2 }).await;
}

/// What is given back comes again, before the others.
pub async fn requeue(fixture: &impl Fixture) {
    let queue = declared(fixture).await;
    for n in 0..3 {
        publish(&queue, &n.to_string()).await;
    }
    let mut consumer = queue.consume(&jobs(), 1).await;
    let first = next(&mut consumer).await;
    assert_eq!(first.acker.requeue().await, Acked::Yes);
    let again = next(&mut consumer).await;
    assert_eq!((text(&again), again.redelivered), ("0".to_owned(), true));
    assert_eq!(again.acker.ack().await, Acked::Yes);
    let second = next(&mut consumer).await;
    assert_eq!((text(&second), second.redelivered), ("1".to_owned(), false));
}

/// Its deliveries can be acknowledged; what it did not take is there for others.
pub async fn a_dropped_consumer(fixture: &impl Fixture) {
    let queue = declared(fixture).await;
    for n in 0..4 {
        publish(&queue, &n.to_string()).await;
    }
    let mut consumer = queue.consume(&jobs(), 4).await;
    depth_is(&queue, &jobs(), Depth { ready: 0, consumers: 1 }).await;
    let (first, second) = (next(&mut consumer).await, next(&mut consumer).await);
    drop(consumer);
    // A quorum queue counts the consumer as long as it holds something.
    eventually("what was not taken", async || match queue.depth(&jobs()).await {
        Ok(Depth { ready: 2, .. }) => Ok(()),
        other => Err(other),
    })
    .await;
    assert_eq!(first.acker.ack().await, Acked::Yes);
    let mut other = queue.consume(&jobs(), 4).await;
    for n in ["2", "3"] {
        assert_eq!(text(&next(&mut other).await), n);
    }
    assert_eq!(second.acker.requeue().await, Acked::Yes);
    let second = next(&mut other).await;
    assert_eq!((text(&second), second.redelivered), ("1".to_owned(), true));
    // Now it holds nothing, and only the other one is left.
    depth_is(&queue, &jobs(), Depth { ready: 0, consumers: 1 }).await;
}

/// Of the consumers of `control` one receives; when it goes, the next.
pub async fn one_active_consumer(fixture: &impl Fixture) {
    let queue = declared(fixture).await;
    let other = fixture.connect().await;
    let control = QueueName::Control;
    let mut active = queue.consume(&control, 10).await;
    depth_is(&queue, &control, Depth { ready: 0, consumers: 1 }).await;
    let mut waiting = other.consume(&control, 10).await;
    depth_is(&queue, &control, Depth { ready: 0, consumers: 1 }).await;
    let mut held = Vec::new();
    for n in 0..5 {
        queue.publish(&control, message(&n.to_string())).await.unwrap();
        held.push(next(&mut active).await);
    }
    assert!(waiting.try_recv().is_none());
    drop(active);
    // A broker elsewhere may deliver this one to the first before it hears that it is gone.
    queue.publish(&control, message("5")).await.unwrap();
    assert_eq!(text(&next(&mut waiting).await), "5");
    queue.publish(&control, message("6")).await.unwrap();
    let next = next(&mut waiting).await;
    assert_eq!((text(&next), next.redelivered), ("6".to_owned(), false));
    for delivery in held {
        assert_eq!(delivery.acker.ack().await, Acked::Yes);
    }
}

/// What expires is gone, and nothing else.
pub async fn expiry(fixture: &impl Fixture) {
    let queue = declared(fixture).await;
    let expires = Some(Duration::from_millis(50));
    queue.publish(&QueueName::Control, Message { expires, ..message("old") }).await.unwrap();
    queue.publish(&QueueName::Control, message("stays")).await.unwrap();
    depth_is(&queue, &QueueName::Control, Depth { ready: 1, consumers: 0 }).await;
    let mut consumer = queue.consume(&QueueName::Control, 2).await;
    assert_eq!(text(&next(&mut consumer).await), "stays");
}

/// A job comes to its own queue when its rung is over.
pub async fn rungs_delay(fixture: &impl Fixture) {
    let queue = declared(fixture).await;
    let mut consumer = queue.consume(&jobs(), 2).await;
    let begin = Instant::now();
    let (rung, lane) = (Some(Rung::Seconds5), Lane::Bulk);
    queue.publish_job(CLASS, lane, rung, message("later")).await.unwrap();
    queue.publish_job(CLASS, lane, None, message("now")).await.unwrap();
    assert_eq!(text(&next(&mut consumer).await), "now");
    let later = next(&mut consumer).await;
    assert_eq!((text(&later), later.redelivered), ("later".to_owned(), false));
    assert_eq!(later.traceparent.as_deref(), Some(TRACE));
    let waited = begin.elapsed();
    assert!(waited >= Duration::from_millis(4900), "{waited:?}");
    assert_eq!(later.acker.ack().await, Acked::Yes);
}

/// Hundreds at once are stored, each of them.
pub async fn parallel_publications(fixture: &impl Fixture) {
    let queue = declared(fixture).await;
    let bodies: BTreeSet<String> = (0..300).map(|n| n.to_string()).collect();
    join_all(bodies.iter().map(|body| publish(&queue, body))).await;
    let mut consumer = queue.consume(&jobs(), 50).await;
    let mut seen = BTreeSet::new();
    for _ in 0..bodies.len() {
        let delivery = next(&mut consumer).await;
        seen.insert(text(&delivery));
        assert_eq!(delivery.acker.ack().await, Acked::Yes);
    }
    assert_eq!(seen, bodies);
}

/// What a lost connection brought comes again, and its leases are lost. The consumer goes on.
pub async fn a_lost_connection(fixture: &impl Fixture) {
    let queue = declared(fixture).await;
    let mut consumer = queue.consume(&jobs(), 1).await;
    publish(&queue, "held").await;
    let held = next(&mut consumer).await;
    assert!(!held.redelivered);
    fixture.lose_connections().await;
    let again = next(&mut consumer).await;
    assert_eq!((text(&again), again.redelivered), ("held".to_owned(), true));
    assert_eq!(held.acker.ack().await, Acked::LeaseLost);
    assert_eq!(again.acker.ack().await, Acked::Yes);
    publish(&queue, "after").await;
    let after = next(&mut consumer).await;
    assert_eq!((text(&after), after.redelivered), ("after".to_owned(), false));
    let untaken = fixture.connect().await.consume(&jobs(), 1).await;
    drop(untaken);
    assert_eq!(after.acker.requeue().await, Acked::Yes);
}

/// With connections lost again and again, every publication that was confirmed is delivered.
pub async fn nothing_is_lost_with_connections(fixture: &impl Fixture) {
    let queue = declared(fixture).await;
    let mut consumer = queue.consume(&jobs(), 8).await;
    let bodies: BTreeSet<String> = (0..200).map(|n| n.to_string()).collect();
    let publishing = async {
        for body in &bodies {
            publish(&queue, body).await;
        }
    };
    let losing = async {
        for _ in 0..3 {
            fixture.lose_connections().await;
        }
    };
    let consuming = async {
        let mut done = BTreeSet::new();
        while done.len() < bodies.len() {
            let delivery = next(&mut consumer).await;
            let body = text(&delivery);
            if delivery.acker.ack().await == Acked::Yes {
                done.insert(body);
            }
        }
        done
    };
    let ((), (), done) = tokio::join!(publishing, losing, consuming);
    assert_eq!(done, bodies);
}

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn jobs() -> QueueName {
    QueueName::jobs(CLASS, Lane::Bulk)
}

fn message(body: &str) -> Message {
    Message {
        body: Bytes::from(body.to_owned()),
        id: "0199-7".to_owned(),
        kind: "excite.job.v1".to_owned(),
        traceparent: Some(TRACE.to_owned()),
        expires: None,
    }
}

fn text(delivery: &Delivery) -> String {
    String::from_utf8(delivery.body.to_vec()).unwrap()
}

/// A connection that works.
async fn ready(fixture: &impl Fixture) -> Arc<dyn Queue> {
    let queue = fixture.connect().await;
    eventually("a connection", async || {
        let health = queue.health();
        if health.connected { Ok(()) } else { Err(health) }
    })
    .await;
    queue
}

/// A connection to a broker with queues.
async fn declared(fixture: &impl Fixture) -> Arc<dyn Queue> {
    let queue = fixture.connect().await;
    let classes = [CLASS.to_owned()];
    eventually("the queues", async || queue.declare(&classes).await).await;
    queue
}

/// Publishes a job, again and again while there is no connection.
async fn publish(queue: &Arc<dyn Queue>, body: &str) {
    let stored = async || queue.publish_job(CLASS, Lane::Bulk, None, message(body)).await;
    eventually("a publication", stored).await;
}

async fn next(consumer: &mut Consumer) -> Delivery {
    let delivery = timeout(LIMIT, consumer.recv()).await;
    delivery.expect("nothing is delivered").expect("the queue is open")
}

async fn depth_is(queue: &Arc<dyn Queue>, name: &QueueName, want: Depth) {
    eventually(&format!("{want:?}"), async || match queue.depth(name).await {
        Ok(depth) if depth == want => Ok(()),
        other => Err(other),
    })
    .await;
}

async fn eventually<E: std::fmt::Debug>(what: &str, mut ask: impl AsyncFnMut() -> Result<(), E>) {
    let end = Instant::now() + LIMIT;
    while let Err(instead) = ask().await {
        assert!(Instant::now() < end, "waited for {what}; there is {instead:?}");
        sleep(Duration::from_millis(20)).await;
    }
}
