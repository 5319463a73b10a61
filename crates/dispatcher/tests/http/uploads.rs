//! Batches that come in parts: whatever is cut, sent again or committed twice, it is the batch that
//! one request would have made.

use std::io::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use excite_dispatcher::config::Dispatcher;
use excite_dispatcher::tokens::{self, Scope};
use excite_dispatcher::uploads::sweep;
use excite_jobs::api::{BatchView, Problem, UploadPart, UploadView};
use excite_jobs::store::{Condition, Store};
use excite_jobs::{Control, UploadId, keys, limits};
use futures::future::join_all;
use reqwest::Response;
use serde_json::json;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::server::{Server, document, next, problem, sha256};

const TEXT: &str = "text/plain";

async fn begin(server: &Server, query: &str, kind: &str) -> UploadView {
    let post = server.post(&format!("/v1/uploads{query}")).header("content-type", kind);
    document(post.send().await.unwrap(), 201).await
}

async fn put(server: &Server, id: UploadId, n: u32, bytes: &[u8]) -> UploadPart {
    let put = server.put(&format!("/v1/uploads/{id}/parts/{n}")).body(bytes.to_vec());
    let part = document(put.send().await.unwrap(), 200).await;
    assert_eq!(part, UploadPart { n, bytes: bytes.len() as u64, sha256: sha256(bytes) });
    part
}

async fn commit(server: &Server, id: UploadId, parts: u32) -> Response {
    let post = server.post(&format!("/v1/uploads/{id}/commit")).json(&json!({"parts": parts}));
    post.send().await.unwrap()
}

async fn show(server: &Server, id: UploadId) -> UploadView {
    document(server.get(&format!("/v1/uploads/{id}")).send().await.unwrap(), 200).await
}

async fn delete(server: &Server, id: UploadId) -> Response {
    server.client.delete(format!("{}/v1/uploads/{id}", server.url)).send().await.unwrap()
}

/// A connection that has sent this.
async fn sent(server: &Server, request: &str) -> TcpStream {
    let address = server.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// All that comes until the server ends it.
async fn answer(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// The pieces between places in a text.
fn split<'a>(bytes: &'a [u8], places: &[usize]) -> Vec<&'a [u8]> {
    let starts = [&[0][..], places].concat();
    let ends = [places, &[bytes.len()]].concat();
    starts.iter().zip(ends).map(|(start, end)| &bytes[*start..end]).collect()
}

