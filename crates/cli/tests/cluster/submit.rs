//! `excite submit`.

use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::json;
use tempfile::TempDir;

use super::server::{Answer, Server};
use super::{BATCH, batch, command, ended, excite, objects, problem};

fn file(name: &str, content: &str) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    (folder, path)
}

fn accepted() -> Answer {
    Answer::json(202, &batch("active", json!({"waiting": 10})))
}

#[test]
fn a_file_is_sent_with_its_options_and_the_id_is_printed() {
    let lines = "a cat and a frog\n".repeat(20_000);
    let (_folder, path) = file("prompts.txt", &lines);
    let server = Server::new(|_, _| accepted());
    #[rustfmt::skip]
    let output = excite(&server, &[
        "submit", path.to_str().unwrap(), "--seeds", "0..64", "--steps", "20", "--model", "emoji",
        "--name", "all & more", "--lane", "bulk", "--weight", "3", "--attention",
    ]);
    let (stdout, stderr) = ended(&output, 0);
    assert_eq!(stdout, format!("{BATCH}\n"));
    assert!(stderr.contains("`no_subjects` in 2 lines"), "{stderr}");
    assert!(stderr.contains(&format!("excite batch watch {BATCH}")), "{stderr}");
    let [request] = &server.requests("POST", "/v1/batches?")[..] else { panic!("one request") };
    assert!(request.body == lines.as_bytes());
    assert_eq!(request.header("content-type"), Some("text/plain; charset=utf-8"));
    let query = request.target.split_once('?').unwrap().1;
    let parameters: Vec<&str> = query.split('&').collect();
    for want in [
        "attention=true",
        "lane=bulk",
        "model=emoji",
        "name=all%20%26%20more",
        "weight=3",
        "defaults=%7B%22seeds%22%3A%220..64%22%2C%22steps%22%3A20%7D",
    ] {
        assert!(parameters.contains(&want), "{want}: {query}");
    }
    assert_eq!(parameters.len(), 6, "{query}");
    assert!(request.header("idempotency-key").is_some_and(|key| key.len() == 36));
}

#[test]
fn the_kind_of_a_file_is_seen_or_said() {
    let server = Server::new(|_, _| accepted());
    for (name, content, args, want) in [
        ("a.jsonl", "{}", &[][..], Some("application/x-ndjson")),
        ("a.JSON", "{}", &[], Some("application/x-ndjson")),
        ("a.csv", "prompt\na cat", &[], Some("text/csv; charset=utf-8")),
        ("a.csv", "{}", &["--format", "jsonl"], Some("application/x-ndjson")),
        ("a.xlsx", "PK", &[], None),
    ] {
        let (_folder, path) = file(name, content);
        let output = excite(&server, &[&["submit", path.to_str().unwrap()], args].concat());
        let Some(want) = want else {
            assert!(ended(&output, 2).1.contains("--format"));
            continue;
        };
        ended(&output, 0);
        let requests = server.requests("POST", "/v1/batches");
        assert_eq!(requests.last().unwrap().header("content-type"), Some(want), "{name}");
    }
}

#[test]
fn the_papers_prompts_need_no_file() {
    let server = Server::new(|_, _| accepted());
    ended(&excite(&server, &["submit", "--set", "paper", "--seeds", "0..4"]), 0);
    let requests = server.requests("POST", "/v1/batches");
    let [request] = &requests[..] else { panic!("one request") };
    assert_eq!(request.header("content-type"), Some("application/x-ndjson"));
    let lines = objects(std::str::from_utf8(&request.body).unwrap());
    assert_eq!(lines.len(), 276);
    let subjects = json!([{"word": "cat", "indices": [2]}, {"word": "backpack", "indices": [6]}]);
    let labels = json!({"set": "paper", "subset": "animals_objects"});
    let line =
        json!({"prompt": "a cat and a blue backpack", "subjects": subjects, "labels": labels});
    assert!(lines.contains(&line), "{:?}", lines[66]);
    for args in [&["submit"][..], &["submit", "--set", "paper", "prompts.txt"]] {
        ended(&excite(&server, args), 2);
    }
}

#[test]
fn refused_lines_are_listed_with_their_remedies() {
    let (_folder, path) = file("jobs.jsonl", "{}");
    let server = Server::new(|_, _| {
        let body = json!({
            "type": "about:blank", "title": "Unprocessable", "status": 422,
            "detail": "9 lines are refused, nothing was accepted", "code": "lines_refused",
            "remedy": "Mend the lines.", "refused": 9,
            "errors": [
                {"line": 917_334, "field": "steps", "code": "out_of_range",
                 "message": "`steps` is 0", "remedy": "Use 1 to 999."},
                {"line": 917_340, "field": "line", "code": "not_json",
                 "message": "not a JSON object", "remedy": "Write one object a line."},
            ],
        });
        Answer::json(422, &body)
    });
    let (stdout, stderr) =
        ended(&excite(&server, &["submit", path.to_str().unwrap(), "--json"]), 2);
    for want in [
        "line 917334, field steps: `steps` is 0; Use 1 to 999.\n",
        "line 917340: not a JSON object; Write one object a line.\n",
        "and 7 more refused lines\n",
        "error: 9 lines are refused, nothing was accepted\n help: Mend the lines.\n",
    ] {
        assert!(stderr.contains(want), "{want}\n{stderr}");
    }
    let error = &objects(&stdout)[0]["error"];
    assert_eq!((&error["code"], &error["refused"]), (&json!("lines_refused"), &json!(9)));
    assert_eq!(error["errors"][0]["line"], 917_334);
}

