//! The private servers themselves: each answers its real client, survives what tests do to it, and
//! is gone with the test.

#![expect(clippy::unwrap_used, reason = "a test that fails says where")]

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use excite_tests::{
    Certs, Program, Queue, Rabbit, Redis, S3, Signal, built, choose_cryptography, eventually,
};
use futures::future::join_all;
use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::tcp::OwnedTLSConfig;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use redis::AsyncCommands;

const LIMIT: Duration = Duration::from_secs(30);

fn refuses(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_err()
}

async fn channel(connection: &Connection) -> Channel {
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    channel
}

async fn connect(url: &str) -> Connection {
    choose_cryptography();
    Connection::connect(url, ConnectionProperties::default()).await.unwrap()
}

async fn declare(channel: &Channel, name: &str) {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let options = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(name.into(), options, arguments).await.unwrap();
}

/// Whether the message was taken.
async fn publish(channel: &Channel, queue: &str, body: &str) -> lapin::Result<bool> {
    let properties = BasicProperties::default().with_delivery_mode(2);
    let options = BasicPublishOptions::default();
    let confirm =
        channel.basic_publish("".into(), queue.into(), options, body.as_bytes(), properties);
    Ok(confirm.await?.await?.is_ack())
}

async fn get(channel: &Channel, queue: &str) -> Option<String> {
    let options = BasicGetOptions { no_ack: true };
    let message = channel.basic_get(queue.into(), options).await.unwrap();
    message.map(|message| String::from_utf8(message.delivery.data).unwrap())
}

async fn is_seen(rabbit: &Rabbit, vhost: &str, want: Queue) {
    let seen = eventually(LIMIT, "the queue's numbers", async || {
        let queues = rabbit.queues(vhost).await?;
        anyhow::ensure!(queues == [want.clone()], "{queues:?}");
        anyhow::Ok(())
    });
    seen.await.unwrap();
}

#[tokio::test]
async fn a_shared_node_gives_each_test_a_vhost() {
    let rabbit = Rabbit::shared().await.unwrap();
    let (one, two) = (rabbit.vhost("one").await.unwrap(), rabbit.vhost("two").await.unwrap());
    let (one, two) = (connect(&one).await, connect(&two).await);
    let (one, two) = (channel(&one).await, channel(&two).await);
    declare(&one, "jobs").await;
    declare(&two, "jobs").await;
    assert!(publish(&one, "jobs", "hello").await.unwrap());
    let queue = |ready| Queue {
        name: "jobs".to_owned(),
        kind: "quorum".to_owned(),
        ready,
        unacknowledged: 0,
        consumers: 0,
    };
    is_seen(rabbit, "one", queue(1)).await;
    assert_eq!(get(&two, "jobs").await, None);
    assert_eq!(get(&one, "jobs").await.as_deref(), Some("hello"));
    is_seen(rabbit, "one", queue(0)).await;

    let (tag, arguments) = ("test".into(), FieldTable::default());
    let options = BasicConsumeOptions::default();
    let consumer = one.basic_consume("jobs".into(), tag, options, arguments).await.unwrap();
    assert!(publish(&one, "jobs", "again").await.unwrap());
    is_seen(rabbit, "one", Queue { unacknowledged: 1, consumers: 1, ..queue(0) }).await;
    drop(consumer);
}

#[tokio::test]
async fn servers_are_of_the_generation_that_is_asked_for() {
    let next = std::env::var_os("EXCITE_TEST_SERVERS").is_some();
    let version = Rabbit::shared().await.unwrap().version().await.unwrap();
    assert!(!next || version.starts_with("4."), "{version}");
    let redis = Redis::start().await.unwrap();
    let mut asked = redis.connect().await.unwrap();
    let info: String = redis::cmd("INFO").arg("server").query_async(&mut asked).await.unwrap();
    assert_eq!(info.contains("valkey_version:8."), next, "{info}");
}

#[tokio::test]
async fn a_user_of_the_shared_node_may_only_what_was_granted() {
    let rabbit = Rabbit::shared().await.unwrap();
    rabbit.vhost("granted").await.unwrap();
    let url = rabbit.user("granted", "reader", "a/b", ["", "", ".*"]).await.unwrap();
    let reader = channel(&connect(&url).await).await;
    let options = QueueDeclareOptions::default();
    let error = reader.queue_declare("x".into(), options, FieldTable::default()).await;
    assert!(error.unwrap_err().to_string().contains("ACCESS_REFUSED"));
}

