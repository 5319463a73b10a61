//! What the dashboard lives on: overview, statistics, events, and its own files.

use std::collections::BTreeMap;

use excite_dispatcher::config::Dispatcher;
use excite_jobs::Class;
use excite_jobs::Tally;
use excite_jobs::api::{BatchProgressed, BatchState, Overview, Prompted, Statistics};
use excite_jobs::progress::{BatchEvent, Point, Progress};
use reqwest::Response;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::server::{SOON, Server, document, problem};

/// The next event of a stream: its name, id and data.
async fn event(stream: &mut Response, rest: &mut String) -> (String, Option<String>, Value) {
    let read = async {
        loop {
            if let Some((event, behind)) = rest.split_once("\n\n") {
                let (event, behind) = (event.to_owned(), behind.to_owned());
                *rest = behind;
                let field = |name: &str| {
                    let value = event.lines().find_map(|line| line.strip_prefix(name));
                    value.map(|value| value.trim().to_owned())
                };
                if let (Some(name), Some(data)) = (field("event:"), field("data:")) {
                    return (name, field("id:"), serde_json::from_str(&data).unwrap());
                }
                continue;
            }
            let chunk = stream.chunk().await.unwrap().expect("the stream ended");
            rest.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    };
    tokio::time::timeout(SOON, read).await.expect("an event")
}

#[tokio::test]
async fn an_overview_counts_the_last_hour() {
    let price = Dispatcher { price_per_gpu_hour: Some(2.), ..Dispatcher::default() };
    let server = Server::of(price).await;
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let point = |at, images| Point {
        at,
        seconds: 10.,
        images,
        accepted: images / 2,
        failures: BTreeMap::from([(Class::Timeout, 5)]),
        workers_ready: 36,
        ..Point::default()
    };
    for point in [point(now - 4000, 1000), point(now - 20, 100), point(now - 10, 20)] {
        server.mirror.add_point(&point).await.unwrap();
    }
    let overview: Overview = document(server.get("/v1/overview").send().await.unwrap(), 200).await;
    assert_eq!(overview.failures, BTreeMap::from([(Class::Timeout, 10)]));
    // 72 workers for ten seconds are a fifth of an hour.
    assert_eq!(overview.accepted_per_gpu_hour, Some(300.));
    let cost = overview.cost_per_image.unwrap();
    assert!((cost - 0.4 / 120.).abs() < 1e-9, "{cost}");
    assert_eq!((overview.leader, overview.currency.as_deref()), (None, Some("USD")));
    let path = "/v1/statistics?minutes=60";
    let charts: Statistics = document(server.get(path).send().await.unwrap(), 200).await;
    let rates: Vec<f64> = charts.points.iter().map(|point| point.images_per_second).collect();
    assert_eq!(rates, [100., 10., 2.]);
    for minutes in ["0", "361", "x"] {
        let path = format!("/v1/statistics?minutes={minutes}");
        let answer = server.get(&path).send().await.unwrap();
        assert_eq!(problem(answer).await.code, "bad_query", "{minutes}");
    }
}

#[tokio::test]
async fn a_batch_tells_what_changes_to_whoever_listens() {
    let server = Server::start().await;
    let id = server.accepted("", "a cat\na dog").await.id;
    let tally = |retries| Tally { retries, ..Tally::default() };
    let tell = async |retries| {
        let event = BatchEvent { at: OffsetDateTime::now_utc(), tally: tally(retries) };
        server.mirror.event(id, &event).await.unwrap();
    };
    server.mirror.replace(id, "1-0", &[0], &tally(0)).await.unwrap();
    tell(1).await;
    let path = format!("/v1/batches/{id}/events");
    let (mut one, mut one_rest) = (server.get(&path).send().await.unwrap(), String::new());
    let (name, first_id, data) = event(&mut one, &mut one_rest).await;
    let progressed: BatchProgressed = serde_json::from_value(data).unwrap();
    assert_eq!((name.as_str(), progressed.tally.retries), ("progress", 1));
    let (mut two, mut two_rest) = (server.get(&path).send().await.unwrap(), String::new());
    event(&mut two, &mut two_rest).await;
    tell(2).await;
    for (stream, rest) in [(&mut one, &mut one_rest), (&mut two, &mut two_rest)] {
        let (_, id, data) = event(stream, rest).await;
        assert!(id.is_some() && id != first_id);
        assert_eq!(data["tally"]["retries"], 2);
    }
    // Paused in another tab: the header alone changes.
    let patch = server.client.patch(format!("{}/v1/batches/{id}", server.url));
    patch.json(&json!({"paused": true})).send().await.unwrap();
    let (_, _, data) = event(&mut one, &mut one_rest).await;
    let paused: BatchProgressed = serde_json::from_value(data).unwrap();
    assert_eq!((paused.state, paused.revision), (BatchState::Paused, 2));
    // Whoever has seen an event is not told it again.
    let last = server.get(&path).header("last-event-id", "x").send().await.unwrap();
    assert_eq!(last.headers()["content-type"], "text/event-stream");
    let patch = server.client.patch(format!("{}/v1/batches/{id}", server.url));
    patch.json(&json!({"cancelled": true})).send().await.unwrap();
    event(&mut one, &mut one_rest).await;
    server.client.delete(format!("{}/v1/batches/{id}", server.url)).send().await.unwrap();
    let (name, ..) = event(&mut one, &mut one_rest).await;
    assert_eq!(name, "gone");
    let missing = server.get(&path).send().await.unwrap();
    assert_eq!(problem(missing).await.status, 404);
}

#[tokio::test]
async fn a_change_is_refused_if_somebody_was_first() {
    let server = Server::start().await;
    let id = server.accepted("?name=one", "a cat").await.id;
    let change = async |revision: &str, body: Value| {
        let patch = server.client.patch(format!("{}/v1/batches/{id}", server.url));
        patch.header("if-match", format!("\"{revision}\"")).json(&body).send().await.unwrap()
    };
    let renamed: Value = document(change("1", json!({"name": "two"})).await, 200).await;
    assert_eq!((&renamed["name"], &renamed["revision"]), (&json!("two"), &json!(2)));
    let late = problem(change("1", json!({"weight": 3})).await).await;
    assert_eq!((late.status, late.code.as_str()), (412, "changed_meanwhile"));
    assert_eq!(server.header(id).await.weight, 1, "nothing was changed");
    assert_eq!(change("2", json!({"weight": 3})).await.status(), 200);
    let bad = problem(change("3", json!({"name": "a\nb"})).await).await;
    assert_eq!(bad.code, "name");
}

#[tokio::test]
async fn a_prompt_shows_what_would_be_found_in_it() {
    let server = Server::bare().await;
    let ask = async |prompt: &str| {
        server.post("/v1/subjects").json(&json!({"prompt": prompt})).send().await.unwrap()
    };
    let found: Prompted = document(ask("a \u{1f600} cat and a frog").await, 200).await;
    let words: Vec<&str> = found.subjects.iter().map(|subject| subject.word.as_str()).collect();
    assert_eq!((words, found.unsure), (vec!["cat", "frog"], false));
    let cat = found.words.iter().find(|word| word.word == "cat").unwrap();
    assert_eq!((cat.start, cat.end), (5, 8), "as scripts count");
    assert_eq!(cat.indices, found.subjects[0].indices);
    for prompt in ["", " ", &"x".repeat(10_000)] {
        assert_eq!(problem(ask(prompt).await).await.code, "prompt");
    }
}

#[tokio::test]
async fn the_dashboard_needs_nothing_from_elsewhere() {
    let server = Server::bare().await;
    for path in ["/", "/batches", "/batches/x/jobs/1", "/workers", "/dead", "/submit"] {
        let page = server.get(path).send().await.unwrap();
        assert_eq!(page.status(), 200, "{path}");
        let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        let html = page.text().await.unwrap();
        assert!(!html.contains("http://") && !html.contains("https://"), "{html}");
        // Every file that it names is there.
        for part in html.split('"').filter(|part| part.starts_with("/assets/")) {
            let file = server.get(part).send().await.unwrap();
            assert_eq!(file.status(), 200, "{part}");
            let etag = file.headers()["etag"].clone();
            let again = server.get(part).header("if-none-match", etag).send().await.unwrap();
            assert_eq!(again.status(), 304, "{part}");
        }
    }
    for path in ["/assets/none.js", "/assets/vendor.sh", "/assets/../Cargo.toml"] {
        assert_eq!(server.get(path).send().await.unwrap().status(), 404, "{path}");
    }
}
