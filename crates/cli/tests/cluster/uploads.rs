//! `excite submit` with a file that is sent in parts.

use std::path::PathBuf;
use std::sync::LazyLock;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::server::{Answer, Server};
use super::{BATCH, batch, ended, excite, problem};

const UPLOAD: &str = "0193a1b2-7c3d-7e4f-8a5b-000000000001";
const PART_BYTES: usize = 16 << 20;

/// More than two parts; no two of them are alike.
static LINES: LazyLock<String> =
    LazyLock::new(|| (0..2_200_000).map(|n| format!("a cat {n:010}\n")).collect());

fn file() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("prompts.txt");
    std::fs::write(&path, LINES.as_bytes()).unwrap();
    (folder, path)
}

fn part(n: usize) -> Value {
    let bytes = LINES.as_bytes().chunks(PART_BYTES).nth(n - 1).unwrap();
    let sha256 = format!("{:x}", Sha256::digest(bytes));
    json!({"n": n, "bytes": bytes.len(), "sha256": sha256})
}

fn upload(parts: &[Value], batch: Option<&str>) -> Answer {
    let body = json!({
        "id": UPLOAD, "created_at": "2026-01-02T03:04:05Z", "expires_at": null,
        "options": {"attention": false}, "content_type": "text/plain", "gzip": false,
        "parts": parts, "batch": batch, "part_bytes_max": 64 << 20, "parts_max": 1000,
    });
    Answer::json(if parts.is_empty() { 201 } else { 200 }, &body)
}

#[test]
fn a_large_file_is_sent_in_parts_and_only_what_has_not_arrived() {
    let (_folder, path) = file();
    let second = format!("/v1/uploads/{UPLOAD}/parts/2");
    // The first part is there already; the first try of the second breaks off.
    let server = Server::new(move |request, before| match request.target.as_str() {
        target if target.starts_with("/v1/uploads?") => upload(&[part(1)], None),
        target if target == second && before == 0 => Answer::lost(),
        target if target.ends_with("/commit") => {
            Answer::json(202, &batch("active", json!({"waiting": 10})))
        }
        _ => Answer::json(200, &json!({})),
    });
    #[rustfmt::skip]
    let output = excite(&server, &[
        "submit", path.to_str().unwrap(), "--name", "large", "--idempotency-key", "k",
    ]);
    let (stdout, stderr) = ended(&output, 0);
    assert_eq!(stdout, format!("{BATCH}\n"));
    assert!(stderr.contains("trying again in 1 s"), "{stderr}");
    let [begun] = &server.requests("POST", "/v1/uploads?name=large")[..] else { panic!("one") };
    assert_eq!(begun.header("idempotency-key"), Some("k"));
    assert_eq!(begun.header("content-type"), Some("text/plain; charset=utf-8"));
    assert!(begun.body.is_empty());
    let sent = server.requests("PUT", "/");
    let numbers: Vec<&str> = sent.iter().map(|r| r.target.rsplit('/').next().unwrap()).collect();
    assert_eq!(numbers, ["2", "2", "3"]);
    let chunks: Vec<&[u8]> = LINES.as_bytes().chunks(PART_BYTES).collect();
    assert!(sent[1].body == chunks[1] && sent[2].body == chunks[2]);
    assert!(sent.iter().all(|r| r.header("content-digest").unwrap().starts_with("sha-256=:")));
    let [commit] = &server.requests("POST", &format!("/v1/uploads/{UPLOAD}"))[..] else {
        panic!("one")
    };
    assert_eq!(commit.json(), json!({"parts": 3}));
    assert!(server.requests("POST", "/v1/batches").is_empty());
}

#[test]
fn a_large_file_that_was_committed_is_not_sent_again_and_another_one_not_taken_for_it() {
    let (_folder, path) = file();
    let server = Server::new(move |request, before| match request.target.as_str() {
        // The second time other lines have this key.
        "/v1/uploads" if before == 0 => upload(&[part(1), part(2), part(3)], Some(BATCH)),
        "/v1/uploads" => upload(&[part(1), part(2)], Some(BATCH)),
        _ => Answer::json(200, &batch("active", json!({"waiting": 10}))),
    });
    let args = ["submit", path.to_str().unwrap(), "--idempotency-key", "k"];
    assert_eq!(ended(&excite(&server, &args), 0).0, format!("{BATCH}\n"));
    let (_, stderr) = ended(&excite(&server, &args), 1);
    assert!(stderr.contains("used for something else") && stderr.contains(BATCH), "{stderr}");
    assert!(server.requests("PUT", "/").is_empty());
}

#[test]
fn a_large_file_that_cannot_be_sent_says_how_to_go_on() {
    let (_folder, path) = file();
    let server = Server::new(|request, _| match request.target.as_str() {
        "/v1/uploads" => upload(&[], None),
        _ => problem(503, "store_unavailable", "no store", "Wait.").with("Retry-After", "0"),
    });
    let args = ["submit", path.to_str().unwrap(), "--idempotency-key", "k"];
    let (_, stderr) = ended(&excite(&server, &args), 1);
    assert!(stderr.contains("error: no store\n help: Wait."), "{stderr}");
    assert!(stderr.contains("with --idempotency-key k goes on"), "{stderr}");
    assert_eq!(server.requests("PUT", "/").len(), 5);
}