#[tokio::test]
async fn a_node_keeps_its_messages_over_a_kill_and_a_stop_and_goes_with_the_test() {
    let rabbit = Rabbit::start().await.unwrap();
    let connection = connect(&rabbit.url("/")).await;
    let writer = channel(&connection).await;
    declare(&writer, "jobs").await;
    assert!(publish(&writer, "jobs", "before").await.unwrap());

    // Connections are seen a moment after they are made.
    let closed = eventually(LIMIT, "a connection to close", async || {
        let count = rabbit.close_connections().await?;
        anyhow::ensure!(count == 1, "{count}");
        anyhow::Ok(())
    });
    closed.await.unwrap();
    let down = async || !connection.status().connected();
    eventually(LIMIT, "the end of the connection", down).await.unwrap();

    rabbit.settle().await.unwrap();
    rabbit.kill();
    assert!(refuses(rabbit.port()));
    rabbit.start_again().await.unwrap();
    let again = connect(&rabbit.url("/")).await;
    let reader = channel(&again).await;
    assert_eq!(get(&reader, "jobs").await.as_deref(), Some("before"));

    rabbit.alarm(true).await.unwrap();
    let mut held = tokio::spawn(async move { publish(&reader, "jobs", "held").await });
    let early = tokio::time::timeout(Duration::from_millis(200), &mut held).await;
    assert!(early.is_err(), "the node takes it all the same");
    rabbit.alarm(false).await.unwrap();
    assert!(held.await.unwrap().unwrap());

    rabbit.stop().await.unwrap();
    let port = rabbit.port();
    assert!(refuses(port));
    drop(rabbit);
    assert!(refuses(port));
}

#[tokio::test]
async fn rabbit_and_redis_speak_tls() {
    choose_cryptography();
    let certs = Certs::new().unwrap();
    let (rabbit, redis) =
        tokio::join!(Rabbit::builder().tls(&certs).start(), Redis::builder().tls(&certs).start());
    let (rabbit, redis) = (rabbit.unwrap(), redis.unwrap());

    let chain = fs::read_to_string(certs.authority()).unwrap();
    let tls = OwnedTLSConfig { identity: None, cert_chain: Some(chain) };
    let properties = ConnectionProperties::default();
    let runtime = lapin::runtime::default_runtime().unwrap();
    let url = rabbit.url("/");
    let trusting = Connection::connect_with_config(&url, properties, tls, runtime).await;
    let channel = channel(&trusting.unwrap()).await;
    declare(&channel, "jobs").await;
    assert!(publish(&channel, "jobs", "hello").await.unwrap());
    let properties = ConnectionProperties::default();
    assert!(Connection::connect(&url, properties).await.is_err(), "nobody vouches for it");

    let mut connection = redis.connect().await.unwrap();
    let () = connection.set("a", "b").await.unwrap();
    let stranger = redis::Client::open(redis.url()).unwrap();
    let stranger = stranger.get_multiplexed_async_connection().await;
    assert!(stranger.is_err(), "nobody vouches for it");
}

#[tokio::test]
async fn redis_forgets_over_a_kill_unless_told_to_keep() {
    let kept = Redis::builder().keep_data().start().await.unwrap();
    let lost = Redis::start().await.unwrap();
    for redis in [&kept, &lost] {
        let () = redis.connect().await.unwrap().set("a", "b").await.unwrap();
        redis.kill();
        assert!(refuses(redis.port()));
        redis.start_again().await.unwrap();
    }
    let get = async |redis: &Redis| {
        let value: Option<String> = redis.connect().await.unwrap().get("a").await.unwrap();
        value
    };
    assert_eq!(get(&kept).await.as_deref(), Some("b"));
    assert_eq!(get(&lost).await, None);
    kept.flush_all().await.unwrap();
    assert_eq!(get(&kept).await, None);
    kept.stop().await.unwrap();
    let port = lost.port();
    drop(lost);
    assert!(refuses(port));
}

