//! A fetch that goes well, and what it leaves alone.

use std::cell::RefCell;

use excite_hub::{Error, Precision, Progress, Source, SourceFile};
use serde_json::json;

use crate::server::{Answer, COMMIT, Repository, Server, ranged};
use crate::{code, fetch, hub, names, never, snapshot};

const INDEX: &[u8] = br#"{"_class_name":"P","scheduler":["d","S"],"text_encoder":["t","C"],
"tokenizer":["t","T"],"unet":["d","U"],"vae":["d","V"],"safety_checker":["s","C"]}"#;

fn pipeline() -> Repository {
    let weights = [7; 3000];
    Repository::of(&[
        ("README.md", b"hello"),
        ("model_index.json", INDEX),
        ("safety_checker/model.safetensors", &weights),
        ("scheduler/scheduler_config.json", b"{}"),
        ("text_encoder/config.json", b"{}"),
        ("text_encoder/model.safetensors", &weights),
        ("tokenizer/merges.txt", b""),
        ("tokenizer/vocab.json", b"{}"),
        ("unet/config.json", b"{}"),
        ("unet/diffusion_pytorch_model-00001-of-00002.fp16.safetensors", &[1; 200]),
        ("unet/diffusion_pytorch_model-00002-of-00002.fp16.safetensors", &[2; 300]),
        ("unet/diffusion_pytorch_model.safetensors.index.fp16.json", b"{\"weight_map\":{}}"),
        ("vae/config.json", b"{}"),
        ("vae/diffusion_pytorch_model.safetensors", &weights),
    ])
}

#[test]
fn a_pipeline_is_listed_selected_and_fetched() {
    let server = Server::new(pipeline());
    let folder = tempfile::tempdir().unwrap();
    let hub = hub(&server);
    let snapshot = hub.snapshot("owner/name", "refs/pr/1", &never).unwrap();
    assert_eq!((snapshot.commit.as_str(), snapshot.licence.as_deref()), (COMMIT, Some("mit")));
    let listings = server.requests("/api/");
    assert_eq!(listings[0].target, "/api/models/owner/name/revision/refs%2Fpr%2F1?blobs=true");
    let files = hub.selection(&snapshot, Precision::F16, &never).unwrap();
    let target = folder.path().join("models/sd");
    let seen = RefCell::new(Vec::new());
    let mut progress = |at: Progress<'_>| seen.borrow_mut().push((at.index, at.bytes, at.done));
    let source = hub.fetch(&snapshot, &files, &target, &mut progress, &never).unwrap();

    assert_eq!(source, Source::read(&target).unwrap());
    assert_eq!(source.revision, "refs/pr/1");
    assert_eq!(source.files.len(), 12);
    assert_eq!(
        names(&target.join("unet")),
        [
            "config.json",
            "diffusion_pytorch_model-00001-of-00002.fp16.safetensors",
            "diffusion_pytorch_model-00002-of-00002.fp16.safetensors",
            "diffusion_pytorch_model.safetensors.index.fp16.json",
        ]
    );
    assert_eq!(
        std::fs::read(target.join("vae/diffusion_pytorch_model.safetensors")).unwrap(),
        [7; 3000]
    );
    assert_eq!(std::fs::read(target.join("tokenizer/merges.txt")).unwrap(), b"");
    assert!(!target.join("safety_checker").exists() && !target.join("README.md").exists());
    assert_eq!(source.verify(&target, &mut |_| (), &never).unwrap(), []);

    let total: u64 = files.iter().map(|file| file.bytes).sum();
    let seen = seen.borrow();
    assert!(seen.is_sorted(), "{seen:?}");
    assert_eq!(seen.last().unwrap().2, total);
}

