//! `excite batch`, but for `fetch`.

use serde_json::{Value, json};

use super::server::{Answer, Request, Server};
use super::{BATCH, batch, ended, excite, not_found, objects, problem};

const OTHER: &str = "0193a1c4-0000-7000-8000-000000000000";

/// Two pages of two batches.
fn dispatcher(request: &Request, _: usize) -> Answer {
    let one = format!("/v1/batches/{BATCH}");
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    let running = batch("active", json!({"succeeded": 4, "dead": 1, "running": 5}));
    match (request.method.as_str(), path) {
        ("GET", "/v1/batches") if query.contains("after=next") => {
            let mut other = batch("paused", json!({"waiting": 10}));
            other["id"] = OTHER.into();
            Answer::json(200, &json!({"batches": [other], "next": null}))
        }
        ("GET", "/v1/batches") => Answer::json(200, &json!({"batches": [running], "next": "next"})),
        ("GET", path) if path == one => Answer::json(200, &running),
        ("PATCH", path) if path == one => {
            let change = request.json();
            let mut changed = running;
            if change["paused"] == true {
                changed["state"] = "paused".into();
            }
            if change["cancelled"] == true {
                changed["state"] = "cancelled".into();
            }
            if change["weight"].is_u64() {
                changed["weight"] = change["weight"].clone();
            }
            Answer::json(200, &changed)
        }
        ("DELETE", path) if path == one => {
            let deleted = !query.contains("dry_run=true");
            Answer::json(200, &json!({"objects": 31, "images": 4, "deleted": deleted}))
        }
        _ => not_found(),
    }
}

#[test]
fn batches_are_listed_and_filtered() {
    let server = Server::new(dispatcher);
    let (stdout, _) = ended(&excite(&server, &["batch", "list"]), 0);
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{stdout}");
    assert!(lines[0].starts_with("ID ") && lines[0].ends_with("NAME"), "{stdout}");
    assert!(lines[1].contains("active") && lines[1].contains("2026-01-02T03:04:05Z"), "{stdout}");
    let (stdout, _) = ended(&excite(&server, &["batch", "list", "--state", "paused", "--json"]), 0);
    let [one] = &objects(&stdout)[..] else { panic!("{stdout}") };
    assert_eq!((&one["id"], &one["v"]), (&json!(OTHER), &json!(1)));
    let (stdout, _) = ended(&excite(&server, &["batch", "list", "--limit", "1"]), 0);
    assert_eq!(stdout.lines().count(), 2, "{stdout}");
    let (_, stderr) = ended(&excite(&server, &["batch", "list", "--state", "done"]), 2);
    assert!(stderr.contains("active, paused, finished, cancelled"), "{stderr}");
}

#[test]
fn a_batch_is_shown_by_the_beginning_of_its_id() {
    let server = Server::new(dispatcher);
    let (stdout, stderr) = ended(&excite(&server, &["batch", "show", "0193a1b2"]), 0);
    for want in ["4 succeeded, 1 dead, 5 running", "3 out_of_memory", "lane express", "2 retries"] {
        assert!(stdout.contains(want), "{want}\n{stdout}");
    }
    assert!(stderr.contains(&format!("excite dead list --batch {BATCH}")), "{stderr}");
    for (id, want) in [
        ("0193", "2 batches begin with `0193`"),
        ("0193f", "no batch begins with `0193f`"),
        ("01", "is no batch id"),
        ("../../etc", "is no batch id"),
    ] {
        let (_, stderr) = ended(&excite(&server, &["batch", "show", id]), 2);
        assert!(stderr.contains(want), "{id}: {stderr}");
    }
    let (_, stderr) = ended(&excite(&server, &["batch", "show", OTHER]), 1);
    assert!(stderr.contains("there is no such thing\n help: Look at the list."), "{stderr}");
}

#[test]
fn batches_are_steered() {
    let server = Server::new(dispatcher);
    for (args, body, want) in [
        (&["pause", BATCH][..], json!({"paused": true}), "is paused"),
        (&["resume", BATCH], json!({"paused": false}), "is active"),
        (&["cancel", BATCH], json!({"cancelled": true}), "is cancelled"),
        (&["weight", BATCH, "10"], json!({"weight": 10}), "weight 10"),
    ] {
        let (stdout, _) = ended(&excite(&server, &[&["batch"], args].concat()), 0);
        assert!(stdout.contains(want), "{stdout}");
        assert_eq!(server.requests("PATCH", "/").last().unwrap().json(), body);
    }
    ended(&excite(&server, &["batch", "weight", BATCH, "101"]), 2);
}

#[test]
fn nothing_is_deleted_without_yes() {
    let server = Server::new(dispatcher);
    let (stdout, stderr) = ended(&excite(&server, &["batch", "delete", BATCH]), 0);
    assert!(stdout.contains("31 objects, 4 images among them"), "{stdout}");
    let again = format!("nothing was deleted; `excite batch delete {BATCH} --yes` does it");
    assert!(stderr.contains(&again), "{stderr}");
    let targets = |server: &Server| -> Vec<String> {
        server.requests("DELETE", "/").into_iter().map(|request| request.target).collect()
    };
    assert_eq!(targets(&server), [format!("/v1/batches/{BATCH}?dry_run=true")]);
    let (stdout, _) = ended(&excite(&server, &["batch", "delete", BATCH, "--yes"]), 0);
    assert!(stdout.contains("is deleted"), "{stdout}");
    assert_eq!(targets(&server)[1..], [format!("/v1/batches/{BATCH}")]);
}

/// A server that goes away and comes back, and a batch that has ended but is not counted yet.
#[test]
fn watching_outlives_the_server() {
    let server = Server::new(|_, before| match before {
        0 => Answer::json(200, &batch("active", json!({"running": 10}))),
        1 => Answer::lost(),
        2 => problem(503, "no_broker", "the broker is away", "Wait.").with("Retry-After", "0"),
        3 => {
            let mut uncounted = batch("finished", json!({}));
            uncounted["tally"] = Value::Null;
            Answer::json(200, &uncounted)
        }
        _ => Answer::json(200, &batch("finished", json!({"succeeded": 10}))),
    });
    let (stdout, stderr) = ended(&excite(&server, &["batch", "watch", BATCH, "--json"]), 0);
    assert!(stderr.contains("trying on"), "{stderr}");
    assert_eq!(stderr.matches("the server is there again").count(), 1, "{stderr}");
    let states: Vec<Value> = objects(&stdout).into_iter().map(|o| o["state"].clone()).collect();
    assert_eq!(states, ["active", "finished", "finished"]);
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_the_watching_and_not_the_batch() {
    use std::io::{BufRead, BufReader, Read};
    let server = Server::new(dispatcher);
    let mut child = super::command(&server.address(), &["batch", "watch", BATCH]).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut first = String::new();
    stderr.read_line(&mut first).unwrap();
    assert!(first.contains("50 % of 10 jobs"), "{first}");
    super::interrupt(&child);
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}");
    assert!(rest.contains(&format!("the batch goes on: `excite batch watch {BATCH}`")), "{rest}");
    assert!(server.requests("PATCH", "/").is_empty());
}