#[tokio::test]
async fn a_paused_redis_hangs_and_a_resumed_one_goes_on() {
    let redis = Redis::start().await.unwrap();
    let mut connection = redis.connect().await.unwrap();
    redis.pause().unwrap();
    let ping = redis::cmd("PING");
    let answer = ping.exec_async(&mut connection);
    let answer = tokio::time::timeout(Duration::from_millis(100), answer).await;
    assert!(!matches!(answer, Ok(Ok(()))), "it hangs");
    redis.resume().await.unwrap();
    redis::cmd("PING").exec_async(&mut redis.connect().await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_user_of_redis_may_use_only_keys_of_excite() {
    let redis = Redis::builder().user("app", "word").start().await.unwrap();
    let client = redis::Client::open(redis.url()).unwrap();
    let mut app = client.get_multiplexed_async_connection().await.unwrap();
    let () = app.set("excite:a", "b").await.unwrap();
    let error = app.set::<_, _, ()>("other", "b").await.unwrap_err();
    assert!(error.to_string().contains("NOPERM") || error.code() == Some("NOPERM"), "{error}");
    assert!(redis::cmd("FLUSHALL").exec_async(&mut app).await.is_err());
    redis.flush_all().await.unwrap();
    let value: Option<String> = app.get("excite:a").await.unwrap();
    assert_eq!(value, None);
}

fn client(s3: &S3) -> aws_sdk_s3::Client {
    let (key, secret) = s3.keys();
    let http = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(s3.endpoint())
        .credentials_provider(Credentials::new(key, secret, None, None, "test"))
        .force_path_style(true)
        .http_client(http);
    aws_sdk_s3::Client::from_conf(config.build())
}

#[tokio::test]
async fn of_writers_under_a_condition_one_wins() {
    let s3 = S3::start().await.unwrap();
    s3.bucket("excite").unwrap();
    let client = client(&s3);
    let put = |key: &str| client.put_object().bucket("excite").key(key);
    for round in 0..10 {
        let key = format!("new/{round}");
        let racers =
            (0..16u8).map(|i| put(&key).if_none_match("*").body(vec![i; 20_000].into()).send());
        let results = join_all(racers).await;
        let won: Vec<usize> = (0..16).filter(|i| results[*i].is_ok()).collect();
        assert_eq!(won.len(), 1, "{won:?}");
        for error in results.into_iter().filter_map(Result::err) {
            assert_eq!(error.code(), Some("PreconditionFailed"));
        }
        let stored = client.get_object().bucket("excite").key(&key).send().await.unwrap();
        let stored = stored.body.collect().await.unwrap().into_bytes();
        assert_eq!(usize::from(stored[0]), won[0]);
    }

    let first = put("lease").body(b"0".to_vec().into()).send().await.unwrap();
    let etag = first.e_tag().unwrap();
    let racers = (0..16u8).map(|i| put("lease").if_match(etag).body(vec![b'a' + i].into()).send());
    let results = join_all(racers).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    let etags = results.iter().flatten().map(|put| put.e_tag().unwrap());
    assert_eq!(BTreeSet::from_iter(etags).len(), 1);
}

#[tokio::test]
async fn objects_are_there_after_a_kill_and_the_server_goes_with_the_test() {
    let s3 = S3::start().await.unwrap();
    s3.bucket("excite").unwrap();
    let one = client(&s3);
    one.put_object().bucket("excite").key("a").body(b"b".to_vec().into()).send().await.unwrap();
    s3.kill();
    let port = s3.endpoint().rsplit_once(':').unwrap().1.parse().unwrap();
    assert!(refuses(port));
    s3.start_again().await.unwrap();
    s3.pause().unwrap();
    s3.resume().unwrap();
    let again = client(&s3).get_object().bucket("excite").key("a").send().await.unwrap();
    assert_eq!(again.body.collect().await.unwrap().into_bytes(), "b");
    drop(s3);
    assert!(refuses(port));
}

#[tokio::test]
async fn s3_refuses_what_it_must() {
    let s3 = S3::start().await.unwrap();
    let put = client(&s3).put_object().bucket("missing").key("a").body(b"b".to_vec().into());
    let error = put.send().await.unwrap_err();
    assert_eq!(error.code(), Some("NoSuchBucket"));
    assert_eq!(error.raw_response().unwrap().status().as_u16(), 404);

    let s3 = S3::builder().read_only().start().await.unwrap();
    s3.bucket("excite").unwrap();
    let client = client(&s3);
    let put = client.put_object().bucket("excite").key("a").body(b"b".to_vec().into());
    let error = put.send().await.unwrap_err();
    assert_eq!(error.code(), Some("AccessDenied"));
    assert_eq!(error.raw_response().unwrap().status().as_u16(), 403);
    let list = client.list_objects_v2().bucket("excite").send().await.unwrap();
    assert_eq!(list.key_count(), Some(0));
}

#[tokio::test]
async fn all_servers_start_for_trying_out_and_end_when_told() {
    let dir = excite_tests::Folder::temporary("servers").unwrap();
    let args = ["--dir".as_ref(), dir.path().as_os_str()];
    let start = Instant::now();
    let program = built("excite-servers").unwrap();
    let mut program = Program::start(program, args, [("A", "a")]).unwrap();
    let limit = Duration::from_secs(120);
    program.wait_for_line("readiness", |line| line.starts_with("ready"), limit).await.unwrap();
    eprintln!("ready after {:.1} s", start.elapsed().as_secs_f64());
    let env = fs::read_to_string(dir.path().join("env")).unwrap();
    let url = |name: &str| {
        let line = env.lines().find_map(|line| line.strip_prefix(&format!("export {name}=")));
        line.unwrap().to_owned()
    };
    declare(&channel(&connect(&url("EXCITE_BROKER__URL")).await).await, "jobs").await;
    let redis = redis::Client::open(url("EXCITE_PROGRESS__URL")).unwrap();
    let mut redis = redis.get_multiplexed_async_connection().await.unwrap();
    let () = redis.set("a", "b").await.unwrap();
    assert_eq!(url("EXCITE_STORE__URL"), "s3://excite");
    program.signal(Signal::SIGTERM).unwrap();
    assert!(program.wait(limit).await.unwrap().success());
    assert!(redis::cmd("PING").exec_async(&mut redis).await.is_err());
}
