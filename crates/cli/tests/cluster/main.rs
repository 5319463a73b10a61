//! The commands that talk to a cluster, as a user runs them, against a server that plays scripted
//! answers. Not here: real servers and workers.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod batches;
mod dead;
mod fetch;
mod machine;
mod server;
mod submit;
mod uploads;

use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use server::{Answer, Server};

const BATCH: &str = "0193a1b2-7c3d-7e4f-8a5b-6c7d8e9f0a1b";

fn command(server: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_excite"));
    command.args(args).env("EXCITE_SERVER", server).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn excite(server: &Server, args: &[&str]) -> Output {
    command(&server.address(), args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// stdout and stderr of a command that must end with an exit code.
#[track_caller]
fn ended(output: &Output, code: i32) -> (String, String) {
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{stdout}\n{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    (stdout, stderr)
}

fn objects(stdout: &str) -> Vec<Value> {
    stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A batch of ten jobs.
fn batch(state: &str, states: Value) -> Value {
    json!({
        "id": BATCH, "name": "animals", "state": state, "created_at": "2026-01-02T03:04:05Z",
        "finished_at": null, "lines": 5, "jobs": 10, "model": "emoji@0123456789abcdef",
        "class": "default", "lane": "express", "weight": 1, "warnings": {"no_subjects": 2},
        "tally": {
            "states": states, "failures": {"out_of_memory": 3}, "dead": {"capacity": 1},
            "seconds": 125.0, "bytes": 2_000_000, "retries": 2, "preemptions": 0,
        },
        "gpu_seconds_left": 60.0,
    })
}

/// An error of a dispatcher.
fn problem(status: u16, code: &str, detail: &str, remedy: &str) -> Answer {
    let body = json!({
        "type": "about:blank", "title": "Status", "status": status, "detail": detail,
        "code": code, "remedy": remedy,
    });
    Answer::json(status, &body).with("Content-Type", "application/problem+json")
}

fn not_found() -> Answer {
    problem(404, "not_found", "there is no such thing", "Look at the list.")
}

/// Ctrl-C for a command that runs.
#[cfg(unix)]
fn interrupt(child: &std::process::Child) {
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
}

#[test]
fn every_command_has_help_with_an_example() {
    let commands: [&[&str]; 16] = [
        &["submit"],
        &["batch", "list"],
        &["batch", "show"],
        &["batch", "watch"],
        &["batch", "pause"],
        &["batch", "resume"],
        &["batch", "cancel"],
        &["batch", "weight"],
        &["batch", "fetch"],
        &["batch", "delete"],
        &["dead", "list"],
        &["dead", "show"],
        &["dead", "replay"],
        &["doctor"],
        &["model", "push"],
        &["model", "pull"],
    ];
    for args in commands {
        let output = command("", &[args, &["--help"]].concat()).output().unwrap();
        let (stdout, _) = ended(&output, 0);
        let example = format!("excite {}", args.join(" "));
        let last = args[args.len() - 1];
        // `show`, `watch`, `pause`, `resume` and `cancel` share theirs.
        let shared = matches!(last, "resume" | "cancel") && stdout.contains("excite batch pause");
        assert!(stdout.contains("Examples:") && (shared || stdout.contains(&example)), "{stdout}");
        assert!(stdout.contains("--json"), "{stdout}");
    }
}

/// The address of a port that nobody listens on.
fn nowhere() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[test]
fn a_server_that_is_not_there_is_named_at_once() {
    let address = nowhere();
    let output = command(&address, &["batch", "list", "--json"]).output().unwrap();
    let (stdout, stderr) = ended(&output, 1);
    let want = format!("the server at {address} cannot be reached: nobody listens there");
    assert!(stderr.contains(&want), "{stderr}");
    assert!(stderr.contains("help: ") && stderr.contains("EXCITE_SERVER"), "{stderr}");
    assert!(!stderr.contains("trying again"), "{stderr}");
    assert_eq!(objects(&stdout)[0]["error"]["code"], "server_unreachable");

    // The option goes before the environment.
    let other = nowhere();
    let output = command(&address, &["batch", "list", "--server", &other]).output().unwrap();
    assert!(ended(&output, 1).1.contains(&other));
    for bad in ["ftp://a", "excite:8080", "http://user:secret@host"] {
        let (_, stderr) = ended(&command(bad, &["batch", "list"]).output().unwrap(), 2);
        assert!(stderr.contains("http://host:port") && !stderr.contains("secret"), "{stderr}");
    }
}