#[test]
fn source_json_is_as_documented() {
    let server = Server::new(Repository::of(&[("a.txt", b"hello")]));
    let folder = tempfile::tempdir().unwrap();
    fetch(&server, folder.path()).unwrap();
    let json = std::fs::read(folder.path().join("source.json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let sha256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    assert_eq!(
        json,
        json!({"v": 1, "repository": "owner/name", "revision": "main", "commit": COMMIT,
               "licence": "mit", "files": [{"path": "a.txt", "bytes": 5, "sha256": sha256}]})
    );
}

#[test]
fn what_is_there_is_not_fetched_again_and_what_is_damaged_is() {
    let server = Server::new(Repository::of(&[("a", b"hello"), ("b", &[1; 500]), ("c", b"short")]));
    let folder = tempfile::tempdir().unwrap();
    fetch(&server, folder.path()).unwrap();
    fetch(&server, folder.path()).unwrap();
    assert_eq!(server.requests("/resolve/").len(), 3);

    std::fs::write(folder.path().join("a"), "hellO").unwrap();
    std::fs::write(folder.path().join("b"), [1; 499]).unwrap();
    fetch(&server, folder.path()).unwrap();
    let asked = server.requests("/resolve/").split_off(3);
    let asked: Vec<&str> =
        asked.iter().map(|request| &request.target[request.target.len() - 1..]).collect();
    assert_eq!(asked, ["a", "b"]);
    assert_eq!(std::fs::read(folder.path().join("a")).unwrap(), b"hello");
}

#[test]
fn files_of_the_same_commit_add_up_and_others_do_not() {
    let server = Server::new(Repository::of(&[("a", b"hello"), ("b", b"there")]));
    let folder = tempfile::tempdir().unwrap();
    let mut snapshot = snapshot(&server);
    let fetch = |snapshot: &excite_hub::Snapshot, path| {
        let files = snapshot.selection_of(&[path]).unwrap();
        let source = hub(&server).fetch(snapshot, &files, folder.path(), &mut |_| (), &never);
        let paths = source.unwrap().files.into_iter().map(|SourceFile { path, .. }| path);
        paths.collect::<Vec<_>>()
    };
    assert_eq!(fetch(&snapshot, "b"), ["b"]);
    assert_eq!(fetch(&snapshot, "a"), ["a", "b"]);
    // Already there, so that no address with this commit is asked.
    snapshot.commit = "f".repeat(40);
    assert_eq!(fetch(&snapshot, "a"), ["a"]);
}

#[test]
fn wrong_bytes_never_get_their_name() {
    for (path, right, wrong) in
        [("large", vec![1; 500], vec![2; 500]), ("small", b"hello".to_vec(), b"hellO".to_vec())]
    {
        let rule = move |request: &_, _| Some(ranged(&wrong, request));
        let server = Server::new(Repository::of(&[(path, &right)]).rule("/resolve/", rule));
        let folder = tempfile::tempdir().unwrap();
        let error = fetch(&server, folder.path()).unwrap_err();
        let Error::Digest { expected, found, .. } = &error else { panic!("{error:?}") };
        let message = error.to_string();
        assert!(message.contains(path) && message.contains(expected) && message.contains(found));
        assert_eq!(names(folder.path()), [".fetch.lock"], "{path}");
    }
}

#[test]
fn another_size_than_listed_is_refused_before_it_is_written() {
    let rule = |_: &_, _| Some(Answer::new(200, "<html>Please log in</html>"));
    let server = Server::new(Repository::of(&[("a", &[1; 500])]).rule("/resolve/", rule));
    let folder = tempfile::tempdir().unwrap();
    let error = fetch(&server, folder.path()).unwrap_err();
    assert!(matches!(error, Error::Size { expected: 500, found: 26, .. }), "{error:?}");
    assert_eq!(std::fs::read(folder.path().join("a.part")).unwrap(), b"");
}

#[test]
fn model_index_is_checked_before_it_is_believed() {
    let other =
        INDEX.iter().map(|byte| if *byte == b'P' { b'Q' } else { *byte }).collect::<Vec<_>>();
    let rule = move |_: &_, _| Some(Answer::new(200, other.clone()));
    let server = Server::new(pipeline().rule("/model_index.json", rule));
    let snapshot = snapshot(&server);
    assert_eq!(code(hub(&server).selection(&snapshot, Precision::F32, &never)), "digest_mismatch");
}

#[test]
fn two_fetches_into_a_folder_do_not_mix() {
    let server = Server::new(Repository::of(&[("a", &[1; 500])]));
    let folder = tempfile::tempdir().unwrap();
    let snapshot = snapshot(&server);
    let mut second = Vec::new();
    let mut progress = |_: Progress<'_>| second.push(code(fetch(&server, folder.path())));
    hub(&server).fetch(&snapshot, &snapshot.files, folder.path(), &mut progress, &never).unwrap();
    assert!(second.len() >= 2 && second.iter().all(|code| *code == "fetch_busy"), "{second:?}");
}
