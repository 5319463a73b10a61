//! Jobs: found, shown, looked at, taken home.

use std::io::{Cursor, Read};

use excite_jobs::api::{BatchView, JobDetail, JobEventKind, JobPage, JobView};
use excite_jobs::progress::{Progress, pack};
use excite_jobs::store::{Condition, Store};
use excite_jobs::{BatchId, Done, JobId, State, keys};
use serde_json::{Value, json};

use crate::server::{Server, document, problem};

async fn put(server: &Server, key: String, body: impl Into<Vec<u8>>) {
    server.store.put(&key, body.into().into(), Condition::Always).await.unwrap();
}

/// A record as a leader writes it.
fn record(index: u32, state: &str, more: Value) -> Value {
    let mut record = json!({"v": 1, "index": index, "state": state, "reason": "reported",
        "lease": 1, "attempt": 1, "worker": "w-1", "at": "2026-01-02T03:04:05Z"});
    record.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value::<Done>(record.clone()).unwrap();
    record
}

fn succeeded(index: u32, score: f32) -> Value {
    let success = json!({"key": "", "sha256": "", "bytes": 9, "seconds": 1.5, "steps": 2,
        "loss": 1. - score, "scores": [0.99, score], "weakest": "frog"});
    record(index, "succeeded", json!({"success": success}))
}

async fn conclude(server: &Server, batch: BatchId, n: u64, records: &[Value]) {
    let body: String = records.iter().map(|record| format!("{record}\n")).collect();
    put(server, keys::done(batch, 1, n), body).await;
}

fn png() -> Vec<u8> {
    let mut png = Cursor::new(Vec::new());
    let image = image::RgbImage::from_pixel(640, 320, image::Rgb([10, 200, 10]));
    image.write_to(&mut png, image::ImageFormat::Png).unwrap();
    png.into_inner()
}

async fn jobs(server: &Server, batch: BatchId, query: &str) -> JobPage {
    let path = format!("/v1/batches/{batch}/jobs?{query}");
    document(server.get(&path).send().await.unwrap(), 200).await
}

fn places(page: &JobPage) -> Vec<u32> {
    page.jobs.iter().map(|job| job.index).collect()
}

#[tokio::test]
async fn jobs_are_found_by_state_score_label_and_name() {
    let server = Server::start().await;
    let lines = [
        json!({"prompt": "a cat and a frog", "seeds": "0..4", "labels": {"set": "a"}}),
        json!({"prompt": "a dog and a frog", "seeds": "0..2", "labels": {"set": "b"}, "custom_id": "d"}),
    ];
    let body = lines.map(|line| line.to_string()).join("\n");
    let submitted = server.submit("", "application/x-ndjson", body).send().await.unwrap();
    let batch: BatchView = document(submitted, 202).await;
    let id = batch.id;
    let dead = record(
        3,
        "dead",
        json!({"dead": "invalid", "failure":
        {"class": "invalid", "code": "bad", "message": "no"}}),
    );
    conclude(&server, id, 0, &[succeeded(1, 0.5), succeeded(0, 0.75), dead]).await;
    conclude(&server, id, 1, &[succeeded(4, 0.25)]).await;
    let states = [
        State::Succeeded,
        State::Succeeded,
        State::Running,
        State::Dead,
        State::Succeeded,
        State::Queued,
    ];
    let tally = excite_jobs::Tally::default();
    server.mirror.replace(id, "1-0", &pack(states), &tally).await.unwrap();

    #[rustfmt::skip]
    let table: [(&str, &[u32]); 12] = [
        ("sort=index",                             &[0, 1, 2, 3, 4, 5]),
        ("sort=score&state=succeeded",             &[4, 1, 0]),
        ("sort=-score&state=succeeded",            &[0, 1, 4]),
        ("sort=-at&state=succeeded",               &[4, 0, 1]),
        ("min_score=0.5",                          &[0, 1]),
        ("max_score=0.5",                          &[1, 4]),
        ("label=set:b",                            &[4, 5]),
        ("label=set:c",                            &[]),
        ("custom_id=d&state=succeeded",            &[4]),
        ("sort=index&state=running",               &[2]),
        ("sort=index&state=queued",                &[5]),
        ("state=dead",                             &[3]),
    ];
    for (query, want) in table {
        assert_eq!(places(&jobs(&server, id, query).await), want, "{query}");
    }
    let all = jobs(&server, id, "sort=score").await;
    let mut pages = Vec::new();
    let mut after = String::new();
    loop {
        let page = jobs(&server, id, &format!("sort=score&limit=4{after}")).await;
        pages.extend(places(&page));
        let Some(next) = page.next else { break };
        after = format!("&after={next}");
    }
    assert_eq!(pages, places(&all), "page by page the same");
    for (query, code) in [
        ("label=x", "bad_query"),
        ("sort=size", "bad_query"),
        ("sort=score&after=x", "bad_query"),
        ("min_score=x", "bad_query"),
    ] {
        let answer = server.get(&format!("/v1/batches/{id}/jobs?{query}")).send().await.unwrap();
        assert_eq!(problem(answer).await.code, code, "{query}");
    }
}

