//! Uploads: what is taken, what is refused, and that nothing stays of what is refused.

use std::io::{Read, Write};

use excite_jobs::api::{BatchState, BatchView, DryRun};
use excite_jobs::store::Store;
use excite_jobs::{Control, Lane, StoredLine, keys, limits};
use flate2::read::MultiGzDecoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::server::{Server, document, next, problem};

const JSON: &str = "application/x-ndjson";

#[tokio::test]
async fn a_small_batch_is_stored_in_its_header_and_told_to_the_leader() {
    let server = Server::start().await;
    let mut control = server.control().await;
    let lines = "{\"prompt\": \"a cat and a frog\", \"seeds\": \"0..3\", \"custom_id\": \"x\"}\n\
        \n{\"prompt\": \"a red dog\", \"labels\": {\"set\": \"b\"}}\n";
    let query = "?name=two%20lines&weight=3&attention=true&defaults=%7B%22steps%22%3A20%7D";
    let answer = server.submit(query, JSON, lines).send().await.unwrap();
    let location = answer.headers()["location"].to_str().unwrap().to_owned();
    let view: BatchView = document(answer, 202).await;
    assert_eq!(location, format!("/v1/batches/{}", view.id));
    assert_eq!((view.lines, view.jobs, view.weight), (2, 4, 3));
    assert_eq!((view.state, view.lane), (BatchState::Active, Lane::Express));
    assert_eq!(view.name.as_deref(), Some("two lines"));
    assert!(view.model.starts_with("emoji@"), "{}", view.model);

    assert_eq!(next(&mut control).await, Control::Batch { batch: view.id });
    let header = server.header(view.id).await;
    assert!(header.parts.is_empty() && header.outputs.attention && !header.outputs.trace);
    let job = header.job(&header.inline, 3).unwrap();
    assert_eq!((job.spec.prompt.as_str(), job.spec.steps, job.spec.seed), ("a red dog", 20, 0));
    assert_eq!(job.labels["set"], "b");
    let first = header.job(&header.inline, 2).unwrap();
    assert_eq!((first.spec.seed, first.custom_id.as_deref()), (2, Some("x")));
    assert_eq!(first.spec.subjects.len(), 2, "{:?}", first.spec.subjects);
    assert_eq!(server.keys("active/").await, [keys::active(view.id)]);
    assert_eq!(header.inline[1].line, 3, "empty lines are counted");
}

#[tokio::test]
async fn a_large_batch_is_stored_in_parts_that_name_every_job() {
    let server = Server::start().await;
    let count = limits::PART_LINES_MAX + 2345;
    let text: String = (0..count).map(|i| format!("a cat and frog {i}\n")).collect();
    let view = server.accepted("", &text).await;
    assert_eq!((view.lines, view.jobs as usize, view.lane), (count as u64, count, Lane::Bulk));
    let header = server.header(view.id).await;
    assert!(header.inline.is_empty());
    let parts: Vec<_> = header.parts.iter().map(|p| (p.lines, p.first, p.jobs)).collect();
    assert_eq!(parts, [(10_000, 0, 10_000), (2345, 10_000, 2345)]);
    let mut index = 0;
    for part in &header.parts {
        let object = server.store.get(&part.key).await.unwrap().unwrap();
        assert_eq!(crate::server::sha256(&object.body), part.sha256);
        let mut text = String::new();
        MultiGzDecoder::new(&object.body[..]).read_to_string(&mut text).unwrap();
        let lines: Vec<StoredLine> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for _ in &lines {
            let job = header.job(&lines, index).unwrap();
            assert_eq!(job.spec.prompt, format!("a cat and frog {index}"));
            index += 1;
        }
    }
    assert_eq!(index as usize, count);
}

#[tokio::test]
async fn rows_and_zipped_lines_are_taken() {
    let server = Server::start().await;
    let csv =
        "prompt,subjects,seed,labels.set\na cat and a frog,cat;frog,7,a\n\"a dog, red\",,8,\n";
    let answer = server.submit("", "text/csv; charset=utf-8", csv).send().await.unwrap();
    let view: BatchView = document(answer, 202).await;
    let header = server.header(view.id).await;
    assert_eq!(header.inline[0].spec.subjects.len(), 2);
    assert_eq!((header.inline[1].spec.prompt.as_str(), header.inline[1].line), ("a dog, red", 3));
    let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    zip.write_all(b"a cat\na dog\n").unwrap();
    let post = server.post("/v1/batches").header("content-type", "text/plain");
    let post = post.header("content-encoding", "gzip").body(zip.finish().unwrap());
    let view: BatchView = document(post.send().await.unwrap(), 202).await;
    assert_eq!(view.lines, 2);
}

