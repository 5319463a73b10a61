//! The mirror in a real Redis: the suite, and what the server may do to it.

#![expect(clippy::unwrap_used, reason = "a test that fails says where")]

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use excite_jobs::conformance::progress as conformance;
use excite_jobs::progress::redis::{RedisMirror, RedisOptions};
use excite_jobs::progress::{
    Change, DRAIN_SECONDS, EVENTS_MAX, FINISHED_SECONDS, Progress, ProgressError, STATUS_SECONDS,
    WORKER_SECONDS, pack,
};
use excite_jobs::{State, Tally};
use excite_tests::{Certs, Redis, choose_cryptography, eventually};

const LIMIT: Duration = Duration::from_secs(30);

fn options(url: &str) -> RedisOptions {
    choose_cryptography();
    RedisOptions {
        url: url.to_owned(),
        ca_pem: None,
        // Longer than in service: nothing here depends on it, and the machine may be busy.
        timeout: Duration::from_secs(5),
        name: "excite tests".to_owned(),
    }
}

fn connect(url: &str) -> Arc<dyn Progress> {
    Arc::new(RedisMirror::connect(options(url)).unwrap())
}

async fn ask<T: redis::FromRedisValue>(redis: &Redis, command: &[&str]) -> T {
    let mut connection = redis.connect().await.unwrap();
    let mut asked = redis::cmd(command[0]);
    asked.arg(&command[1..]).query_async(&mut connection).await.unwrap()
}

#[tokio::test]
async fn redis_does_what_every_mirror_does() {
    let redis = Redis::start().await.unwrap();
    let mirror = connect(&redis.url());
    conformance::all(&mirror).await;
    let mut kept: Vec<String> = ask(&redis, &["KEYS", "*"]).await;
    kept.sort();
    assert_eq!(kept, ["excite:points", "excite:status"], "of batches and workers nothing is left");
    let clients: String = ask(&redis, &["CLIENT", "LIST"]).await;
    assert!(clients.contains("name=excite-tests"), "{clients}");
    conformance::lost(&mirror, async || redis.flush_all().await.unwrap()).await;
    // A new start forgets the script, too.
    conformance::lost(&mirror, async || {
        redis.kill();
        redis.start_again().await.unwrap();
        is_back(&mirror).await;
    })
    .await;
}

async fn is_back(mirror: &Arc<dyn Progress>) {
    eventually(LIMIT, "an answer", async || mirror.status().await).await.unwrap();
}

#[tokio::test]
async fn every_key_has_its_time_to_live() {
    let redis = Redis::start().await.unwrap();
    let mirror = connect(&redis.url());
    let batch = conformance::batch();
    mirror.beat(&conformance::beat("w")).await.unwrap();
    mirror.drain("w").await.unwrap();
    mirror.set_status(&conformance::status()).await.unwrap();
    mirror.replace(batch, "1-0", &[0], &Tally::default()).await.unwrap();
    mirror.event(batch, &conformance::event(1)).await.unwrap();
    let ttl = async |key: &str| ask::<i64>(&redis, &["TTL", key]).await;
    let near = |got: i64, want: u64| (want as i64 - 10..=want as i64).contains(&got);
    let key = |what: &str| format!("excite:{{b:{batch}}}:{what}");
    for (key, want) in [("excite:w:w", WORKER_SECONDS), ("excite:drain:w", DRAIN_SECONDS)] {
        assert!(near(ttl(key).await, want), "{key}");
    }
    assert!(near(ttl("excite:status").await, STATUS_SECONDS));
    for what in ["st", "n"] {
        assert_eq!(ttl(&key(what)).await, -1, "`{what}` of a batch that goes on is kept");
    }
    mirror.finished(batch).await.unwrap();
    for what in ["st", "n", "ev"] {
        assert!(near(ttl(&key(what)).await, FINISHED_SECONDS), "{what}");
    }
    mirror.replace(batch, "1-1", &[0], &Tally::default()).await.unwrap();
    for what in ["st", "n"] {
        assert_eq!(ttl(&key(what)).await, -1, "`{what}` of a batch that goes on again is kept");
    }
    // Expiry, without the waiting: the worker's name is tidied away when somebody looks.
    let _: i64 = ask(&redis, &["DEL", "excite:w:w"]).await;
    assert_eq!(mirror.workers().await.unwrap(), []);
    assert_eq!(ask::<i64>(&redis, &["EXISTS", "excite:workers"]).await, 0);
}

#[tokio::test]
async fn people_can_read_the_sums_and_events_are_bounded() {
    let redis = Redis::start().await.unwrap();
    let mirror = connect(&redis.url());
    let batch = conformance::batch();
    mirror.replace(batch, "1-0", &[0], &conformance::tally()).await.unwrap();
    let key = format!("excite:{{b:{batch}}}:n");
    let dead: String = ask(&redis, &["HGET", &key, "dead"]).await;
    assert_eq!(dead, "1");
    for n in 0..EVENTS_MAX as u64 + 500 {
        mirror.event(batch, &conformance::event(n)).await.unwrap();
    }
    let kept: usize = ask(&redis, &["XLEN", &format!("excite:{{b:{batch}}}:ev")]).await;
    assert!((EVENTS_MAX..EVENTS_MAX + 400).contains(&kept), "{kept}");
}