#[tokio::test]
async fn a_job_shows_what_happened_to_it() {
    let server = Server::start().await;
    let submit = server.submit(
        "?compare=true",
        "application/x-ndjson",
        r#"{"prompt": "a cat and a frog", "seeds": "5..7", "custom_id": "x"}"#,
    );
    let batch: BatchView = document(submit.send().await.unwrap(), 202).await;
    assert_eq!((batch.jobs, batch.lines, batch.compare), (4, 1, true));
    let id = batch.id;
    let run = |from: u32| json!({"started_at": "2026-01-02T03:04:01Z", "from_step": from});
    let job = JobId::new(id, 1);
    let preempted = record(
        1,
        "queued",
        json!({"reason": "preempted", "lease": 2, "run": run(0),
        "checkpoint": keys::checkpoint(job, 31, 1)}),
    );
    let mut stored = succeeded(1, 0.5);
    stored["lease"] = json!(2);
    stored["worker"] = json!("w-2");
    stored["run"] = run(31);
    stored["at"] = json!("2026-01-02T03:05:05Z");
    conclude(&server, id, 0, &[preempted]).await;
    conclude(&server, id, 1, &[stored]).await;
    let path = format!("/v1/batches/{id}/jobs/1");
    let shown: JobDetail = document(server.get(&path).send().await.unwrap(), 200).await;
    assert_eq!((shown.job.state, shown.job.compared_with), (State::Succeeded, Some(3)));
    assert_eq!((shown.spec.seed, shown.job.custom_id.as_deref()), (6, Some("x")));
    let events: Vec<_> =
        shown.timeline.iter().map(|e| (e.event, e.step, e.worker.as_deref())).collect();
    let want = [
        (JobEventKind::Submitted, None, None),
        (JobEventKind::Started, None, Some("w-1")),
        (JobEventKind::Preempted, Some(31), Some("w-1")),
        (JobEventKind::Resumed, Some(31), Some("w-2")),
        (JobEventKind::Stored, None, Some("w-2")),
    ];
    assert_eq!(events, want);
    let twin: JobDetail =
        document(server.get(&format!("/v1/batches/{id}/jobs/3")).send().await.unwrap(), 200).await;
    assert_eq!((twin.job.compared_with, twin.job.method.as_str()), (Some(1), "none"));
    assert_eq!((twin.spec.seed, twin.job.custom_id.as_deref()), (6, Some("x-plain")));
    assert_eq!((twin.job.state, twin.outputs.image), (State::Waiting, false));
    let missing = server.get(&format!("/v1/batches/{id}/jobs/4")).send().await.unwrap();
    assert_eq!(problem(missing).await.status, 404);
}

