//! `excite serve` for one test: started, killed and started again, and asked over its API for what
//! the test needs to be there.

use std::time::Duration;

use excite_tests::{Folder, Program, built, eventually};
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

/// Its first start puts the model into the store.
const START_LIMIT: Duration = Duration::from_secs(90);
/// No batch of these tests takes longer, not even on a busy machine.
const BATCH_LIMIT: Duration = Duration::from_secs(180);
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// A running `excite serve`.
pub(crate) struct Served {
    // Before the folder, for it must not write in it when that goes.
    program: Option<Program>,
    /// Where it is.
    pub(crate) url: String,
    /// Its data, and what the test writes.
    pub(crate) folder: Folder,
    /// For its API, where it asks for one.
    pub(crate) token: Option<String>,
    args: Vec<String>,
    client: reqwest::Client,
}

impl Served {
    /// Starts it on a free port.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts it on a free port, with further arguments.
    pub(crate) async fn start_with(args: &[&str]) -> Self {
        excite_tests::choose_cryptography();
        let folder = Folder::temporary("dashboard").unwrap();
        let client = reqwest::Client::builder().timeout(ANSWER_LIMIT).no_proxy().build().unwrap();
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        let mut served =
            Self { program: None, url: String::new(), folder, token: None, args, client };
        served.run("127.0.0.1:0").await;
        served
    }

    async fn run(&mut self, address: &str) {
        let data = self.folder.path().join("data");
        let mut args = vec!["serve".to_owned(), "--json".into(), "--listen".into(), address.into()];
        args.extend(["--data".into(), data.display().to_string()]);
        args.extend(self.args.iter().cloned());
        let none: [(&str, &str); 0] = [];
        let mut program = Program::start(built("excite").unwrap(), args, none).unwrap();
        let address = |line: &str| line.starts_with('{') && line.contains("\"url\"");
        let line = program.wait_for_line("its address", address, START_LIMIT).await.unwrap();
        let said: Value = serde_json::from_str(&line).unwrap();
        self.url = said["url"].as_str().unwrap().to_owned();
        self.program = Some(program);
    }

    /// The address of a page.
    pub(crate) fn page(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Kills it, as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.program = None;
    }

    /// Starts it again with the same data where it was.
    pub(crate) async fn start_again(&mut self) {
        let address = self.url.strip_prefix("http://").unwrap().to_owned();
        self.run(&address).await;
    }

    /// Submits lines as JSON, and gives the batch's id.
    pub(crate) async fn submit(&self, query: &str, lines: &str) -> String {
        let post = self.ask(Method::POST, &format!("/v1/batches?{query}"));
        let post = post.header("content-type", "application/x-ndjson").body(lines.to_owned());
        let batch = answer(post).await;
        batch["id"].as_str().unwrap().to_owned()
    }

    /// Changes a batch.
    pub(crate) async fn change(&self, id: &str, change: Value) {
        answer(self.ask(Method::PATCH, &format!("/v1/batches/{id}")).json(&change)).await;
    }

    /// What it answers to a question.
    pub(crate) async fn get(&self, path: &str) -> Value {
        answer(self.ask(Method::GET, path)).await
    }

    fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, self.page(path));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Waits until a batch is finished.
    pub(crate) async fn finish(&self, id: &str) {
        eventually(BATCH_LIMIT, "the end of the batch", async || {
            let batch = self.get(&format!("/v1/batches/{id}")).await;
            if batch["state"] == "finished" { Ok(()) } else { Err(batch.to_string()) }
        })
        .await
        .unwrap();
    }
}

async fn answer(request: RequestBuilder) -> Value {
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let answer: Value = answer.json().await.unwrap();
    assert!(status.is_success(), "{status}: {answer}");
    answer
}