/// One string and one hash, whatever happens to a million jobs.
#[tokio::test]
async fn a_million_jobs_take_less_than_a_megabyte() {
    const JOBS: u32 = 1_000_000;
    let redis = Redis::start().await.unwrap();
    let mirror = connect(&redis.url());
    let batch = conformance::batch();
    let waiting = pack((0..JOBS).map(|_| State::Waiting));
    mirror.replace(batch, "0", &waiting, &conformance::tally()).await.unwrap();
    let begun = Instant::now();
    let mut changed = 0;
    for round in 0..20_u32 {
        // Far apart, as jobs of several workers are.
        let states: Vec<_> =
            (0..5_000).map(|i| ((i * 199 + round) % JOBS, State::Succeeded)).collect();
        changed += states.len();
        let (from, to) = (round.to_string(), (round + 1).to_string());
        let change = Change { batch, from, to, states, tally: conformance::tally() };
        assert!(mirror.update(&change).await.unwrap());
    }
    let rate = changed as f64 / begun.elapsed().as_secs_f64();
    let mut bytes = 0;
    for what in ["st", "n"] {
        let key = format!("excite:{{b:{batch}}}:{what}");
        let used: u64 = ask(&redis, &["MEMORY", "USAGE", &key]).await;
        bytes += used;
    }
    eprintln!("{bytes} bytes for {JOBS} jobs, {rate:.0} changes of state a second");
    assert!(bytes < 1_000_000, "{bytes} bytes");
}

#[tokio::test]
async fn a_server_that_hangs_costs_a_call_its_limit_and_no_more() {
    let redis = Redis::start().await.unwrap();
    let timeout = Duration::from_millis(250);
    let mirror = RedisMirror::connect(RedisOptions { timeout, ..options(&redis.url()) }).unwrap();
    let mirror: Arc<dyn Progress> = Arc::new(mirror);
    is_back(&mirror).await;
    redis.pause().unwrap();
    // More of them than the connection is given up after: then they need not wait.
    for call in 0..10 {
        let begun = Instant::now();
        let error = mirror.set_cancelled(conformance::batch(), true).await.unwrap_err();
        let took = begun.elapsed();
        assert!(took < 8 * timeout, "call {call} took {took:?}: {error}");
    }
    redis.resume().await.unwrap();
    is_back(&mirror).await;
}

#[tokio::test]
async fn calls_fail_until_a_server_is_there_and_work_from_then_on() {
    let redis = Redis::start().await.unwrap();
    redis.kill();
    let mirror = connect(&redis.url());
    let begun = Instant::now();
    let error = mirror.status().await.unwrap_err().to_string();
    assert!(error.contains("refused"), "{error}");
    assert!(begun.elapsed() < LIMIT);
    redis.start_again().await.unwrap();
    is_back(&mirror).await;
}

#[tokio::test]
async fn a_user_needs_no_more_than_its_own_keys() {
    let redis = Redis::builder().user("app", "pass%word").start().await.unwrap();
    let url = redis.url();
    let mirror = connect(&url.replace("pass%word", "pass%25word"));
    conformance::all(&mirror).await;
    let wrong = |url: &str| connect(&url.replace("pass%word", "wrong-word"));
    for (mirror, what) in [(wrong(&url), "password"), (connect(&anonymous(&url)), "no user")] {
        let ProgressError(error) = mirror.status().await.unwrap_err();
        assert!(error.contains("check user and password"), "{what}: {error}");
        assert!(!error.contains("word@") && !error.contains("wrong-word"), "{what}: {error}");
    }
}

fn anonymous(url: &str) -> String {
    let (_, host) = url.rsplit_once('@').unwrap();
    format!("redis://{host}")
}

#[tokio::test]
async fn tls_is_spoken_with_an_authority_of_ones_own_and_with_no_other() {
    let certs = Certs::new().unwrap();
    let redis = Redis::builder().tls(&certs).start().await.unwrap();
    let pem = fs::read(certs.authority()).unwrap();
    let trusting = RedisOptions { ca_pem: Some(pem), ..options(&redis.url()) };
    let mirror = RedisMirror::connect(trusting).unwrap();
    mirror.set_status(&conformance::status()).await.unwrap();
    let other = fs::read(Certs::new().unwrap().authority()).unwrap();
    let strange = RedisOptions { ca_pem: Some(other), ..options(&redis.url()) };
    for options in [options(&redis.url()), strange] {
        let error = RedisMirror::connect(options).unwrap().status().await.unwrap_err();
        assert!(error.0.to_lowercase().contains("cert"), "{error}");
    }
}
