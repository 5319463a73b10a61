//! The OpenAPI document: every route is in it with examples that work, and answers as it says.

use std::io::Cursor;

use excite_jobs::api::{BatchView, UploadView};
use excite_jobs::progress::{ClassStatus, Progress, Status, WorkerBeat, WorkerState};
use excite_jobs::store::{Condition, Store};
use excite_jobs::{BatchId, JobId, Summary, Tally, UploadId, keys};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::server::{Server, document};

/// The batch and the upload of the examples.
const BATCH: &str = "0192d7a0-0000-7000-8000-000000000001";
const UPLOAD: &str = "0192d7a0-0000-7000-8000-000000000002";

/// An operation of the document.
struct Operation {
    method: Method,
    path: String,
    says: Value,
}

/// What the ids of the examples stand for.
struct Known {
    batch: BatchId,
    upload: UploadId,
}

impl Known {
    fn put_into(&self, example: &str) -> String {
        let text = example.replace(BATCH, &self.batch.to_string());
        text.replace(UPLOAD, &self.upload.to_string())
    }
}

impl Operation {
    /// What must come first: files before cards before what shows them, parts before their commit;
    /// what deletes last.
    fn turn(&self) -> (usize, usize) {
        let order = [Method::POST, Method::PUT, Method::GET, Method::HEAD, Method::PATCH];
        let method = order.iter().position(|method| *method == self.method);
        let turn = 2 * method.unwrap_or(order.len());
        let turn = if self.path.ends_with("/commit") { 3 } else { turn };
        (turn, usize::MAX - self.path.len())
    }

    /// The request of the examples, without its body.
    fn request(&self, server: &Server, known: &Known) -> (String, RequestBuilder) {
        let mut path = self.path.clone();
        let (mut query, mut headers) = (Vec::new(), Vec::new());
        for parameter in self.says["parameters"].as_array().into_iter().flatten() {
            let name = parameter["name"].as_str().unwrap();
            let example = match &parameter["example"] {
                Value::String(text) => known.put_into(text),
                other => other.to_string(),
            };
            let there = !parameter["example"].is_null();
            match parameter["in"].as_str().unwrap() {
                "path" => {
                    assert!(there, "{path} has no example of {name}");
                    path = path.replace(&format!("{{{name}}}"), &example);
                }
                "query" if there => query.push(format!("{name}={example}")),
                "header" if there => headers.push((name, example)),
                _ => {}
            }
        }
        if !query.is_empty() {
            path = format!("{path}?{}", query.join("&"));
        }
        let mut request =
            server.client.request(self.method.clone(), format!("{}{path}", server.url));
        for (name, example) in headers {
            request = request.header(name, example);
        }
        (path, request)
    }

    /// Bodies with their media types; one without a body if none is taken.
    fn bodies(&self, known: &Known) -> Vec<Option<(String, String)>> {
        let Some(content) = self.says["requestBody"]["content"].as_object() else {
            return vec![None];
        };
        let body = |(kind, media): (&String, &Value)| {
            let text = match &media["example"] {
                // A file is empty where nobody says what it is.
                Value::Null if kind == "application/octet-stream" => String::new(),
                Value::Null => panic!("{} has no example of {kind}", self.path),
                Value::String(text) => text.clone(),
                document => document.to_string(),
            };
            Some((kind.clone(), known.put_into(&text)))
        };
        content.iter().map(body).collect()
    }

    /// The answer is one of those that are promised.
    fn check(&self, path: &str, answer: &Response) {
        let status = answer.status().as_u16();
        let promised = &self.says["responses"][status.to_string()];
        assert!(status < 400 && promised.is_object(), "{} {path}: {status}", self.method);
        let Some(content) = promised["content"].as_object() else { return };
        let kind = answer.headers()["content-type"].to_str().unwrap();
        let known = content.keys().any(|known| kind.split(';').next() == Some(known));
        assert!(known, "{} {path}: {kind}", self.method);
    }
}

fn operations(document: &Value) -> Vec<Operation> {
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, says) in item.as_object().unwrap() {
            let method = method.to_uppercase().parse().unwrap();
            operations.push(Operation { method, path: path.clone(), says: says.clone() });
        }
    }
    operations.sort_by_key(Operation::turn);
    operations
}