#[tokio::test]
async fn parts_in_any_order_make_the_batch_of_one_post() {
    let server = Server::start().await;
    let mut control = server.control().await;
    let count = limits::PART_LINES_MAX + 777;
    let text: String = (0..count).map(|i| format!("a cat and frog {i}\n")).collect();
    let query = "?name=in%20parts&weight=3&defaults=%7B%22steps%22%3A20%7D";
    let posted: BatchView =
        document(server.submit(query, TEXT, text.clone()).send().await.unwrap(), 202).await;
    assert_eq!(next(&mut control).await, Control::Batch { batch: posted.id });
    let posted = server.header(posted.id).await;
    let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    zip.write_all(text.as_bytes()).unwrap();
    let zipped = zip.finish().unwrap();
    for (encoding, bytes) in [("identity", text.as_bytes()), ("gzip", &zipped)] {
        let post = server.post(&format!("/v1/uploads{query}")).header("content-type", TEXT);
        let answer = post.header("content-encoding", encoding).send().await.unwrap();
        let location = answer.headers()["location"].to_str().unwrap().to_owned();
        let upload: UploadView = document(answer, 201).await;
        let id = upload.id;
        assert_eq!(location, format!("/v1/uploads/{id}"));
        assert_eq!((upload.gzip, upload.content_type.as_str()), (encoding == "gzip", TEXT));
        assert_eq!((upload.options.weight, upload.batch, upload.parts), (Some(3), None, vec![]));
        let expires = upload.expires_at.unwrap() - upload.created_at;
        assert_eq!(expires.whole_seconds(), limits::UPLOAD_SECONDS_MAX);

        // In the middle of lines and of everything else; one of them is a single byte.
        let parts = split(bytes, &[1, 1003, 20_011, bytes.len() - 5]);
        let numbered: Vec<(u32, &[u8])> = (1..).zip(parts).collect();
        let mixed = [3, 0, 4, 2, 1].map(|i| numbered[i]);
        join_all(mixed[..3].iter().map(|(n, part)| put(&server, id, *n, part))).await;
        let arrived: Vec<u32> = show(&server, id).await.parts.iter().map(|part| part.n).collect();
        assert_eq!(arrived, [1, 4, 5]);
        for (n, part) in &mixed[3..] {
            put(&server, id, *n, part).await;
        }
        // The same once more is no other.
        put(&server, id, 2, numbered[1].1).await;
        assert_eq!(server.keys(&keys::upload_parts(id)).await.len(), 5);

        let answer = commit(&server, id, 5).await;
        let location = answer.headers()["location"].to_str().unwrap().to_owned();
        let view: BatchView = document(answer, 202).await;
        assert_eq!(location, format!("/v1/batches/{}", view.id));
        assert_eq!(next(&mut control).await, Control::Batch { batch: view.id });
        let header = server.header(view.id).await;
        assert_eq!((header.lines, header.jobs, header.weight), (count as u64, count as u32, 3));
        let hashes = |batch: &excite_jobs::Batch| -> Vec<String> {
            batch.parts.iter().map(|part| part.sha256.clone()).collect()
        };
        assert_eq!(hashes(&header), hashes(&posted), "{encoding}");
        assert_eq!(header.parts.len(), 2);
        assert_eq!((&header.body_sha256, &header.name), (&posted.body_sha256, &posted.name));

        let upload = show(&server, id).await;
        assert_eq!((upload.batch, upload.expires_at), (Some(view.id), None));
        assert_eq!(upload.parts.len(), 5, "what it was made of");
        assert_eq!(server.keys(&keys::upload_prefix(id)).await, [keys::upload(id)]);
        let late = server.put(&format!("/v1/uploads/{id}/parts/6")).body("a cat").send().await;
        let late = problem(late.unwrap()).await;
        assert_eq!((late.status, late.code.as_str()), (409, "upload_committed"));
        assert!(late.detail.contains(&view.id.to_string()), "{}", late.detail);
    }
}

#[tokio::test]
async fn what_is_missing_is_named_and_can_still_come() {
    let server = Server::start().await;
    let id = begin(&server, "", TEXT).await.id;
    for n in [1, 3] {
        put(&server, id, n, b"a cat\n").await;
    }
    let missing = problem(commit(&server, id, 5).await).await;
    assert_eq!((missing.status, missing.code.as_str()), (409, "parts_missing"));
    assert!(missing.detail.ends_with("are missing: 2, 4, 5"), "{}", missing.detail);
    for (body, code) in [
        (json!({"parts": 0}), "out_of_range"),
        (json!({"parts": 1001}), "out_of_range"),
        (json!({"parts": 1, "force": true}), "bad_body"),
        (json!({}), "bad_body"),
    ] {
        let post = server.post(&format!("/v1/uploads/{id}/commit")).json(&body);
        assert_eq!(problem(post.send().await.unwrap()).await.code, code, "{body}");
    }
    server.nothing_is_stored().await;
    put(&server, id, 2, b"a dog\n").await;
    let view: BatchView = document(commit(&server, id, 3).await, 202).await;
    assert_eq!(view.lines, 3);
}

