//! One key makes one batch, whoever asks how often, and whoever dies in between.

use std::collections::BTreeSet;

use excite_jobs::api::BatchView;
use excite_jobs::store::{Condition, Store};
use excite_jobs::{BatchId, Idempotency, keys};
use futures::future::join_all;

use crate::server::{Server, document, problem, sha256};

#[tokio::test]
async fn ten_posts_at_once_with_one_key_make_one_batch() {
    let server = Server::start().await;
    for lines in [5, 1500] {
        let body = "a cat and a frog\n".repeat(lines);
        let key = format!("key-{lines}");
        let post = || server.submit("", "text/plain", body.clone()).header("idempotency-key", &key);
        let mut ids = BTreeSet::new();
        let mut created = 0;
        for answer in join_all((0..10).map(|_| post().send())).await {
            let answer = answer.unwrap();
            created += usize::from(answer.status() == 202);
            let status = answer.status().as_u16();
            assert!(status == 200 || status == 202, "{}", answer.text().await.unwrap());
            ids.insert(document::<BatchView>(answer, status).await.id);
        }
        assert_eq!((ids.len(), created), (1, 1));
        let id = *ids.first().unwrap();
        assert_eq!(server.header(id).await.lines, lines as u64);
        // What the others had stored goes away.
        let start = std::time::Instant::now();
        let own = format!("batches/{id}/");
        let foreign = |key: &String| !key.starts_with(&own) && !key.ends_with("batch.json");
        while server.keys("batches/").await.iter().any(foreign) {
            assert!(start.elapsed() < crate::server::SOON);
            tokio::task::yield_now().await;
        }
        let again = post().send().await.unwrap();
        assert_eq!(document::<BatchView>(again, 200).await.id, id);
    }
    assert_eq!(server.keys("active/").await.len(), 2);
}

#[tokio::test]
async fn a_key_that_made_something_else_is_a_conflict() {
    let server = Server::start().await;
    let post = |query: &str, body: &str| {
        server.submit(query, "text/plain", body.to_owned()).header("idempotency-key", "k")
    };
    let view: BatchView = document(post("", "a cat").send().await.unwrap(), 202).await;
    for (query, body) in [("", "a dog"), ("?weight=2", "a cat")] {
        let problem = problem(post(query, body).send().await.unwrap()).await;
        assert_eq!((problem.status, problem.code.as_str()), (409, "idempotency_key_reused"));
        assert!(problem.detail.contains(&view.id.to_string()), "{}", problem.detail);
    }
    let same: BatchView = document(post("", "a cat").send().await.unwrap(), 200).await;
    assert_eq!(same.id, view.id);
}

#[tokio::test]
async fn a_batch_whose_upload_died_before_the_commit_is_committed_by_the_next_one() {
    let server = Server::start().await;
    for lines in [3, 700] {
        let body = "a cat and a frog\n".repeat(lines);
        let key = format!("dead-{lines}");
        let post = || server.submit("", "text/plain", body.clone()).header("idempotency-key", &key);
        // The key as it would be taken, by one that never came further.
        let view: BatchView = document(post().send().await.unwrap(), 202).await;
        let object = keys::idempotency(&sha256(key.as_bytes()));
        let taken = server.store.get(&object).await.unwrap().unwrap();
        let taken: Idempotency = serde_json::from_slice(&taken.body).unwrap();
        assert_eq!(taken.batch, view.id);
        let dead = BatchId::new();
        let taken = serde_json::to_vec(&Idempotency { batch: dead, ..taken }).unwrap();
        server.store.put(&object, taken.into(), Condition::Always).await.unwrap();

        let next: BatchView = document(post().send().await.unwrap(), 202).await;
        assert_eq!(next.id, dead);
        let header = server.header(dead).await;
        assert_eq!(header.lines, lines as u64);
        for part in &header.parts {
            assert!(part.key.starts_with(&keys::batch_prefix(dead)), "{}", part.key);
            let object = server.store.get(&part.key).await.unwrap().unwrap();
            assert_eq!(sha256(&object.body), part.sha256);
        }
        assert!(server.keys("active/").await.contains(&keys::active(dead)));
        let last: BatchView = document(post().send().await.unwrap(), 200).await;
        assert_eq!(last.id, dead);
    }
}
