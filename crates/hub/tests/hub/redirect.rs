//! Redirects, and who sees the token.

use excite_hub::Error;

use crate::server::{Answer, Repository, Request, Server, ranged};
use crate::{code, fetch, hub, never};

const TOKEN: &str = "Bearer hf_secret";

/// A content server for one file.
fn content_server() -> Server {
    Server::new(Repository::of(&[]).rule("/cdn/", |request, _| Some(ranged(&[1; 500], request))))
}

/// A hub whose file lies elsewhere.
fn hub_to(location: String, status: u16) -> Server {
    let rule = move |_: &Request, _| Some(Answer::redirect(status, &location));
    Server::new(Repository::of(&[("a", &[1; 500])]).rule("/resolve/", rule))
}

#[test]
fn the_token_goes_to_the_endpoint_and_to_no_other_host_or_port() {
    for host in ["127.0.0.1", "localhost"] {
        for status in [301, 302, 303, 307, 308] {
            let content = content_server();
            let location = format!("http://{host}:{}/cdn/a?signature=1", content.port());
            let server = hub_to(location, status);
            let folder = tempfile::tempdir().unwrap();
            fetch(&server, folder.path()).unwrap();
            for request in server.requests("") {
                assert_eq!(request.header("authorization"), Some(TOKEN), "{request:?}");
            }
            let [request] = &content.requests("")[..] else { panic!("{status}") };
            assert_eq!(request.target, "/cdn/a?signature=1");
            assert_eq!(request.header("authorization"), None, "{host} {status}");
            assert!(!format!("{request:?}").contains("hf_secret"), "{request:?}");
        }
    }
}

#[test]
fn the_token_goes_along_within_the_endpoint() {
    let rule = |request: &Request, _| Some(ranged(&[1; 500], request));
    let redirect = |_: &Request, _| Some(Answer::redirect(307, "/api/resolve-cache/a"));
    let repository = Repository::of(&[("a", &[1; 500])]);
    let server = Server::new(repository.rule("/resolve/", redirect).rule("/resolve-cache/", rule));
    let folder = tempfile::tempdir().unwrap();
    fetch(&server, folder.path()).unwrap();
    let moved = server.requests("/resolve-cache/");
    assert_eq!(moved[0].header("authorization"), Some(TOKEN));
}

#[test]
fn a_renamed_repository_is_found() {
    let redirect = |_: &Request, _| {
        Some(Answer::redirect(307, "/api/models/owner/name/revision/main?blobs=true"))
    };
    let server = Server::new(Repository::of(&[("a", b"x")]).rule("/api/models/old/", redirect));
    let snapshot = hub(&server).snapshot("old/name", "main", &never).unwrap();
    assert_eq!(snapshot.files.len(), 1);
}

#[test]
fn a_range_is_asked_of_the_host_that_has_the_bytes() {
    let content = content_server();
    let server = hub_to(format!("http://localhost:{}/cdn/a", content.port()), 302);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.part"), [1; 200]).unwrap();
    fetch(&server, folder.path()).unwrap();
    assert_eq!(content.requests("")[0].from(), Some(200));
}

#[test]
fn an_address_that_ran_out_is_renewed() {
    let rule = |request: &Request, before| {
        Some(if before == 0 { Answer::new(403, "") } else { ranged(&[1; 500], request) })
    };
    let content = Server::new(Repository::of(&[]).rule("/cdn/", rule));
    let server = hub_to(format!("http://localhost:{}/cdn/a", content.port()), 302);
    let folder = tempfile::tempdir().unwrap();
    fetch(&server, folder.path()).unwrap();
    assert_eq!((server.requests("/resolve/").len(), content.requests("").len()), (2, 2));
}

#[test]
fn redirects_end() {
    let folder = tempfile::tempdir().unwrap();
    let round = hub_to("a".into(), 302);
    assert_eq!(code(fetch(&round, folder.path())), "hub_redirect");
    assert!(round.requests("/resolve/").len() <= 10);

    for location in ["file:///etc/passwd", "", "http://", "gopher://a/b"] {
        let server = hub_to(location.into(), 302);
        let error = fetch(&server, folder.path()).unwrap_err();
        assert!(matches!(error, Error::Redirect { .. }), "{location}: {error:?}");
    }
}
