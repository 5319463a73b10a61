//! Batches listed, shown, changed, taken away; their jobs, also the dead ones.

use excite_jobs::api::{BatchPage, BatchState, BatchView, DeadList, Deletion, JobPage, Replayed};
use excite_jobs::progress::Progress;
use excite_jobs::store::{Condition, Store};
use excite_jobs::{
    BatchId, Class, Control, DeadReason, Done, Failure, JobId, Reason, State, Success, Summary,
    Tally, keys,
};
use serde_json::json;
use time::OffsetDateTime;

use crate::server::{Server, document, next, problem};

fn done(index: u32, state: State) -> Done {
    let failure = Failure {
        class: Class::Invalid,
        code: "bad_prompt".into(),
        message: "no".into(),
        retry_after_seconds: None,
    };
    let success = Success {
        key: String::new(),
        sha256: String::new(),
        bytes: 100,
        seconds: 2.,
        steps: 50,
        loss: None,
        scores: Vec::new(),
        weakest: None,
        tries: 1,
        found: false,
        accepted: true,
    };
    Done {
        v: 1,
        index,
        state,
        reason: Reason::Reported,
        lease: 1,
        attempt: 1,
        worker: Some("w".into()),
        at: OffsetDateTime::UNIX_EPOCH,
        success: (state == State::Succeeded).then_some(success),
        failure: (state != State::Succeeded).then_some(failure),
        dead: (state == State::Dead).then_some(DeadReason::Invalid),
        checkpoint: None,
        run: None,
    }
}

async fn put(server: &Server, key: String, body: Vec<u8>) {
    server.store.put(&key, body.into(), Condition::Always).await.unwrap();
}

async fn conclude(server: &Server, batch: BatchId, n: u64, dones: &[Done]) {
    let mut body = Vec::new();
    for done in dones {
        body.extend(serde_json::to_vec(done).unwrap());
        body.push(b'\n');
    }
    put(server, keys::done(batch, 1, n), body).await;
}

async fn finish(server: &Server, batch: BatchId, states: &[(State, u64)]) {
    let tally = Tally { states: states.iter().copied().collect(), ..Tally::default() };
    let summary = serde_json::to_vec(&Summary::now(batch, tally)).unwrap();
    put(server, keys::summary(batch), summary).await;
}

#[tokio::test]
async fn batches_are_listed_the_newest_first_page_by_page() {
    let server = Server::start().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.insert(0, server.accepted("", "a cat").await.id);
    }
    let mut canary = server.header(ids[2]).await;
    (canary.id, canary.canary) = (BatchId::new(), true);
    put(&server, keys::batch(canary.id), serde_json::to_vec(&canary).unwrap()).await;
    // An upload that is under way.
    put(&server, keys::part(BatchId::new(), 0), b"x".to_vec()).await;
    let mut found = Vec::new();
    let mut after = String::new();
    loop {
        let path = format!("/v1/batches?limit=3{after}");
        let page: BatchPage = document(server.get(&path).send().await.unwrap(), 200).await;
        found.extend(page.batches.iter().map(|view| view.id));
        let Some(next) = page.next else { break };
        after = format!("&after={next}");
    }
    assert_eq!(found, ids);
    for query in ["?limit=0", "?limit=1001", "?limit=x", "?after=x", "?x=1"] {
        let answer = server.get(&format!("/v1/batches{query}")).send().await.unwrap();
        assert_eq!(problem(answer).await.code, "bad_query", "{query}");
    }
}

#[tokio::test]
async fn a_batch_is_paused_weighed_and_cancelled() {
    let server = Server::start().await;
    let id = server.accepted("", "a cat\na dog").await.id;
    let mut control = server.control().await;
    next(&mut control).await;
    let url = format!("{}/v1/batches/{id}", server.url);
    let patch = |body: serde_json::Value| server.client.patch(&url).json(&body).send();
    let view: BatchView =
        document(patch(json!({"paused": true, "weight": 7})).await.unwrap(), 200).await;
    assert_eq!((view.state, view.weight), (BatchState::Paused, 7));
    assert_eq!(next(&mut control).await, Control::Batch { batch: id });
    for (body, code) in [
        (json!({"weight": 0}), "out_of_range"),
        (json!({"cancelled": false}), "cancelled_stays"),
        (json!({}), "no_change"),
        (json!({"wieght": 1}), "bad_body"),
    ] {
        assert_eq!(problem(patch(body).await.unwrap()).await.code, code);
    }
    let view: BatchView = document(patch(json!({"cancelled": true})).await.unwrap(), 200).await;
    assert_eq!(view.state, BatchState::Cancelled);
    assert!(server.mirror.cancelled().await.unwrap().contains(&id));
    assert_eq!(server.header(id).await.revision, 3);
    let other = format!("/v1/batches/{}", BatchId::new());
    assert_eq!(problem(server.get(&other).send().await.unwrap()).await.status, 404);
}

