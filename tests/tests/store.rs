//! The store in a real S3 server: the suite, and what can be wrong with server, keys and bucket.

#![expect(clippy::unwrap_used, reason = "a test that fails says where")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use excite_jobs::conformance::store as conformance;
use excite_jobs::store::s3::{S3Options, S3Store};
use excite_jobs::store::{Condition, Store, StoreError};
use excite_tests::{S3, eventually};
use tokio::io::{AsyncReadExt, copy, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

const LIMIT: Duration = Duration::from_secs(60);
const BUCKET: &str = "excite";

fn options(s3: &S3) -> S3Options {
    S3Options { bucket: BUCKET.to_owned(), endpoint: Some(s3.endpoint()), ..S3Options::default() }
}

async fn open(s3: &S3, options: S3Options) -> Arc<dyn Store> {
    let (access, secret) = s3.keys();
    Arc::new(S3Store::open_with_keys(options, access, secret).await.unwrap())
}

async fn start() -> S3 {
    let s3 = S3::start().await.unwrap();
    s3.bucket(BUCKET).unwrap();
    s3
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_does_what_every_store_does() {
    let s3 = start().await;
    let store = open(&s3, options(&s3)).await;
    conformance::all(&store).await;
    conformance::counts(&[store.clone(), store], 4, 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_is_in_front_of_all_keys_and_seen_by_nobody() {
    let s3 = start().await;
    let prefix = "team/a".to_owned();
    let store = open(&s3, S3Options { prefix, ..options(&s3) }).await;
    conformance::all(&store).await;
    let whole = open(&s3, options(&s3)).await;
    let page = whole.list("", None, false).await.unwrap();
    assert!(!page.keys.is_empty() && page.keys.iter().all(|key| key.starts_with("team/a/")));
    // S3 would take it without the prefix.
    let long = format!("{}x", "x/".repeat(511));
    let refused = store.put(&long, Bytes::new(), Condition::Always).await;
    assert_eq!(refused, Err(StoreError::Key(long)));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_go_on_where_the_last_one_ended() {
    let s3 = start().await;
    conformance::pages(&open(&s3, options(&s3)).await, 1050).await;
}

/// Above 64 MiB they go in parts.
#[tokio::test(flavor = "multi_thread")]
async fn large_files_go_in_parts() {
    let s3 = start().await;
    let store = open(&s3, options(&s3)).await;
    conformance::file(&store, (64 << 20) + 12_345).await;
}

#[tokio::test]
async fn keys_that_are_wrong_are_denied_with_what_to_check() {
    let s3 = start().await;
    let (access, secret) = s3.keys();
    let secret_remedy = "AWS_SECRET_ACCESS_KEY";
    for (access, secret, want) in
        [(access, "wrong-secret", secret_remedy), ("nobody", secret, "AWS_ACCESS_KEY_ID")]
    {
        let store = S3Store::open_with_keys(options(&s3), access, secret).await.unwrap();
        let put = store.put("key", Bytes::new(), Condition::Always).await.unwrap_err();
        let probe = store.probe("test").await.unwrap_err();
        for error in [put, probe] {
            let StoreError::Denied { message, .. } = &error else { panic!("{error:?}") };
            assert!(message.contains(want), "{message}");
            assert!(!message.contains(secret), "{message}");
        }
    }
}

#[tokio::test]
async fn an_address_lets_whoever_has_it_read_one_object() {
    let s3 = start().await;
    let store = open(&s3, options(&s3)).await;
    let key = "batches/a b/1.png";
    store.put(key, Bytes::from_static(b"image"), Condition::Always).await.unwrap();
    let address = store.link(key, Duration::from_secs(60)).await.unwrap().unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let read = client.get(&address).send().await.unwrap();
    assert_eq!(read.status(), 200);
    assert_eq!(read.bytes().await.unwrap(), &b"image"[..]);
    let bare = address.split('?').next().unwrap();
    assert_eq!(client.get(bare).send().await.unwrap().status(), 403);
    let other = address.replace("1.png", "2.png");
    assert_eq!(client.get(&other).send().await.unwrap().status(), 403, "it is for one object");
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_named() {
    let s3 = start().await;
    let store = open(&s3, S3Options { bucket: "missing".to_owned(), ..options(&s3) }).await;
    let error = store.probe("test").await.unwrap_err();
    assert!(matches!(&error, StoreError::NoBucket(name) if name.contains("missing")), "{error:?}");
    let options = S3Options { bucket: "a/b".to_owned(), ..options(&s3) };
    let error = S3Store::open_with_keys(options, "a", "b").await.unwrap_err();
    assert!(matches!(error, StoreError::NoBucket(_)), "{error:?}");
}

#[tokio::test]
async fn a_store_that_is_read_only_is_found_by_the_probe() {
    let s3 = S3::builder().read_only().start().await.unwrap();
    s3.bucket(BUCKET).unwrap();
    let store = open(&s3, options(&s3)).await;
    assert_eq!(store.get("key").await.unwrap(), None, "it can be read");
    let error = store.probe("test").await.unwrap_err();
    let StoreError::Denied { message, .. } = &error else { panic!("{error:?}") };
    assert!(message.contains("AccessDenied") && message.contains("rights"), "{message}");
}

#[tokio::test]
async fn a_server_that_is_gone_is_waited_for_and_used_again() {
    let s3 = start().await;
    let store = open(&s3, options(&s3)).await;
    store.put("key", Bytes::from_static(b"1"), Condition::Always).await.unwrap();
    s3.kill();
    let begun = Instant::now();
    let error = store.get("key").await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert!(begun.elapsed() < LIMIT, "it took {:?}", begun.elapsed());
    s3.start_again().await.unwrap();
    let back = eventually(LIMIT, "an answer", async || store.get("key").await);
    assert_eq!(back.await.unwrap().unwrap().body, &b"1"[..]);
}

#[tokio::test]
async fn certificates_that_are_none_are_refused_at_once() {
    let s3 = start().await;
    let options = S3Options { ca_pem: Some(b"no PEM".to_vec()), ..options(&s3) };
    let error = S3Store::open_with_keys(options, "a", "b").await.unwrap_err();
    assert!(matches!(error, StoreError::Unsuitable(_)), "{error:?}");
}

/// Its own put, tried again after a lost answer, is refused; that is no conflict.
#[tokio::test(flavor = "multi_thread")]
async fn a_conditional_put_whose_answer_was_lost_has_won() {
    let s3 = start().await;
    let connections = Arc::new(AtomicU32::new(0));
    for condition in [false, true] {
        connections.store(0, Ordering::SeqCst);
        let key = format!("lost-{condition}");
        let direct = open(&s3, options(&s3)).await;
        let condition = match condition {
            false => Condition::Absent,
            true => {
                let old = Bytes::from_static(b"old");
                Condition::Unchanged(direct.put(&key, old, Condition::Always).await.unwrap())
            }
        };
        let endpoint = cutting_proxy(s3.endpoint(), 0, Arc::clone(&connections)).await;
        let store = open(&s3, S3Options { endpoint: Some(endpoint), ..options(&s3) }).await;
        let etag = store.put(&key, Bytes::from_static(b"mine"), condition.clone()).await.unwrap();
        assert!(connections.load(Ordering::SeqCst) > 1, "an answer was lost");
        let stored = direct.get(&key).await.unwrap().unwrap();
        assert_eq!((stored.body, stored.etag), (Bytes::from_static(b"mine"), etag));
        let other = store.put(&key, Bytes::from_static(b"mine"), condition).await;
        assert_eq!(other, Err(StoreError::Conflict(key)), "of another put of the same bytes");
    }
}

/// A line that breaks in the middle of an object: it is read on from there, or once more.
#[tokio::test(flavor = "multi_thread")]
async fn an_object_whose_reading_broke_off_is_read_whole() {
    let s3 = start().await;
    let body: Bytes =
        (0..3_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    open(&s3, options(&s3)).await.put("key", body.clone(), Condition::Always).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    for to_file in [true, false] {
        let connections = Arc::new(AtomicU32::new(0));
        let endpoint = cutting_proxy(s3.endpoint(), 1_000_000, Arc::clone(&connections)).await;
        let store = open(&s3, S3Options { endpoint: Some(endpoint), ..options(&s3) }).await;
        if to_file {
            let path = folder.path().join("copy");
            assert!(store.get_file("key", &path).await.unwrap());
            assert!(std::fs::read(&path).unwrap() == body, "the file differs");
        } else {
            assert!(store.get("key").await.unwrap().unwrap().body == body, "the body differs");
        }
        assert!(connections.load(Ordering::SeqCst) > 1, "it broke off");
    }
}

/// Passes connections on. The first one ends as the server begins to answer, or after so many
/// bytes of the answer.
async fn cutting_proxy(endpoint: String, bytes: u64, connections: Arc<AtomicU32>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let to = endpoint.trim_start_matches("http://").to_owned();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(&to).await.unwrap();
            if connections.fetch_add(1, Ordering::SeqCst) > 0 {
                tokio::spawn(async move { copy_bidirectional(&mut client, &mut server).await });
                continue;
            }
            let ((mut asks, mut answer), (answers, mut asked)) = (client.split(), server.split());
            let answering = async {
                answers.readable().await.unwrap();
                copy(&mut answers.take(bytes), &mut answer).await
            };
            tokio::select! {
                _ = copy(&mut asks, &mut asked) => {}
                _ = answering => {}
            }
        }
    });
    format!("http://{address}")
}

/// Some servers take the headers and do not look at them.
#[tokio::test]
async fn a_server_that_ignores_conditions_is_found_by_the_probe() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let careless = Router::new().fallback(careless).with_state(Objects::default());
    tokio::spawn(async move { axum::serve(listener, careless).await });
    let options =
        S3Options { bucket: "b".to_owned(), endpoint: Some(endpoint), ..S3Options::default() };
    let store = S3Store::open_with_keys(options, "a", "b").await.unwrap();
    let error = store.probe("test").await.unwrap_err();
    let StoreError::Unsuitable(message) = &error else { panic!("{error:?}") };
    assert!(message.contains("ignores `If-None-Match`"), "{message}");
}

type Objects = Arc<Mutex<BTreeMap<String, Bytes>>>;

async fn careless(
    State(objects): State<Objects>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> Response {
    let (mut objects, key) = (objects.lock().unwrap(), uri.path().to_owned());
    let etag = |body: &Bytes| [(header::ETAG, format!("\"{}-{}\"", body.len(), body[0]))];
    match method {
        Method::PUT => {
            let etag = etag(&body);
            objects.insert(key, body);
            etag.into_response()
        }
        Method::GET | Method::HEAD => match objects.get(&key) {
            Some(body) => (etag(body), body.clone()).into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        },
        _ => {
            objects.clear();
            "<DeleteResult></DeleteResult>".into_response()
        }
    }
}