/// A busy server is asked again before the file is sent, a lost reply under the same key.
#[test]
fn what_was_not_answered_is_sent_again_under_the_same_key() {
    let (_folder, path) = file("prompts.txt", "a cat\n");
    let busy = || problem(503, "busy", "too many uploads", "Wait.").with("Retry-After", "0");
    let server = Server::with_early(
        move |_, before| (before == 0).then(busy),
        |_, before| if before == 1 { Answer::lost() } else { accepted() },
    );
    let (stdout, stderr) = ended(&excite(&server, &["submit", path.to_str().unwrap()]), 0);
    assert_eq!(stdout, format!("{BATCH}\n"));
    assert!(stderr.contains("too many uploads; trying again in 0 s"), "{stderr}");
    assert!(stderr.contains("cannot be reached") && stderr.contains("again in 2 s"), "{stderr}");
    let requests = server.requests("POST", "/v1/batches");
    let bodies: Vec<&[u8]> = requests.iter().map(|r| &r.body[..]).collect();
    assert_eq!(bodies, [&b""[..], b"a cat\n", b"a cat\n"]);
    let key = requests[0].header("idempotency-key");
    assert!(key.is_some() && requests.iter().all(|r| r.header("idempotency-key") == key));
}

#[test]
fn a_server_that_stays_busy_is_given_up() {
    let (_folder, path) = file("prompts.txt", "a cat\n");
    let server = Server::new(|_, _| problem(503, "busy", "no", "Wait.").with("Retry-After", "0"));
    let (_, stderr) = ended(&excite(&server, &["submit", path.to_str().unwrap()]), 1);
    assert!(stderr.contains("error: no\n help: Wait."), "{stderr}");
    assert_eq!(server.requests("POST", "/").len(), 5);
}

#[test]
fn standard_input_is_sent_once_and_says_how_to_go_on() {
    let run = |server: &Server, input: &str| {
        let mut child =
            command(&server.address(), &["submit", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let server = Server::new(|_, _| accepted());
    ended(&run(&server, "\n {\"prompt\": \"a cat\"}\n"), 0);
    let [request] = &server.requests("POST", "/v1/batches")[..] else { panic!("one request") };
    assert_eq!(request.body, b"\n {\"prompt\": \"a cat\"}\n");
    assert_eq!(request.header("content-type"), Some("application/x-ndjson"));

    let server = Server::new(|_, _| Answer::lost());
    let (_, stderr) = ended(&run(&server, "a cat\n"), 1);
    let [request] = &server.requests("POST", "/v1/batches")[..] else { panic!("one request") };
    assert!(request.header("content-type").unwrap().starts_with("text/plain"));
    assert!(stderr.contains("standard input cannot be read again"), "{stderr}");
    assert!(!stderr.contains("trying again"), "{stderr}");
    let key = request.header("idempotency-key").unwrap();
    assert!(stderr.contains(&format!("--idempotency-key {key}")), "{stderr}");
}

#[test]
fn a_dry_run_estimates_and_submits_nothing() {
    let (_folder, path) = file("prompts.txt", "a cat\n");
    let server = Server::new(|_, _| {
        let body = json!({
            "lines": 1000, "jobs": 64_000, "model": "emoji@0123456789abcdef",
            "gpu_seconds": 40_000.0, "drain_seconds": null, "warnings": {"no_subjects": 1},
            "examples": [{"line": 3, "code": "no_subjects", "message": "no subject was found"}],
        });
        Answer::json(200, &body)
    });
    let (stdout, stderr) =
        ended(&excite(&server, &["submit", path.to_str().unwrap(), "--dry-run"]), 0);
    assert!(
        stdout.contains("64000 images of 1000 lines with model emoji@0123456789\n"),
        "{stdout}"
    );
    assert!(stdout.contains("compute time: 11 h 7 min\n"), "{stdout}");
    assert!(stdout.contains("no worker is ready"), "{stdout}");
    assert!(stderr.contains("line 3: no subject was found"), "{stderr}");
    assert!(stderr.contains("nothing was submitted"), "{stderr}");
    let [request] = &server.requests("POST", "/v1/batches?dry_run=true")[..] else { panic!() };
    assert_eq!(request.header("idempotency-key"), None);
}

#[test]
fn a_watched_batch_ends_with_its_own_status() {
    let (_folder, path) = file("prompts.txt", "a cat\n");
    for (last, code) in [
        (batch("finished", json!({"succeeded": 10})), 0),
        (batch("finished", json!({"succeeded": 9, "dead": 1})), 3),
        (batch("cancelled", json!({"succeeded": 4, "cancelled": 6})), 3),
        (batch("finished", json!({"dead": 10})), 1),
    ] {
        let server = Server::new(move |request, before| match (request.method.as_str(), before) {
            ("POST", _) => accepted(),
            (_, 0) => Answer::json(200, &batch("active", json!({"succeeded": 4, "running": 6}))),
            _ => Answer::json(200, &last),
        });
        let output = excite(&server, &["submit", path.to_str().unwrap(), "--watch"]);
        let (stdout, stderr) = ended(&output, code);
        assert!(stderr.contains("40 % of 10 jobs; 4 succeeded, 6 running"), "{stderr}");
        assert!(stderr.contains("failures: 3 out_of_memory"), "{stderr}");
        assert!(stdout.lines().count() == 2 && stdout.starts_with(BATCH), "{stdout}");
    }
}