#[tokio::test]
async fn only_a_batch_that_is_over_is_taken_away_and_then_whole() {
    let server = Server::start().await;
    let id = server.accepted("", "a cat\na dog").await.id;
    let url = format!("{}/v1/batches/{id}", server.url);
    let delete = |query: &str| server.client.delete(format!("{url}{query}")).send();
    let early = problem(delete("").await.unwrap()).await;
    assert_eq!((early.status, early.code.as_str()), (409, "batch_not_finished"));
    assert!(early.remedy.contains("excite batch cancel"), "{}", early.remedy);

    finish(&server, id, &[(State::Succeeded, 2)]).await;
    for index in 0..2 {
        put(&server, keys::image(JobId::new(id, index)), b"png".to_vec()).await;
        put(&server, keys::sidecar(JobId::new(id, index)), b"{}".to_vec()).await;
        put(&server, keys::suspect(JobId::new(id, index), 1), Vec::new()).await;
    }
    let mut control = server.control().await;
    next(&mut control).await;
    let dry: Deletion = document(delete("?dry_run=true").await.unwrap(), 200).await;
    assert_eq!((dry.objects, dry.images, dry.deleted), (8, 2, false));
    let deletion: Deletion = document(delete("").await.unwrap(), 200).await;
    assert_eq!(deletion, Deletion { deleted: true, ..dry });
    server.nothing_is_stored().await;
    assert!(server.keys("suspects/").await.is_empty());
    assert_eq!(next(&mut control).await, Control::Delete { batch: id });
    assert_eq!(problem(delete("").await.unwrap()).await.status, 404);
    let page: BatchPage = document(server.get("/v1/batches").send().await.unwrap(), 200).await;
    assert!(page.batches.is_empty());
}

#[tokio::test]
async fn concluded_jobs_are_listed_in_pages_and_files_are_served() {
    let server = Server::start().await;
    let text = "{\"prompt\": \"a cat\", \"seeds\": \"5..10\", \"custom_id\": \"c\"}";
    let answer = server.submit("", "application/x-ndjson", text).send().await.unwrap();
    let id = document::<BatchView>(answer, 202).await.id;
    let succeeded = |index| done(index, State::Succeeded);
    let retrying = done(4, State::Retrying);
    conclude(&server, id, 0, &[succeeded(3), retrying, succeeded(1)]).await;
    conclude(&server, id, 1, &[done(0, State::Dead), succeeded(2)]).await;
    let list = async |query: &str| {
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let path = format!("/v1/batches/{id}/jobs?{query}{after}");
            let page: JobPage = document(server.get(&path).send().await.unwrap(), 200).await;
            found.extend(page.jobs);
            let Some(next) = page.next else { return found };
            after = format!("&after={next}");
        }
    };
    for limit in [1, 2, 3, 100] {
        let found = list(&format!("limit={limit}")).await;
        let indices: Vec<_> = found.iter().map(|job| (job.index, job.seed)).collect();
        assert_eq!(indices, [(3, 8), (1, 6), (0, 5), (2, 7)], "limit {limit}");
        assert_eq!((found[0].line, found[0].custom_id.as_deref()), (1, Some("c")));
    }
    assert_eq!(list("state=dead").await.len(), 1);
    assert_eq!(list("state=retrying&limit=1").await.len(), 1);

    put(&server, keys::image(JobId::new(id, 3)), b"png".to_vec()).await;
    let image = || server.get(&format!("/v1/batches/{id}/jobs/3/image"));
    let answer = image().send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-type"]),
        (200, &"image/png".parse().unwrap())
    );
    let etag = answer.headers()["etag"].clone();
    assert_eq!(answer.bytes().await.unwrap(), "png");
    let known = image().header("if-none-match", etag).send().await.unwrap();
    assert_eq!(known.status(), 304);
    for (what, status) in [("4/image", 404), ("3/trace", 404), ("3/x", 404), ("x/image", 400)] {
        let path = format!("/v1/batches/{id}/jobs/{what}");
        assert_eq!(problem(server.get(&path).send().await.unwrap()).await.status, status, "{what}");
    }
}

#[tokio::test]
async fn dead_jobs_are_grouped_and_replayed() {
    let server = Server::start().await;
    let id = server.accepted("?defaults=%7B%22seeds%22%3A%220..5%22%7D", "a cat").await.id;
    let mut other = done(3, State::Dead);
    other.failure.as_mut().unwrap().code = "too_dark".into();
    let again = Done { lease: 2, ..done(4, State::Succeeded) };
    let dead = |index| done(index, State::Dead);
    conclude(&server, id, 0, &[dead(0), dead(2), other, dead(4), again]).await;
    finish(&server, id, &[(State::Dead, 3), (State::Succeeded, 2)]).await;
    for path in ["/v1/dead".to_owned(), format!("/v1/dead?batch={id}")] {
        let list: DeadList = document(server.get(&path).send().await.unwrap(), 200).await;
        let groups: Vec<_> = list
            .groups
            .iter()
            .map(|g| (g.batch, g.reason, g.code.as_str(), g.jobs, g.indices.clone()))
            .collect();
        let want = [
            (id, DeadReason::Invalid, "bad_prompt", 2, vec![0, 2]),
            (id, DeadReason::Invalid, "too_dark", 1, vec![3]),
        ];
        assert_eq!(groups, want);
    }
    let mut control = server.control().await;
    next(&mut control).await;
    let body = json!({"batch": id, "code": "bad_prompt"});
    let answer = server.post("/v1/dead/replay").json(&body).send().await.unwrap();
    assert_eq!(document::<Replayed>(answer, 200).await.jobs, 2);
    let want = Control::Replay { batch: id, indices: vec![0, 2] };
    assert_eq!(next(&mut control).await, want);
}
