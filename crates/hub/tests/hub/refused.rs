//! What the hub refuses, what we refuse of it, and what the error then says.

use std::io::{Read, Write};
use std::net::TcpListener;

use excite_hub::{Error, Hub, RemoteFile, Waits, limits};
use serde_json::json;

use crate::server::{Answer, Repository, Server};
use crate::{code, fetch, hub, names, never, snapshot};

/// Code and text of the failure to list a repository.
fn listing(status: u16, error_code: &'static str) -> (&'static str, String) {
    let rule = move |_: &_, _| {
        let answer = Answer::new(status, "{}").with("X-Error-Message", "because so");
        Some(answer.with("X-Error-Code", error_code))
    };
    let server = Server::new(Repository::of(&[]).rule("/api/", rule));
    let error = hub(&server).snapshot("owner/name", "main", &never).unwrap_err();
    assert_eq!(server.requests("").len(), 1, "{status} is asked once only");
    let (code, remedy) = error.advice();
    (code, format!("{error}. {remedy}"))
}

#[test]
fn a_refusal_says_what_to_do() {
    for (status, error_code, code, words) in [
        (401, "GatedRepo", "model_gated", "/owner/name"),
        (403, "GatedRepo", "model_gated", "HF_TOKEN"),
        (401, "", "hub_denied", "because so"),
        (403, "", "hub_denied", "HF_TOKEN"),
        (401, "RepoNotFound", "hub_not_found", "`owner/name`"),
        (404, "RepoNotFound", "hub_not_found", "HF_TOKEN"),
        (404, "RevisionNotFound", "hub_not_found", "revision `main`"),
        (404, "", "hub_not_found", "spelling"),
        (400, "", "hub_status", "because so"),
        (418, "", "hub_status", "418"),
    ] {
        let (found, text) = listing(status, error_code);
        assert_eq!(found, code, "{status} {error_code}");
        assert!(text.contains(words), "{status} {error_code}: {text}");
    }
}

#[test]
fn the_files_of_a_gated_model_name_the_page_of_its_licence() {
    let rule = |_: &_, _| Some(Answer::new(403, ""));
    let mut repository = Repository::of(&[("a", b"x")]).rule("/resolve/", rule);
    repository.listing.insert("gated", json!("auto"));
    let server = Server::new(repository);
    let folder = tempfile::tempdir().unwrap();
    let error = fetch(&server, folder.path()).unwrap_err();
    assert!(matches!(error, Error::Gated { .. }), "{error:?}");
    assert!(error.advice().1.contains(&format!("{}/owner/name", server.address())));
}

#[test]
fn a_file_that_is_gone_is_named() {
    let rule = |_: &_, _| Some(Answer::new(404, "").with("X-Error-Code", "EntryNotFound"));
    let server = Server::new(Repository::of(&[("a", b"x")]).rule("/resolve/", rule));
    let folder = tempfile::tempdir().unwrap();
    let error = fetch(&server, folder.path()).unwrap_err();
    assert!(error.to_string().contains("`a` of `owner/name`"), "{error}");
}

#[test]
fn an_endpoint_that_does_not_answer_is_named() {
    // Bound and dropped, so that no one listens there.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let waits = Waits { attempts: 2, backoff: std::time::Duration::ZERO, ..Waits::default() };
    let hub = Hub::new(&format!("http://127.0.0.1:{port}"), None).unwrap().with_waits(waits);
    let error = hub.snapshot("owner/name", "main", &never).unwrap_err();
    assert!(matches!(error, Error::Connect { attempts: 2, .. }), "{error:?}");
    assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");
    assert!(error.advice().1.contains("HF_ENDPOINT"));
}

#[test]
fn a_server_without_tls_is_not_taken_for_a_broken_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let plain = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut hello = [0; 5];
        stream.read_exact(&mut hello).unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        // Closing with bytes unread would take the answer back.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let hub = Hub::new(&format!("https://127.0.0.1:{port}"), None).unwrap();
    assert_eq!(code(hub.snapshot("owner/name", "main", &never)), "hub_tls");
    plain.join().unwrap();
}

#[test]
fn a_listing_that_is_none_is_refused() {
    for body in ["<html>", "{}", "[]", r#"{"sha":"../../x","siblings":[]}"#] {
        let rule = move |_: &_, _| Some(Answer::new(200, body));
        let server = Server::new(Repository::of(&[]).rule("/api/", rule));
        assert_eq!(code(hub(&server).snapshot("owner/name", "main", &never)), "hub_listing");
    }
}

#[test]
fn a_listing_without_end_is_refused() {
    let rule = |_: &_, _| Some(Answer::new(200, vec![b' '; limits::JSON_BYTES_MAX as usize + 1]));
    let server = Server::new(Repository::of(&[]).rule("/api/", rule));
    assert_eq!(code(hub(&server).snapshot("owner/name", "main", &never)), "hub_too_much");

    let mut repository = Repository::of(&[]);
    let sibling = |i: usize| json!({"rfilename": format!("{i}"), "size": 1});
    let siblings: Vec<_> = (0..=limits::FILES_MAX).map(sibling).collect();
    repository.listing.insert("siblings", json!(siblings));
    let server = Server::new(repository);
    assert_eq!(code(hub(&server).snapshot("owner/name", "main", &never)), "hub_too_much");
}

#[test]
fn a_path_that_leaves_the_folder_is_refused_in_a_listing() {
    for path in ["../outside", "/tmp/outside", "a/../../outside", "a\\..\\outside", "a\0b"] {
        let server = Server::new(Repository::of(&[(path, b"x")]));
        let error = hub(&server).snapshot("owner/name", "main", &never).unwrap_err();
        assert_eq!(error.advice().0, "unsafe_path", "{path:?}: {error:?}");
    }
}

#[test]
fn a_path_that_leaves_the_folder_is_refused_in_a_fetch() {
    let server = Server::new(Repository::of(&[("a", b"x")]));
    let snapshot = snapshot(&server);
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("model");
    let right = &snapshot.files[0];
    for path in ["../outside", "/outside", "source.json", ".fetch.lock", "a.part"] {
        let files = [right.clone(), RemoteFile { path: path.into(), ..right.clone() }];
        let refused = hub(&server).fetch(&snapshot, &files, &folder, &mut |_| (), &never);
        assert_eq!(code(refused), "unsafe_path", "{path}");
    }
    assert_eq!(names(outer.path()), Vec::<String>::new());
    assert_eq!(server.requests("/resolve/").len(), 0);
}

#[test]
fn more_than_any_model_has_is_refused_before_it_is_fetched() {
    let server = Server::new(Repository::of(&[("a", b"x")]));
    let snapshot = snapshot(&server);
    let folder = tempfile::tempdir().unwrap();
    for bytes in [limits::FETCH_BYTES_MAX, u64::MAX] {
        let file = RemoteFile { bytes, ..snapshot.files[0].clone() };
        let files = [file.clone(), file];
        let refused = hub(&server).fetch(&snapshot, &files, folder.path(), &mut |_| (), &never);
        assert_eq!(code(refused), "hub_too_much");
    }
    let unchecked = RemoteFile { blob: None, ..snapshot.files[0].clone() };
    let refused = hub(&server).fetch(&snapshot, &[unchecked], folder.path(), &mut |_| (), &never);
    assert_eq!(code(refused), "no_digest");
    assert_eq!(server.requests("/resolve/").len(), 0);
}