#[tokio::test]
async fn wrong_lines_among_many_are_named_and_nothing_is_kept() {
    let server = Server::start().await;
    let mut lines = String::new();
    for number in 1..=25_000 {
        lines.push_str(match number {
            12_345 => "{\"prompt\": \"a cat\", \"steps\": 0}\n",
            12_346 => "{\"promt\": \"a cat\"}\n",
            24_999 => "no json\n",
            _ => "{\"prompt\": \"a cat and a frog\"}\n",
        });
    }
    let problem = problem(server.submit("", JSON, lines).send().await.unwrap()).await;
    assert_eq!((problem.status, problem.code.as_str()), (422, "lines_refused"));
    assert_eq!(problem.refused, Some(3));
    let errors: Vec<_> =
        problem.errors.iter().map(|e| (e.line, e.field.as_str(), e.code.as_str())).collect();
    let want = [
        (12_345, "steps", "out_of_range"),
        (12_346, "promt", "unknown_field"),
        (24_999, "line", "line_not_json"),
    ];
    assert_eq!(errors, want);
    assert!(problem.errors.iter().all(|e| !e.remedy.is_empty() && !e.message.is_empty()));
    server.nothing_is_stored().await;
}

#[tokio::test]
async fn of_very_many_wrong_lines_the_first_are_listed_and_all_counted() {
    let server = Server::start().await;
    let problem = problem(server.submit("", JSON, "{}\n".repeat(5000)).send().await.unwrap()).await;
    assert_eq!((problem.refused, problem.errors.len()), (Some(5000), limits::REFUSALS_MAX));
    assert_eq!(problem.errors[0].code, "empty");
}

