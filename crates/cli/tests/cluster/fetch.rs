//! `excite batch fetch`.

use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::server::{Answer, Request, Server};
use super::{BATCH, batch, ended, excite, not_found, objects};

fn image(index: u32) -> Vec<u8> {
    format!("image {index} ").repeat(1000).into_bytes()
}

fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

fn job(index: u32, method: &str) -> Value {
    let (bytes, sha256) = (image(index).len(), sha256(&image(index)));
    json!({
        "id": format!("{BATCH}-{index:08}"), "index": index, "line": 1, "custom_id": null,
        "labels": {}, "prompt": "a cat and a frog", "seed": index, "method": method,
        "state": "succeeded", "attempt": 1, "worker": "w", "at": "2026-01-02T03:04:05Z",
        "success": {"key": "k", "sha256": sha256, "bytes": bytes, "seconds": 1.0, "steps": 50,
                    "loss": 0.1, "scores": [0.9]},
        "failure": null, "dead": null,
    })
}

/// Nine of ten jobs succeeded; they come in three pages, not in their order.
fn dispatcher(request: &Request) -> Answer {
    let target = request.target.as_str();
    let Some(rest) = target.strip_prefix(&format!("/v1/batches/{BATCH}")) else {
        return not_found();
    };
    if rest.is_empty() {
        return Answer::json(200, &batch("finished", json!({"succeeded": 9, "dead": 1})));
    }
    if let Some(query) = rest.strip_prefix("/jobs?state=succeeded") {
        let page = if query.contains("after=2") {
            json!({"jobs": [job(0, "none"), job(8, "attend_and_excite")], "next": null})
        } else if query.contains("after=1") {
            let jobs: Vec<Value> = (1..4).map(|index| job(index, "attend_and_excite")).collect();
            json!({"jobs": jobs, "next": "2"})
        } else {
            let jobs: Vec<Value> = (4..8).map(|index| job(index, "attend_and_excite")).collect();
            json!({"jobs": jobs, "next": "1"})
        };
        return Answer::json(200, &page);
    }
    let mut parts = rest.trim_start_matches("/jobs/").split('/');
    let index: u32 = parts.next().unwrap().parse().unwrap();
    match parts.next() {
        Some("image") => Answer::new(200, image(index)),
        Some("sidecar") => Answer::json(200, &json!({"v": 1, "sha256": sha256(&image(index))})),
        _ => not_found(),
    }
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn fetch(server: &Server, out: &Path, args: &[&str]) -> std::process::Output {
    let all = ["batch", "fetch", BATCH, "--out", out.to_str().unwrap()];
    excite(server, &[&all, args].concat())
}

fn images_asked(server: &Server) -> usize {
    let requests = server.requests("GET", &format!("/v1/batches/{BATCH}/jobs/"));
    requests.iter().filter(|request| request.target.ends_with("/image")).count()
}

#[test]
fn images_are_fetched_once_and_checked() {
    let server = Server::new(|request, _| dispatcher(request));
    let out = TempDir::new().unwrap();
    let (stdout, stderr) = ended(&fetch(&server, out.path(), &[]), 3);
    assert!(stdout.starts_with("9 images in "), "{stdout}");
    assert!(stderr.contains("1 jobs of 10 have no image: 9 succeeded, 1 dead"), "{stderr}");
    let mut want = vec!["a-cat-and-a-frog-0-none.png".to_owned()];
    want.extend((1..9).map(|seed| format!("a-cat-and-a-frog-{seed}.png")));
    assert_eq!(files(out.path()), want);
    for (index, name) in want.iter().enumerate() {
        assert!(std::fs::read(out.path().join(name)).unwrap() == image(index as u32), "{name}");
    }
    assert_eq!(images_asked(&server), 9);

    // One is lost and one is damaged: these two are fetched.
    std::fs::remove_file(out.path().join(&want[2])).unwrap();
    std::fs::write(out.path().join(&want[3]), "half").unwrap();
    let (stdout, _) = ended(&fetch(&server, out.path(), &["--json"]), 3);
    let objects = objects(&stdout);
    let summary = &objects.last().unwrap()["summary"];
    assert_eq!((&summary["fetched"], &summary["skipped"]), (&json!(2), &json!(7)), "{summary}");
    assert_eq!((&summary["replaced"], objects.len()), (&json!(1), 10));
    assert_eq!(images_asked(&server), 11);
    assert_eq!(files(out.path()), want);
}

#[test]
fn a_damaged_download_is_tried_again_and_never_kept() {
    let server = Server::new(|request, before| {
        let damaged = |index: u32| Answer::new(200, &image(index)[1..]);
        match request.target.rsplit_once("/jobs/").map(|(_, rest)| rest) {
            // Of one the first download is damaged, of another all are.
            Some("3/image") if before == 0 => damaged(3),
            Some("5/image") => damaged(5),
            _ => dispatcher(request),
        }
    });
    let out = TempDir::new().unwrap();
    let (_, stderr) = ended(&fetch(&server, out.path(), &["--jobs", "2"]), 3);
    assert!(
        stderr.contains(&format!("the image of job {BATCH}-00000005 came damaged")),
        "{stderr}"
    );
    assert!(stderr.contains("1 could not be fetched"), "{stderr}");
    let names = files(out.path());
    assert_eq!(names.len(), 8, "{names:?}");
    let third = std::fs::read(out.path().join("a-cat-and-a-frog-3.png")).unwrap();
    assert!(third == image(3) && !names.contains(&"a-cat-and-a-frog-5.png".to_owned()));
}

#[test]
fn the_papers_layout_has_a_folder_a_prompt() {
    let server = Server::new(|request, _| dispatcher(request));
    let out = TempDir::new().unwrap();
    let args = ["--layout", "paper", "--sidecars"];
    ended(&fetch(&server, out.path(), &args), 3);
    assert_eq!(files(out.path()), ["a cat and a frog"]);
    let folder = out.path().join("a cat and a frog");
    let names = files(&folder);
    assert_eq!(names.len(), 18, "{names:?}");
    assert_eq!(names[..4], ["0-none.json", "0-none.png", "1.json", "1.png"]);
    // A lost sidecar is fetched without its image.
    std::fs::remove_file(folder.join("4.json")).unwrap();
    ended(&fetch(&server, out.path(), &args), 3);
    assert_eq!((files(&folder).len(), images_asked(&server)), (18, 9));
}

/// The batch is followed: what is finished later is fetched later, from where the list went on.
#[test]
fn fetching_goes_on_until_the_batch_is_finished() {
    let server = Server::new(|request, before| {
        let list = format!("/v1/batches/{BATCH}/jobs?state=succeeded&limit=1000");
        match request.target.as_str() {
            target if target == format!("/v1/batches/{BATCH}") && before == 0 => {
                Answer::json(200, &batch("active", json!({"succeeded": 1, "running": 9})))
            }
            target if target == format!("/v1/batches/{BATCH}") => {
                Answer::json(200, &batch("finished", json!({"succeeded": 10})))
            }
            target if target == list && before == 0 => {
                Answer::json(200, &json!({"jobs": [job(1, "none")], "next": null}))
            }
            target if target == list => {
                let all: Vec<Value> = (0..10).map(|index| job(index, "none")).collect();
                Answer::json(200, &json!({"jobs": all, "next": null}))
            }
            _ => dispatcher(request),
        }
    });
    let out = TempDir::new().unwrap();
    let (stdout, _) = ended(&fetch(&server, out.path(), &["--watch"]), 0);
    assert!(stdout.starts_with("10 images in "), "{stdout}");
    assert_eq!((files(out.path()).len(), images_asked(&server)), (10, 10));
}
