//! Who may: tokens by header and by cookie, and what a page from elsewhere may not.

use excite_dispatcher::config::Dispatcher;
use excite_dispatcher::tokens::{self, Scope};
use reqwest::header::{AUTHORIZATION, COOKIE, HOST, SET_COOKIE};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::server::{Server, document, problem};

fn with(request: RequestBuilder, token: &str) -> RequestBuilder {
    request.header(AUTHORIZATION, format!("Bearer {token}"))
}

#[tokio::test]
async fn a_token_may_what_its_scope_says() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    let [read, submit, admin] = Scope::ALL.map(|s| tokens::add(&file, &s.to_string(), s).unwrap());
    let config = Dispatcher { tokens_file: Some(file.clone()), ..Dispatcher::default() };
    let server = Server::of(config).await;
    let missing = uuid::Uuid::now_v7();
    let batch = format!("/v1/batches/{missing}");
    // Whoever may comes as far as the missing batch, or further.
    #[rustfmt::skip]
    let table = [
        // request                                                who may
        (Method::GET,    "/v1/batches",                            [true, true, true]),
        (Method::PATCH,  batch.as_str(),                           [false, true, true]),
        (Method::DELETE, batch.as_str(),                           [false, false, true]),
        (Method::POST,   "/v1/workers/w/drain",                    [false, false, true]),
        (Method::POST,   "/v1/dead/replay",                        [false, true, true]),
    ];
    for (method, path, may) in table {
        let request = || server.client.request(method.clone(), format!("{}{path}", server.url));
        assert_eq!(problem(request().send().await.unwrap()).await.code, "unauthorized", "{path}");
        let unknown = with(request(), "excite_00").send().await.unwrap();
        assert_eq!(unknown.status(), 401, "{path}");
        for (token, may) in [&read, &submit, &admin].into_iter().zip(may) {
            let answer = with(request(), token).send().await.unwrap();
            assert_eq!(answer.status() != 403, may, "{method} {path}: {answer:?}");
        }
    }
    // Probes and the page itself need none.
    for path in ["/healthz", "/metrics", "/", "/assets/style.css"] {
        assert_eq!(server.get(path).send().await.unwrap().status(), 200, "{path}");
    }
}

#[tokio::test]
async fn a_person_signs_in_with_a_cookie_that_no_script_reads() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    let token = tokens::add(&file, "ann", Scope::Submit).unwrap();
    let config = Dispatcher { tokens_file: Some(file.clone()), ..Dispatcher::default() };
    let server = Server::of(config).await;
    let session = server.get("/v1/session").send().await.unwrap();
    assert_eq!(problem(session).await.code, "unauthorized");
    let wrong = server.post("/v1/session").json(&json!({"token": "x"})).send().await.unwrap();
    assert_eq!(wrong.status(), 401);
    let signed = server.post("/v1/session").json(&json!({"token": token})).send().await.unwrap();
    let cookie = signed.headers()[SET_COOKIE].to_str().unwrap().to_owned();
    for part in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let session = server.get("/v1/session").header(COOKIE, &cookie).send().await.unwrap();
    let session: Value = document(session, 200).await;
    assert_eq!(session["name"], "ann");
    assert_eq!(session["scopes"], json!(["read", "submit"]));
    let listed = server.get("/v1/batches").header(COOKIE, &cookie).send().await.unwrap();
    assert_eq!(listed.status(), 200);
    let gone = server.client.delete(format!("{}/v1/session", server.url)).send().await.unwrap();
    assert_eq!(gone.status(), 204);
    assert!(gone.headers()[SET_COOKIE].to_str().unwrap().contains("Max-Age=0"));
}

#[tokio::test]
async fn a_stream_ends_when_its_token_is_taken_away() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    let token = tokens::add(&file, "screen", Scope::Read).unwrap();
    let config = Dispatcher { tokens_file: Some(file.clone()), ..Dispatcher::default() };
    let server = Server::of(config).await;
    let mut stream = with(server.get("/v1/events"), &token).send().await.unwrap();
    assert!(stream.chunk().await.unwrap().is_some(), "it says something at once");
    std::fs::write(&file, "").unwrap();
    let until_the_end = async { while stream.chunk().await.unwrap().is_some() {} };
    tokio::time::timeout(crate::server::SOON, until_the_end).await.unwrap();
}

#[tokio::test]
async fn without_tokens_only_pages_of_this_machine_are_answered() {
    let server = Server::start().await;
    let session: Value = document(server.get("/v1/session").send().await.unwrap(), 200).await;
    assert_eq!((&session["tokens"], &session["name"]), (&json!(false), &Value::Null));
    let named = server.get("/v1/batches").header(HOST, "evil.example").send().await.unwrap();
    assert_eq!(problem(named).await.code, "foreign_host");
    for (site, status) in [("cross-site", 403), ("same-site", 403), ("same-origin", 202)] {
        let post = server.submit("", "text/plain", "a cat").header("sec-fetch-site", site);
        assert_eq!(post.send().await.unwrap().status(), status, "{site}");
    }
}
