//! `excite dead`.

use serde_json::{Value, json};

use super::server::{Answer, Request, Server};
use super::{BATCH, batch, ended, excite, not_found, objects, problem};

fn dead_job(index: u32, message: &str) -> Value {
    json!({
        "id": format!("{BATCH}-{index:08}"), "index": index, "line": 3, "custom_id": null,
        "labels": {}, "prompt": "a cat and a frog", "seed": 7, "method": "attend_and_excite",
        "state": "dead", "attempt": 2, "worker": "worker-1", "at": "2026-01-02T03:04:05Z",
        "success": null, "dead": "capacity",
        "failure": {"class": "capacity", "code": "out_of_memory", "message": message},
    })
}

fn dispatcher(request: &Request, _: usize) -> Answer {
    let jobs = format!("/v1/batches/{BATCH}/jobs?state=dead");
    let succeeded = format!("/v1/batches/{BATCH}/jobs?state=succeeded");
    let replay = ("POST", "/v1/dead/replay");
    match (request.method.as_str(), request.target.as_str()) {
        ("GET", target) if target.starts_with("/v1/dead") => {
            let group = json!({
                "batch": BATCH, "reason": "capacity", "code": "out_of_memory",
                "example": "no room ".repeat(20), "jobs": 31, "indices": [17, 18, 19, 20],
            });
            Answer::json(200, &json!({"groups": [group]}))
        }
        ("GET", target) if target.starts_with(&jobs) && target.contains("after=2") => {
            // The same job again: it was replayed and died of something else.
            Answer::json(200, &json!({"jobs": [dead_job(17, "the second time")], "next": null}))
        }
        ("GET", target) if target.starts_with(&jobs) => {
            // The last one was replayed and succeeded.
            let jobs = [17, 18, 19].map(|index| dead_job(index, "the first time"));
            Answer::json(200, &json!({"jobs": jobs, "next": "2"}))
        }
        ("GET", target) if target.starts_with(&succeeded) => {
            let mut job = dead_job(19, "");
            job["state"] = "succeeded".into();
            Answer::json(200, &json!({"jobs": [job], "next": null}))
        }
        ("GET", target) if target == format!("/v1/batches/{BATCH}") => {
            Answer::json(200, &batch("active", json!({"dead": 1, "retrying": 1, "succeeded": 8})))
        }
        asked if asked == replay => Answer::json(200, &json!({"jobs": 31})),
        _ => not_found(),
    }
}

#[test]
fn dead_jobs_are_listed_by_what_they_died_of() {
    let server = Server::new(dispatcher);
    let (stdout, _) = ended(&excite(&server, &["dead", "list", "--batch", BATCH]), 0);
    assert!(stdout.lines().nth(1).unwrap().contains("capacity  out_of_memory  31"), "{stdout}");
    assert!(stdout.contains("17,18,19,…") && stdout.trim_end().ends_with('…'), "{stdout}");
    assert_eq!(server.requests("GET", &format!("/v1/dead?batch={BATCH}")).len(), 1);
    let (stdout, _) = ended(&excite(&server, &["dead", "list", "--json"]), 0);
    assert_eq!(objects(&stdout)[0]["jobs"], 31);
}

#[test]
fn dead_jobs_are_shown_as_they_died_last() {
    let server = Server::new(dispatcher);
    let (stdout, stderr) = ended(&excite(&server, &["dead", "show", BATCH]), 0);
    assert!(stdout.contains("job 17: capacity") && stdout.contains("job 18: "), "{stdout}");
    assert!(stdout.contains("capacity, out_of_memory: the second time"), "{stdout}");
    assert_eq!(stdout.matches("the first time").count(), 1, "{stdout}");
    assert!(!stdout.contains("job 19"), "{stdout}");
    assert!(stderr.contains("1 of these are being tried again"), "{stderr}");
    let (stdout, stderr) = ended(&excite(&server, &["dead", "show", BATCH, "18", "4711"]), 3);
    assert!(stdout.contains("job 18") && !stdout.contains("job 17"), "{stdout}");
    assert!(stderr.contains("not dead: 4711"), "{stderr}");
    ended(&excite(&server, &["dead", "show", BATCH, "4711"]), 1);
}

#[test]
fn dead_jobs_are_replayed_as_chosen() {
    let server = Server::new(dispatcher);
    for (args, want) in [
        (&[][..], json!({"batch": BATCH})),
        (&["--reason", "capacity"], json!({"batch": BATCH, "reason": "capacity"})),
        (
            &["--code", "x", "--index", "17", "18"],
            json!({"batch": BATCH, "code": "x", "indices": [17, 18]}),
        ),
    ] {
        let (stdout, _) = ended(&excite(&server, &[&["dead", "replay", BATCH], args].concat()), 0);
        assert_eq!(stdout, "31 jobs are tried again\n");
        assert_eq!(server.requests("POST", "/v1/dead/replay").last().unwrap().json(), want);
    }
    let (_, stderr) = ended(&excite(&server, &["dead", "replay", BATCH, "--reason", "old"]), 2);
    assert!(stderr.contains("poison"), "{stderr}");
}

/// Nobody knows whether the first request was heard: the second would count nothing.
#[test]
fn a_replay_without_an_answer_is_not_repeated() {
    let server = Server::new(|_, _| Answer::lost());
    ended(&excite(&server, &["dead", "replay", BATCH]), 1);
    assert_eq!(server.requests("POST", "/").len(), 1);
    let server = Server::new(|_, _| problem(502, "bad_gateway", "no", "Wait."));
    ended(&excite(&server, &["dead", "replay", BATCH]), 1);
    assert_eq!(server.requests("POST", "/").len(), 1);
}