#[tokio::test]
async fn a_line_is_made_with_every_method_that_is_asked_for() {
    let server = Server::start().await;
    let lines = concat!(
        r#"{"prompt": "a cat and a frog", "seeds": "5..7", "custom_id": "x", "#,
        r#""method_params": {"gain": 50}}"#,
        "\n",
        r#"{"prompt": "abstract mood", "seed": 1}"#,
    );
    let submit = |query: &str| server.submit(query, "application/x-ndjson", lines);
    let sent = submit("?methods=composable,none,attend_and_excite").send().await.unwrap();
    let batch: BatchView = document(sent, 202).await;
    // Of the line without a subject two methods are the plain one.
    assert_eq!((batch.jobs, batch.lines, batch.compare), (8, 2, true));
    let job = async |index: u32| -> JobDetail {
        let path = format!("/v1/batches/{}/jobs/{index}", batch.id);
        document(server.get(&path).send().await.unwrap(), 200).await
    };
    for (index, method, id, with) in [
        (1, "composable", Some("x-composable"), Some(3)),
        (3, "none", Some("x-none"), Some(1)),
        (4, "attend_and_excite", Some("x-attend_and_excite"), Some(2)),
        (6, "composable", None, Some(7)),
        (7, "none", None, Some(6)),
    ] {
        let found = job(index).await;
        let of = (found.job.method.as_str(), found.job.custom_id.as_deref());
        assert_eq!((of, found.job.compared_with), ((method, id), with), "{index}");
    }
    let guided = job(4).await;
    let excite_jobs::Method::AttendAndExcite(params) = guided.spec.method else {
        panic!("{guided:?}")
    };
    assert_eq!(
        (params.gain, guided.spec.seed),
        (50., 5),
        "options belong to the line's own method"
    );
    let refused = problem(submit("?methods=none,compose").send().await.unwrap()).await;
    assert_eq!((refused.status, refused.code.as_str()), (422, "unknown_name"), "{refused:?}");
}

#[tokio::test]
async fn images_are_shown_small_and_taken_home_together() {
    let server = Server::start().await;
    let lines = "{\"prompt\": \"a cat\", \"seeds\": \"0..3\"}\n{\"prompt\": \"a dog\", \"custom_id\": \"d\"}";
    let submitted = server.submit("", "application/x-ndjson", lines).send().await.unwrap();
    let batch: BatchView = document(submitted, 202).await;
    let id = batch.id;
    conclude(&server, id, 0, &[succeeded(0, 0.5), succeeded(3, 0.5)]).await;
    for index in [0, 3] {
        let job = JobId::new(id, index);
        put(&server, keys::image(job), png()).await;
        put(&server, keys::sidecar(job), format!("{{\"of\": {index}}}")).await;
    }
    let path = format!("/v1/batches/{id}/jobs/0/thumbnail");
    let answer = server.get(&path).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "image/jpeg");
    let etag = answer.headers()["etag"].clone();
    let jpeg = answer.bytes().await.unwrap();
    let read = image::load_from_memory(&jpeg).unwrap();
    assert_eq!((read.width(), read.height()), (256, 128));
    let stored = server.store.get(&keys::thumbnail(JobId::new(id, 0))).await.unwrap();
    assert_eq!(stored.unwrap().body, jpeg, "it is made once");
    let again = server.get(&path).header("if-none-match", etag).send().await.unwrap();
    assert_eq!(again.status(), 304);
    let none = server.get(&format!("/v1/batches/{id}/jobs/1/thumbnail")).send().await.unwrap();
    assert_eq!(problem(none).await.status, 404);

    let names = async |query: &str| {
        let path = format!("/v1/batches/{id}/images.zip{query}");
        let answer = server.get(&path).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let zip = Cursor::new(answer.bytes().await.unwrap().to_vec());
        let mut zip = zip::ZipArchive::new(zip).unwrap();
        let mut names = Vec::new();
        for at in 0..zip.len() {
            let mut file = zip.by_index(at).unwrap();
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap();
            let name = file.name().unwrap().into_owned();
            if name.ends_with(".png") {
                assert_eq!(bytes, png(), "{name}");
            }
            names.push(name);
        }
        names
    };
    assert_eq!(names("").await, ["00000000.png", "00000000.json", "d.png", "d.json"]);
    assert_eq!(names("?indices=1..4").await, ["d.png", "d.json"]);
    for (query, status) in [("?indices=1", 404), ("?indices=x", 400)] {
        let path = format!("/v1/batches/{id}/images.zip{query}");
        assert_eq!(problem(server.get(&path).send().await.unwrap()).await.status, status);
    }
    let results = server.get(&format!("/v1/batches/{id}/results")).send().await.unwrap();
    assert_eq!(results.headers()["content-type"], "application/x-ndjson");
    let text = results.text().await.unwrap();
    let read: Vec<JobView> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let found: Vec<_> = read.iter().map(|job| (job.index, job.custom_id.as_deref())).collect();
    assert_eq!(found, [(0, None), (3, Some("d"))]);
}