#[tokio::test]
async fn an_upload_that_is_cut_leaves_nothing() {
    let server = Server::start().await;
    let address = server.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let lines = "a cat and a frog\n".repeat(30_000);
    let head = format!(
        "POST /v1/batches HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\n\
         content-length: {}\r\n\r\n",
        lines.len() + 1
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(lines.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.is_empty() || answer.contains("body_cut"), "{answer}");
    server.nothing_is_stored().await;
}

#[tokio::test]
async fn what_is_wrong_as_a_whole_is_said_with_its_remedy() {
    let server = Server::start().await;
    let long = "x".repeat(limits::LINE_BYTES_MAX + 10);
    let wide = format!("?lane=express&defaults={}", "%7B%22seeds%22%3A%220..101%22%7D");
    let mut bytes = b"a cat\na ".to_vec();
    bytes.extend_from_slice(b"\xff\n");
    #[rustfmt::skip]
    let table: &[(&str, &str, &[u8], u16, &str)] = &[
        ("",                       "text/plain",       b"",          422, "empty"),
        ("",                       "text/plain",       b"\n \n",     422, "empty"),
        ("",                       "application/xml",  b"<a/>",      415, "media_type"),
        ("",                       "application/json", b"{}",        422, "lines_refused"),
        ("?model=nobody",          "text/plain",       b"a cat",     422, "unknown_model"),
        ("?model=../emoji",        "text/plain",       b"a cat",     422, "unknown_model"),
        ("?weight=0",              "text/plain",       b"a cat",     422, "out_of_range"),
        ("?weight=many",           "text/plain",       b"a cat",     400, "bad_query"),
        ("?wieght=1",              "text/plain",       b"a cat",     400, "bad_query"),
        ("?max_attempts=21",       "text/plain",       b"a cat",     422, "out_of_range"),
        ("?name=",                 "text/plain",       b"a cat",     422, "name"),
        ("?defaults=%7B%22x%22%3A1%7D", "text/plain",  b"a cat",     422, "unknown_field"),
        ("",                       "text/plain",       long.as_bytes(), 422, "lines_refused"),
        ("",                       "text/plain",       &bytes,       422, "lines_refused"),
        ("",                       "text/csv",         b"a cat\n",   422, "lines_refused"),
        (&wide,                    "text/plain",       b"a cat",     422, "too_many_for_express"),
    ];
    for (query, kind, body, status, code) in table {
        let post = server.post(&format!("/v1/batches{query}")).header("content-type", *kind);
        let problem = problem(post.body(body.to_vec()).send().await.unwrap()).await;
        assert_eq!(
            (problem.status, problem.code.as_str()),
            (*status, *code),
            "{query}: {problem:?}"
        );
    }
    let plain = "a cat and a frog\n".repeat(3);
    let post = server.submit("", "text/plain", plain).header("content-encoding", "gzip");
    assert_eq!(problem(post.send().await.unwrap()).await.code, "not_gzip");
    let post = server.submit("?model=nobody", "text/plain", "a cat").send().await.unwrap();
    let problem = problem(post).await;
    assert!(problem.remedy.contains("`excite model push") && problem.remedy.contains("emoji"));
    server.nothing_is_stored().await;
}

#[tokio::test]
async fn more_jobs_than_a_batch_may_have_are_refused() {
    let server = Server::start().await;
    let line = "{\"prompt\": \"a cat\", \"seeds\": \"0..1000000\"}\n";
    let answer = server.submit("", JSON, line.repeat(101)).send().await.unwrap();
    let problem = problem(answer).await;
    assert_eq!((problem.status, problem.code.as_str()), (422, "too_many_jobs"));
    assert!(problem.detail.contains("line 101"), "{}", problem.detail);
    server.nothing_is_stored().await;
}

#[tokio::test]
async fn a_dry_run_counts_and_stores_nothing() {
    let server = Server::start().await;
    let text = "a cat and a frog\nabove\n".to_owned() + &"a red dog ".repeat(80);
    let query = "?dry_run=true&defaults=%7B%22seeds%22%3A%220..10%22%7D";
    let answer = server.submit(query, "text/plain", text).send().await.unwrap();
    let dry: DryRun = document(answer, 200).await;
    assert_eq!((dry.lines, dry.jobs, dry.gpu_seconds), (3, 30, None));
    assert_eq!((dry.warnings["truncated"], dry.warnings["no_subjects"]), (1, 1));
    assert_eq!(dry.warned_lines["truncated"], [3]);
    assert!(dry.examples.iter().any(|e| e.line == 3 && e.code == "truncated"), "{dry:?}");
    server.nothing_is_stored().await;
    assert!(server.keys("idempotency/").await.is_empty());
}

#[tokio::test]
async fn a_batch_is_accepted_while_the_broker_is_away() {
    let server = Server::start().await;
    let away = Server::bare().await;
    for key in server.keys("models/").await {
        let object = server.store.get(&key).await.unwrap().unwrap();
        let always = excite_jobs::store::Condition::Always;
        away.store.put(&key, object.body, always).await.unwrap();
    }
    let view = away.accepted("", "a cat").await;
    excite_jobs::queue::Queue::declare(&*away.queue, &["default".into()]).await.unwrap();
    let mut control = away.control().await;
    assert_eq!(next(&mut control).await, Control::Batch { batch: view.id });
}

#[tokio::test]
async fn a_matrix_is_every_combination() {
    let server = Server::start().await;
    let matrix = serde_json::json!({
        "axes": {"prompt": ["a cat", "a dog"], "seed": "0..50", "guidance_scale": [5.0, 7.5]},
        "defaults": {"steps": 3, "method": "none"},
    });
    let submit = async |query: &str, matrix: &serde_json::Value| {
        server.submit(query, "application/json", matrix.to_string()).send().await.unwrap()
    };
    let view: BatchView = document(submit("", &matrix).await, 202).await;
    assert_eq!((view.lines, view.jobs), (4, 200));
    let many: Vec<u32> = (0..1_000_000).collect();
    let huge = serde_json::json!({"axes": {"prompt": ["a cat"], "steps": many, "width": many}});
    let refused = problem(submit("", &huge).await).await;
    assert_eq!(refused.errors[0].code, "too_many_jobs", "{refused:?}");
    // What is wrong with a combination is told as of a line.
    let wrong = serde_json::json!({"axes": {"prompt": ["a cat", " "], "steps": [2, 0]}});
    let refused = problem(submit("?dry_run=true", &wrong).await).await;
    assert_eq!(refused.refused, Some(3), "{refused:?}");
}