/// A batch with an image and a dead job, that is finished; a worker, and a leader.
async fn furnish(server: &Server) -> Known {
    let batch: BatchView = server.accepted("?attention=true&trace=true", "a cat\na dog").await;
    let success = json!({"key": "", "sha256": "", "bytes": 9, "seconds": 1.5, "steps": 2,
        "loss": 0.5, "scores": [0.5], "weakest": "cat"});
    let failure = json!({"class": "invalid", "code": "bad", "message": "no"});
    let common = |index: u32, state: &str| {
        json!({"v": 1, "index": index, "state": state, "reason": "reported", "lease": 1,
            "attempt": 1, "worker": "emoji", "at": "2026-01-02T03:04:05Z"})
    };
    let (mut made, mut dead) = (common(0, "succeeded"), common(1, "dead"));
    made["success"] = success;
    dead["failure"] = failure;
    dead["dead"] = json!("invalid");
    let put = async |key: String, body: Vec<u8>| {
        server.store.put(&key, body.into(), Condition::Always).await.unwrap();
    };
    put(keys::done(batch.id, 1, 0), format!("{made}\n{dead}\n").into_bytes()).await;
    let mut png = Cursor::new(Vec::new());
    let image = image::RgbImage::from_pixel(64, 64, image::Rgb([10, 200, 10]));
    image.write_to(&mut png, image::ImageFormat::Png).unwrap();
    put(keys::image(JobId::new(batch.id, 0)), png.into_inner()).await;
    let summary = Summary::now(batch.id, Tally::default());
    put(keys::summary(batch.id), serde_json::to_vec(&summary).unwrap()).await;

    let now = OffsetDateTime::now_utc();
    let beat = WorkerBeat {
        v: 1,
        worker: "emoji".into(),
        pool: "default".into(),
        kind: "cpu".into(),
        class: "default".into(),
        state: WorkerState::Ready,
        slots: 1,
        jobs: Vec::new(),
        models: Vec::new(),
        model_bytes: 0,
        memory_bytes: None,
        micro_batches: Vec::new(),
        started_at: now,
        version: "0".into(),
    };
    server.mirror.beat(&beat).await.unwrap();
    let class = ClassStatus {
        class: "default".into(),
        jobs: 0,
        seconds: Some(0.),
        due: Vec::new(),
        drain_seconds: Some(0.),
        ready: 1,
        oldest_seconds: None,
    };
    let status = Status {
        v: 1,
        dispatcher: "d".into(),
        epoch: 1,
        at: now,
        classes: vec![class],
        active_batches: 0,
        images_per_second: 0.,
        dead_jobs: 0,
        connected: true,
        blocked: false,
    };
    server.mirror.set_status(&status).await.unwrap();
    let begin = server.post("/v1/uploads").header("content-type", "application/x-ndjson");
    let upload: UploadView = document(begin.send().await.unwrap(), 201).await;
    Known { batch: batch.id, upload: upload.id }
}

#[tokio::test]
async fn every_route_has_examples_that_work() {
    let server = Server::start().await;
    let known = furnish(&server).await;
    let api: Value = document(server.get("/v1/openapi.json").send().await.unwrap(), 200).await;
    assert_eq!(api["openapi"], "3.1.0");
    let operations = operations(&api);
    assert!(operations.len() > 34, "{}", operations.len());
    for operation in &operations {
        for body in operation.bodies(&known) {
            let (path, mut request) = operation.request(&server, &known);
            if let Some((kind, text)) = body {
                request = request.header("content-type", kind).body(text);
            }
            let answer = request.send().await.unwrap();
            let status = answer.status();
            if status.is_client_error() || status.is_server_error() {
                panic!("{} {path}: {}", operation.method, answer.text().await.unwrap());
            }
            operation.check(&path, &answer);
        }
    }
    let mut ids: Vec<_> = operations.iter().map(|o| o.says["operationId"].to_string()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), operations.len(), "one name for two operations");
}

/// What is referred to is there: no type was left out.
#[tokio::test]
async fn every_reference_leads_somewhere() {
    let server = Server::bare().await;
    let api: Value = document(server.get("/v1/openapi.json").send().await.unwrap(), 200).await;
    let mut seen = 0;
    let mut look_at = vec![&api];
    while let Some(value) = look_at.pop() {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(reference)) = fields.get("$ref") {
                    seen += 1;
                    let pointer = reference.strip_prefix('#').unwrap();
                    assert!(api.pointer(pointer).is_some(), "{reference}");
                }
                look_at.extend(fields.values());
            }
            Value::Array(values) => look_at.extend(values),
            _ => {}
        }
    }
    assert!(seen > 50, "{seen}");
}