#[tokio::test]
async fn refused_lines_are_told_as_of_one_post_and_their_part_is_replaced() {
    let server = Server::start().await;
    let (kind, good, bad) =
        ("application/x-ndjson", "{\"prompt\": \"a cat\"}\n", "{\"promt\": \"a dog\"}\nno json\n");
    let posted = server.submit("", kind, good.to_owned() + bad).send().await.unwrap();
    let posted: Problem = problem(posted).await;
    assert_eq!((posted.code.as_str(), posted.refused), ("lines_refused", Some(2)));

    let id = begin(&server, "", kind).await.id;
    put(&server, id, 1, good.as_bytes()).await;
    put(&server, id, 2, bad.as_bytes()).await;
    assert_eq!(problem(commit(&server, id, 2).await).await, posted);
    server.nothing_is_stored().await;

    let upload = show(&server, id).await;
    assert_eq!((upload.batch, upload.parts.len()), (None, 2));
    put(&server, id, 2, good.as_bytes()).await;
    assert_eq!(server.keys(&keys::upload_parts(id)).await.len(), 2, "the first one is gone");
    let view: BatchView = document(commit(&server, id, 2).await, 202).await;
    assert_eq!(view.lines, 2);
}

#[tokio::test]
async fn an_upload_makes_one_batch_however_often_it_is_committed() {
    let server = Server::start().await;
    for lines in [3, 1500] {
        let id = begin(&server, "", TEXT).await.id;
        let text = "a cat and a frog\n".repeat(lines);
        for (n, part) in (1..).zip(split(text.as_bytes(), &[7, 40])) {
            put(&server, id, n, part).await;
        }
        // What was there before the commit.
        let mut before = Vec::new();
        for key in server.keys(&keys::upload_prefix(id)).await {
            let object = server.store.get(&key).await.unwrap().unwrap();
            before.push((key, object.body));
        }
        // A client that does not wait, then several at once.
        let body = "{\"parts\": 3}";
        let head = format!(
            "POST /v1/uploads/{id}/commit HTTP/1.1\r\nhost: localhost\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        drop(sent(&server, &head).await);
        let mut ids = Vec::new();
        let mut created = 0;
        for answer in join_all((0..4).map(|_| commit(&server, id, 3))).await {
            let status = answer.status().as_u16();
            created += usize::from(status == 202);
            ids.push(document::<BatchView>(answer, if status == 202 { 202 } else { 200 }).await.id);
        }
        ids.dedup();
        assert_eq!(ids.len(), 1, "{ids:?}");
        assert!(created <= 1, "{created} said that it is new");

        // One that died before it could say so: the upload is as it was, the batch is there.
        for (key, body) in before {
            server.store.put(&key, body, Condition::Always).await.unwrap();
        }
        let again: BatchView = document(commit(&server, id, 3).await, 200).await;
        assert_eq!(again.id, ids[0]);
        assert_eq!(show(&server, id).await.batch, Some(again.id));
        assert_eq!(server.keys(&keys::upload_prefix(id)).await, [keys::upload(id)]);
        // With other lines it would be another batch.
        let other = problem(commit_after_replacement(&server, id).await).await;
        assert_eq!((other.status, other.code.as_str()), (409, "upload_committed"));
        assert!(other.detail.contains(&again.id.to_string()), "{}", other.detail);
    }
    assert_eq!(server.keys("active/").await.len(), 2);
}

/// Commits what was committed before as if its document were lost, with another part.
async fn commit_after_replacement(server: &Server, id: UploadId) -> Response {
    let object = server.store.get(&keys::upload(id)).await.unwrap().unwrap();
    let mut upload: serde_json::Value = serde_json::from_slice(&object.body).unwrap();
    upload["batch"] = serde_json::Value::Null;
    let body = serde_json::to_vec(&upload).unwrap();
    server.store.put(&keys::upload(id), body.into(), Condition::Always).await.unwrap();
    put(server, id, 1, b"another cat\n").await;
    commit(server, id, 1).await
}

#[tokio::test]
async fn a_part_that_is_cut_is_not_there() {
    let server = Server::start().await;
    let id = begin(&server, "", TEXT).await.id;
    put(&server, id, 1, b"a cat\n").await;
    for n in [1, 2] {
        let half = "a dog\n".repeat(1000);
        let head = format!(
            "PUT /v1/uploads/{id}/parts/{n} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
            half.len() + 1
        );
        let mut stream = sent(&server, &(head + &half)).await;
        stream.shutdown().await.unwrap();
        let answer = answer(stream).await;
        assert!(answer.is_empty() || answer.contains("body_cut"), "{answer}");
    }
    let parts = show(&server, id).await.parts;
    assert_eq!(parts.iter().map(|part| (part.n, part.bytes)).collect::<Vec<_>>(), [(1, 6)]);
    assert_eq!(server.keys(&keys::upload_parts(id)).await.len(), 1);
}

#[tokio::test]
async fn a_part_that_the_store_lost_is_told_from_a_cut_body() {
    let server = Server::start().await;
    let id = begin(&server, "", TEXT).await.id;
    put(&server, id, 1, b"a cat\n").await;
    put(&server, id, 2, b"a dog\n").await;
    let stored = server.keys(&keys::upload_parts(id)).await;
    server.store.put(&stored[0], "short".into(), Condition::Always).await.unwrap();
    let damaged = problem(commit(&server, id, 2).await).await;
    assert_eq!((damaged.status, damaged.code.as_str()), (500, "internal"), "{damaged:?}");
    server.store.delete(&stored[1..]).await.unwrap();
    put(&server, id, 1, b"a cat\n").await;
    let gone = problem(commit(&server, id, 2).await).await;
    assert_eq!((gone.status, gone.code.as_str()), (409, "part_replaced"), "{gone:?}");
    assert!(gone.detail.contains("part 2"), "{}", gone.detail);
    // A gzip stream that has no end is the sender's.
    let post = server.post("/v1/uploads").header("content-type", TEXT);
    let answer = post.header("content-encoding", "gzip").send().await.unwrap();
    let id = document::<UploadView>(answer, 201).await.id;
    let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    zip.write_all(b"a cat\n").unwrap();
    let zipped = zip.finish().unwrap();
    put(&server, id, 1, &zipped[..zipped.len() - 3]).await;
    assert_eq!(problem(commit(&server, id, 1).await).await.code, "body_cut");
    put(&server, id, 2, &zipped[zipped.len() - 3..]).await;
    assert_eq!(commit(&server, id, 2).await.status(), 202);
}

#[tokio::test]
async fn what_cannot_become_a_batch_is_refused_before_it_is_sent() {
    let server = Server::start().await;
    #[rustfmt::skip]
    let table = [
        // query                     media type          status  code
        ("?model=nobody",            TEXT,               422,    "unknown_model"),
        ("?weight=0",                TEXT,               422,    "out_of_range"),
        ("?wieght=1",                TEXT,               400,    "bad_query"),
        ("?defaults=%7B%22x%22%3A1%7D", TEXT,            422,    "unknown_field"),
        ("?dry_run=true",            TEXT,               422,    "dry_run"),
        ("",                         "application/xml",  415,    "media_type"),
    ];
    for (query, kind, status, code) in table {
        let post = server.post(&format!("/v1/uploads{query}")).header("content-type", kind);
        let problem = problem(post.send().await.unwrap()).await;
        assert_eq!((problem.status, problem.code.as_str()), (status, code), "{query}");
    }
    assert!(server.keys(keys::UPLOADS_PREFIX).await.is_empty());

    let id = begin(&server, "", TEXT).await.id;
    for n in ["0", "1001", "x", "-1"] {
        let put = server.put(&format!("/v1/uploads/{id}/parts/{n}")).body("a cat");
        let problem = problem(put.send().await.unwrap()).await;
        assert_eq!((problem.status, problem.code.as_str()), (400, "bad_part"), "{n}");
    }
    // So long a body is refused before it comes.
    for (request, max) in [
        (format!("PUT /v1/uploads/{id}/parts/1"), limits::UPLOAD_PART_BYTES_MAX),
        ("POST /v1/batches".to_owned(), limits::BATCH_BYTES_MAX),
    ] {
        let length = max + 1;
        let head = format!(
            "{request} HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\n\
             content-length: {length}\r\n\r\n"
        );
        let answer = answer(sent(&server, &head).await).await;
        let refused = answer.starts_with("HTTP/1.1 413") && answer.contains("too_large");
        assert!(refused, "{request}: {answer}");
    }
    for id in ["x", &id.to_string().to_uppercase()] {
        let problem = problem(server.get(&format!("/v1/uploads/{id}")).send().await.unwrap()).await;
        assert_eq!((problem.status, problem.code.as_str()), (400, "bad_id"));
    }
    assert_eq!(show(&server, id).await.parts, []);
}

#[tokio::test]
async fn a_part_of_another_digest_is_not_taken() {
    let server = Server::start().await;
    let id = begin(&server, "", TEXT).await.id;
    let digest =
        |bytes: &[u8]| format!("sha-256=:{}:", BASE64_STANDARD.encode(Sha256::digest(bytes)));
    let put = async |digest: String| {
        let put = server.put(&format!("/v1/uploads/{id}/parts/1")).body("a cat\n");
        put.header("content-digest", digest).send().await.unwrap()
    };
    let wrong = problem(put(digest(b"a dog\n")).await).await;
    assert_eq!((wrong.status, wrong.code.as_str()), (422, "digest"));
    assert_eq!(problem(put("sha-256=:x:".into()).await).await.code, "bad_digest");
    assert!(server.keys(&keys::upload_parts(id)).await.is_empty());
    let part: UploadPart = document(put(digest(b"a cat\n")).await, 200).await;
    assert_eq!(part.sha256, sha256(b"a cat\n"));
}

#[tokio::test]
async fn one_idempotency_key_begins_one_upload() {
    let server = Server::start().await;
    let post = async |query: &str, kind: &str| {
        let post = server.post(&format!("/v1/uploads{query}")).header("idempotency-key", "k");
        post.header("content-type", kind).send().await.unwrap()
    };
    let mut ids = Vec::new();
    for answer in join_all((0..5).map(|_| post("", TEXT))).await {
        let status = answer.status().as_u16();
        ids.push((status, document::<UploadView>(answer, status).await.id));
    }
    ids.sort_unstable();
    let statuses: Vec<u16> = ids.iter().map(|(status, _)| *status).collect();
    assert_eq!(statuses, [200, 200, 200, 200, 201]);
    let id = ids[0].1;
    assert!(ids.iter().all(|(_, other)| *other == id), "{ids:?}");
    assert_eq!(server.keys(keys::UPLOADS_PREFIX).await, [keys::upload(id)]);
    for (query, kind) in [("?weight=2", TEXT), ("", "text/csv")] {
        let other = problem(post(query, kind).await).await;
        assert_eq!((other.status, other.code.as_str()), (409, "idempotency_key_reused"));
    }
    // What has arrived is told to whoever begins again, and so is the batch.
    put(&server, id, 1, b"a cat\n").await;
    let known: UploadView = document(post("", TEXT).await, 200).await;
    assert_eq!((known.id, known.parts.len()), (id, 1));
    let view: BatchView = document(commit(&server, id, 1).await, 202).await;
    let known: UploadView = document(post("", TEXT).await, 200).await;
    assert_eq!(known.batch, Some(view.id));
    // It is no key of batches, and free when its upload is gone.
    let batch = server.submit("", TEXT, "a dog").header("idempotency-key", "k");
    assert_eq!(batch.send().await.unwrap().status(), 202);
    assert_eq!(delete(&server, id).await.status(), 204);
    let new: UploadView = document(post("", TEXT).await, 201).await;
    assert_ne!(new.id, id);
    let known: UploadView = document(post("", TEXT).await, 200).await;
    assert_eq!(known.id, new.id);
}

#[tokio::test]
async fn a_deleted_upload_is_gone_with_its_parts() {
    let server = Server::start().await;
    let id = begin(&server, "", TEXT).await.id;
    put(&server, id, 1, b"a cat\n").await;
    assert_eq!(delete(&server, id).await.status(), 204);
    assert!(server.keys(keys::UPLOADS_PREFIX).await.is_empty());
    let path = format!("/v1/uploads/{id}");
    for answer in [
        server.get(&path).send().await.unwrap(),
        server.put(&format!("{path}/parts/1")).body("a cat").send().await.unwrap(),
        commit(&server, id, 1).await,
        delete(&server, id).await,
    ] {
        let problem = problem(answer).await;
        assert_eq!((problem.status, problem.code.as_str()), (404, "not_found"));
    }
    assert!(server.keys(keys::UPLOADS_PREFIX).await.is_empty());
}

#[tokio::test]
async fn what_nobody_committed_in_time_is_swept_and_batches_are_remembered() {
    let server = Server::start().await;
    let [done, left, lost, young] = [0; 4].map(|_| begin(&server, "", TEXT));
    let (done, left, lost) = (done.await.id, left.await.id, lost.await.id);
    for id in [done, left, lost] {
        put(&server, id, 1, b"a cat\n").await;
    }
    let view: BatchView = document(commit(&server, done, 1).await, 202).await;
    // What a commit and a deletion that died left.
    let part = keys::upload_part(done, 1, uuid::Uuid::now_v7());
    server.store.put(&part, "a cat\n".into(), Condition::Always).await.unwrap();
    server.store.delete(&[keys::upload(lost)]).await.unwrap();

    let (mut swept, now) = (None, OffsetDateTime::now_utc().unix_timestamp());
    assert_eq!(sweep(&*server.store, now - 60, &mut swept).await.unwrap(), 0);
    assert_eq!((swept.as_ref(), server.keys(&keys::upload_parts(left)).await.len()), (None, 1));
    assert_eq!(sweep(&*server.store, now + 60, &mut swept).await.unwrap(), 2);
    assert_eq!(server.keys(keys::UPLOADS_PREFIX).await, [keys::upload(done)]);
    assert_eq!(show(&server, done).await.batch, Some(view.id));
    let again: BatchView = document(commit(&server, done, 1).await, 200).await;
    assert_eq!(again.id, view.id);
    assert_eq!(server.get(&format!("/v1/uploads/{left}")).send().await.unwrap().status(), 404);
    // The next one goes on behind what was looked at.
    let young = young.await.id;
    assert_eq!(sweep(&*server.store, now + 60, &mut swept).await.unwrap(), 1);
    assert!(!server.keys(keys::UPLOADS_PREFIX).await.contains(&keys::upload(young)));
}

#[tokio::test]
async fn an_upload_needs_the_scope_to_submit_and_is_shown_to_readers() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    let [read, submit] =
        [Scope::Read, Scope::Submit].map(|s| tokens::add(&file, &s.to_string(), s).unwrap());
    let config = Dispatcher { tokens_file: Some(file), ..Dispatcher::default() };
    let server = Server::of(config).await;
    let path = format!("/v1/uploads/{}", UploadId::new());
    // Whoever may comes as far as the missing upload or model.
    for (method, path, reader) in [
        (reqwest::Method::POST, "/v1/uploads".to_owned(), 403),
        (reqwest::Method::GET, path.clone(), 404),
        (reqwest::Method::PUT, format!("{path}/parts/1"), 403),
        (reqwest::Method::POST, format!("{path}/commit"), 403),
        (reqwest::Method::DELETE, path.clone(), 403),
    ] {
        let ask = async |token: &str| {
            let request = server.client.request(method.clone(), format!("{}{path}", server.url));
            let request = request.header("content-type", TEXT).bearer_auth(token);
            request.body("{\"parts\": 1}").send().await.unwrap().status().as_u16()
        };
        assert_eq!(ask("nobody").await, 401, "{method} {path}");
        assert_eq!(ask(&read).await, reader, "{method} {path}");
        let submitted = ask(&submit).await;
        assert!(matches!(submitted, 404 | 422), "{method} {path}: {submitted}");
    }
}
