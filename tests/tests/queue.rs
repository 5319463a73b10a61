//! The queue in RabbitMQ: what every queue must do, and what only a real broker can do to it.

#![expect(clippy::unwrap_used, reason = "a test that fails says where")]

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use excite_jobs::Lane;
use excite_jobs::conformance::queue as conformance;
use excite_jobs::queue::rabbit::topology::policies;
use excite_jobs::queue::rabbit::{Policy, RabbitOptions, RabbitQueue};
use excite_jobs::queue::{Acked, Consumer, Delivery, Message, Queue, QueueError, QueueName};
use excite_tests::{Certs, Rabbit, eventually};
use futures::{StreamExt, stream};
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};

const LIMIT: Duration = Duration::from_secs(60);

struct Vhost<'a> {
    rabbit: &'a Rabbit,
    url: String,
}

#[async_trait]
impl conformance::Fixture for Vhost<'_> {
    async fn connect(&self) -> Arc<dyn Queue> {
        Arc::new(queue(&self.url))
    }

    async fn lose_connections(&self) {
        lose(self.rabbit).await;
    }
}

fn queue(url: &str) -> RabbitQueue {
    RabbitQueue::connect(RabbitOptions::new(url, "test")).unwrap()
}

/// Connections younger than a moment are not seen; those of one queue are two. Not by `eventually`,
/// whose closures cannot cross threads, as a fixture's calls may.
async fn lose(rabbit: &Rabbit) {
    let end = Instant::now() + LIMIT;
    let mut closed = 0;
    while closed < 2 {
        assert!(Instant::now() < end, "{closed} connections were closed");
        closed += rabbit.close_connections().await.unwrap_or(0);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn jobs() -> QueueName {
    QueueName::jobs("default", Lane::Bulk)
}

fn message(body: &str) -> Message {
    Message { body: Bytes::from(body.to_owned()), ..Message::default() }
}

async fn declare(queue: &RabbitQueue) {
    let declared = async || queue.declare(&["default".to_owned()]).await;
    eventually(LIMIT, "the queues", declared).await.unwrap();
}

async fn publish(queue: &RabbitQueue, body: &str) {
    let published = async || queue.publish_job("default", Lane::Bulk, None, message(body)).await;
    eventually(LIMIT, "a confirm", published).await.unwrap();
}

async fn next(consumer: &mut Consumer) -> Delivery {
    tokio::time::timeout(LIMIT, consumer.recv()).await.unwrap().unwrap()
}

/// What the queue says of itself, when it says something of this.
async fn error_of(queue: &RabbitQueue, word: &str) -> String {
    let said = async || queue.health().last_error.filter(|error| error.contains(word));
    eventually(LIMIT, "an error", said).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_does_what_a_queue_must_do() {
    let rabbit = Rabbit::start().await.unwrap();
    let count = AtomicUsize::new(0);
    let make = async || {
        let name = format!("v{}", count.fetch_add(1, Ordering::Relaxed));
        let url = rabbit.vhost(&name).await.unwrap();
        // As operators set them: without a delivery limit, what is given back goes to the end.
        for policy in policies(3) {
            let Policy { name: of, pattern, definition } = policy;
            rabbit.policy(&name, &of, &pattern, &definition).await.unwrap();
        }
        Vhost { rabbit: &rabbit, url }
    };
    conformance::all(&make).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_confirmed_is_lost_when_the_broker_is_killed_and_full() {
    let rabbit = Rabbit::start().await.unwrap();
    let queue = queue(&rabbit.url("/"));
    declare(&queue).await;
    let mut consumer = queue.consume(&jobs(), 10).await;
    let bodies: BTreeSet<String> = (0..500).map(|n| n.to_string()).collect();
    let publishing = stream::iter(&bodies).for_each_concurrent(20, |body| publish(&queue, body));
    let killing = async {
        eventually(LIMIT, "some to be stored", async || {
            queue.depth(&jobs()).await.is_ok_and(|depth| depth.consumers == 1)
        })
        .await
        .unwrap();
        rabbit.kill();
        rabbit.start_again().await.unwrap();
    };
    let consuming = async {
        let mut done = BTreeSet::new();
        while done.len() < bodies.len() {
            let delivery = next(&mut consumer).await;
            let body = String::from_utf8(delivery.body.to_vec()).unwrap();
            if delivery.acker.ack().await == Acked::Yes {
                done.insert(body);
            }
        }
        done
    };
    let ((), (), done) = tokio::join!(publishing, killing, consuming);
    assert_eq!(done, bodies);

    // A full disk stops who publishes, and nobody else.
    publish(&queue, "before").await;
    publish(&queue, "before too").await;
    let held = next(&mut consumer).await;
    rabbit.alarm(true).await.unwrap();
    let begin = Instant::now();
    let refused = queue.publish_job("default", Lane::Bulk, None, message("x")).await;
    assert!(matches!(refused, Err(QueueError::Blocked(_))), "{refused:?}");
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert!(queue.health().blocked && queue.health().connected);
    assert_eq!(held.acker.ack().await, Acked::Yes);
    assert_eq!(next(&mut consumer).await.acker.ack().await, Acked::Yes);
    rabbit.alarm(false).await.unwrap();
    publish(&queue, "after").await;
    assert!(!queue.health().blocked);
    queue.close().await;
    assert!(!queue.health().connected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_there_otherwise_is_named_with_argument_and_remedy() {
    let rabbit = Rabbit::shared().await.unwrap();
    let url = rabbit.vhost("otherwise").await.unwrap();
    let other = lapin::Connection::connect(&url, lapin::ConnectionProperties::default());
    let channel = other.await.unwrap().create_channel().await.unwrap();
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-message-ttl".into(), AMQPValue::LongInt(7000));
    let options = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare("excite.v1.delay.5s".into(), options, arguments).await.unwrap();

    let queue = queue(&url);
    let classes = ["default".to_owned()];
    let missing = eventually(LIMIT, "a connection", async || queue.check(&classes).await);
    let missing = missing.await.unwrap();
    assert_eq!(missing.len(), 16, "{missing:#?}");
    let text = match queue.declare(&classes).await {
        Err(QueueError::Topology(text)) => text,
        other => panic!("{other:?}"),
    };
    for word in ["excite.v1.delay.5s", "x-", "--if-empty", "prefix"] {
        assert!(text.contains(word), "{text}");
    }
    let left = queue.check(&classes).await.unwrap();
    assert_eq!(left.len(), 1, "all others were declared: {left:#?}");
    let delete = channel.queue_delete("excite.v1.delay.5s".into(), Default::default());
    delete.await.unwrap();
    queue.declare(&classes).await.unwrap();
    assert_eq!(queue.check(&classes).await.unwrap(), []);
    assert!(queue.health().server.is_some_and(|server| server.starts_with("RabbitMQ ")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_and_never_shown() {
    let rabbit = Rabbit::shared().await.unwrap();
    let url = rabbit.url_as("guest", "hunter2", "/");
    let queue = queue(&url);
    let error = error_of(&queue, "ACCESS_REFUSED").await;
    assert!(!error.contains("hunter2"), "{error}");
    assert!(!format!("{queue:?}").contains("hunter2"));
    let refused = queue.publish(&QueueName::Control, message("x")).await;
    assert!(
        matches!(&refused, Err(QueueError::Unavailable(why)) if why.contains("ACCESS_REFUSED"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_needs_the_right_authority() {
    let (certs, others) = (Certs::new().unwrap(), Certs::new().unwrap());
    let rabbit = Rabbit::builder().tls(&certs).start().await.unwrap();
    let connect = |certs: &Certs| {
        let ca_pem = Some(fs::read(certs.authority()).unwrap());
        let options = RabbitOptions { ca_pem, ..RabbitOptions::new(rabbit.url("/"), "test") };
        RabbitQueue::connect(options).unwrap()
    };
    let (right, wrong) = (connect(&certs), connect(&others));
    declare(&right).await;
    publish(&right, "x").await;
    let error = error_of(&wrong, "certificate").await;
    assert!(!wrong.health().connected, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_publications_are_confirmed_within_seconds() {
    let rabbit = Rabbit::shared().await.unwrap();
    let queue = queue(&rabbit.vhost("many").await.unwrap());
    declare(&queue).await;
    let begin = Instant::now();
    let body = "x".repeat(700);
    let publications = (0..10_000).map(|_| publish(&queue, &body));
    stream::iter(publications).buffer_unordered(500).for_each(async |()| {}).await;
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(30), "{took:?}");
    eprintln!("10,000 publications in {took:?}");
    assert_eq!(queue.depth(&jobs()).await.unwrap().ready, 10_000);
}
