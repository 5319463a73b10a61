//! `excite doctor` and `excite model push`.

use std::collections::BTreeSet;
use std::sync::Mutex;

use excite_jobs::ModelCard;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::server::{Answer, Server};
use super::{command, ended, excite, not_found, nowhere, objects, problem};

#[test]
fn a_doctor_says_what_to_do() {
    let server = Server::new(|_, _| {
        let checks = json!([
            {"name": "broker", "ok": true, "detail": "RabbitMQ 4", "remedy": null},
            {"name": "workers", "ok": false, "detail": "none is ready",
             "remedy": "Start an excite-worker."},
        ]);
        Answer::json(200, &json!({"ok": false, "checks": checks}))
    });
    let (stdout, _) = ended(&excite(&server, &["doctor", "--quick"]), 1);
    for want in [
        "this machine:\n  ok    device ",
        "bundled model  emoji: SD 1.x, 128 pixels",
        "ok    broker   RabbitMQ 4",
        "FAIL  workers  none is ready",
        "help: Start an excite-worker.",
    ] {
        assert!(stdout.contains(want), "{want}\n{stdout}");
    }
    let (stdout, _) = ended(&excite(&server, &["doctor", "--quick", "--json"]), 1);
    let object = &objects(&stdout)[0];
    assert_eq!((&object["ok"], &object["v"]), (&json!(false), &json!(1)));
    assert_eq!(object["server"]["checks"][1]["name"], "workers");
    let names = object["machine"].as_array().unwrap().iter().map(|check| &check["name"]);
    let names: Vec<&str> = names.map(|name| name.as_str().unwrap()).collect();
    let want = ["device", "instructions", "threads", "memory", "models folder", "bundled model"];
    assert_eq!(names, want);
    assert_eq!(object["chosen"]["batch_size"], json!(null), "it was not to be measured");
}

#[test]
fn a_doctor_says_what_was_chosen_and_why() {
    let server = Server::new(|_, _| Answer::json(200, &json!({"ok": true, "checks": []})));
    let mut doctor = command(&server.address(), &["doctor", "--json"]);
    let doctor = doctor.env("RAYON_NUM_THREADS", "1").env("EXCITE_INSTRUCTIONS", "plain");
    let (stdout, _) = ended(&doctor.output().unwrap(), 0);
    let chosen = &objects(&stdout)[0]["chosen"];
    assert_eq!(chosen["threads"], json!({"count": 1, "from": "variable"}));
    assert_eq!(chosen["instructions"], "plain");
    // On a machine that is too busy nothing is chosen, and the check says so.
    let said = objects(&stdout)[0]["machine"][3]["detail"].as_str().unwrap().to_owned();
    match chosen["batch_size"]["images"].as_u64() {
        Some(images) => assert!(said.starts_with(&format!("{images}: ")), "{said}"),
        None => assert!(said.starts_with("not measured within 5 s"), "{said}"),
    }
    let (stdout, _) = ended(&excite(&server, &["doctor", "--quick"]), 0);
    assert!(stdout.contains("threads") && !stdout.contains("batch size"), "{stdout}");
}

#[test]
fn a_doctor_of_a_well_machine_is_content() {
    let server = Server::new(|_, _| Answer::json(200, &json!({"ok": true, "checks": []})));
    ended(&excite(&server, &["doctor", "--quick"]), 0);
    // A server that was named has to be there.
    let (stdout, _) = ended(&command(&nowhere(), &["doctor", "--quick"]).output().unwrap(), 1);
    assert!(stdout.contains("FAIL  server  the server at "), "{stdout}");
}

#[test]
fn a_model_is_pushed_file_by_file_and_only_once() {
    let files: Mutex<BTreeSet<String>> = Mutex::default();
    let card: Mutex<Option<ModelCard>> = Mutex::default();
    let server = Server::new(move |request, _| {
        let target = request.target.as_str();
        let file = target.strip_prefix("/v1/models/tiny/files/");
        let mut files = files.lock().unwrap();
        match (request.method.as_str(), file) {
            ("GET", None) => {
                let models: Vec<ModelCard> = card.lock().unwrap().iter().cloned().collect();
                Answer::json(200, &json!({"models": models}))
            }
            ("HEAD", Some(sha256)) if files.contains(sha256) => Answer::new(200, ""),
            ("HEAD", Some(_)) => Answer::new(404, ""),
            ("PUT", Some(sha256)) => {
                if format!("{:x}", Sha256::digest(&request.body)) != sha256 {
                    return problem(422, "digest", "another file", "Send the right one.");
                }
                // The second file is refused once: the next push goes on with it.
                if files.len() == 1 && !files.contains("refused") {
                    files.insert("refused".into());
                    return problem(507, "full", "the store is full", "Make room.");
                }
                files.insert(sha256.to_owned());
                Answer::new(201, "")
            }
            ("PUT", None) if target == "/v1/models/tiny" => {
                *card.lock().unwrap() = Some(serde_json::from_slice(&request.body).unwrap());
                Answer::new(204, "")
            }
            _ => not_found(),
        }
    });
    let push = ["model", "push", "emoji", "--name", "tiny", "--class", "cpu", "--json"];
    let (_, stderr) = ended(&excite(&server, &push), 1);
    assert!(stderr.contains("the store is full"), "{stderr}");
    assert!(server.requests("PUT", "/v1/models/tiny").iter().all(|r| r.target.contains("files")));

    let (stdout, _) = ended(&excite(&server, &push), 0);
    let pushed = &objects(&stdout)[0];
    assert_eq!((&pushed["already"], &pushed["files"]), (&json!(false), &json!(11)), "{pushed}");
    assert!(pushed["present_bytes"].as_u64().unwrap() > 0, "the first file was there already");
    let puts = server.requests("PUT", "/v1/models/tiny");
    assert_eq!(puts.len(), 2 + 10 + 1, "two of the first try, the other files, the card");
    let card: ModelCard = serde_json::from_slice(&puts.last().unwrap().body).unwrap();
    assert_eq!((card.name.as_str(), card.class.as_str()), ("tiny", "cpu"));
    assert_eq!(card.digest, ModelCard::digest_of(&card.files));
    assert_eq!(card.facts.name, card.full_name());
    assert!(card.files.keys().all(|path| ModelCard::is_path(path)), "{card:?}");

    let (stdout, _) = ended(&excite(&server, &push[..7]), 0);
    assert!(stdout.starts_with("tiny@") && stdout.contains(" is there already"), "{stdout}");
    assert_eq!(server.requests("PUT", "/v1/models/tiny").len(), puts.len());
}

#[test]
fn what_cannot_be_pushed_is_said_before_anything_is_sent() {
    let server = Server::new(|_, _| not_found());
    let (_, stderr) = ended(&excite(&server, &["model", "push", "nowhere"]), 1);
    assert!(stderr.contains("there is no model `nowhere`"), "{stderr}");
    let (_, stderr) = ended(&excite(&server, &["model", "push", "emoji", "--name", "a/b"]), 2);
    assert!(stderr.contains("`a/b` cannot be the name of a model"), "{stderr}");
    assert!(server.requests("PUT", "/").is_empty());
}
