//! What operators and autoscalers see, and what every request goes through.

use excite_jobs::api::{Doctor, Scale};
use excite_jobs::progress::{ClassStatus, Progress, Status, WorkerBeat, WorkerState};
use serde_json::Value;
use time::OffsetDateTime;

use crate::server::{Server, document, problem};

#[tokio::test]
async fn workers_are_shown_and_drained() {
    let server = Server::start().await;
    let beat = WorkerBeat {
        v: 1,
        worker: "w-1".into(),
        pool: "default".into(),
        kind: "cpu".into(),
        class: "default".into(),
        state: WorkerState::Ready,
        slots: 4,
        jobs: Vec::new(),
        models: Vec::new(),
        model_bytes: 0,
        memory_bytes: None,
        micro_batches: Vec::new(),
        started_at: OffsetDateTime::UNIX_EPOCH,
        version: "0".into(),
    };
    server.mirror.beat(&beat).await.unwrap();
    let list: Value = document(server.get("/v1/workers").send().await.unwrap(), 200).await;
    assert_eq!(list["workers"][0]["worker"], "w-1");
    let drain = server.post("/v1/workers/w-1/drain").send().await.unwrap();
    assert_eq!(drain.status(), 202);
    assert!(server.mirror.is_drained("w-1").await.unwrap());
    let nobody = server.post("/v1/workers/nobody/drain").send().await.unwrap();
    assert_eq!(problem(nobody).await.status, 404);
}

#[tokio::test]
async fn scale_follows_the_leader_and_is_no_number_without_one() {
    let server = Server::start().await;
    let answer = server.get("/v1/scale?pool=default").send().await.unwrap();
    assert!(answer.headers().contains_key("retry-after"));
    assert_eq!(problem(answer).await.status, 503);
    let class = ClassStatus {
        class: "default".into(),
        jobs: 40,
        seconds: Some(250.),
        due: Vec::new(),
        drain_seconds: None,
        ready: 0,
        oldest_seconds: None,
    };
    let status = Status {
        v: 1,
        dispatcher: "d".into(),
        epoch: 3,
        at: OffsetDateTime::now_utc(),
        classes: vec![class],
        active_batches: 1,
        images_per_second: 0.,
        dead_jobs: 0,
        connected: true,
        blocked: false,
    };
    server.mirror.set_status(&status).await.unwrap();
    let scale: Scale = document(server.get("/v1/scale").send().await.unwrap(), 200).await;
    assert_eq!(scale.desired, 3, "{}", scale.reason);
    let unknown = server.get("/v1/scale?pool=x").send().await.unwrap();
    assert_eq!(problem(unknown).await.code, "unknown_pool");
    let doctor: Doctor = document(server.get("/v1/doctor").send().await.unwrap(), 200).await;
    assert!(doctor.ok, "{doctor:?}");
}

#[tokio::test]
async fn the_doctor_says_what_is_missing() {
    let server = Server::bare().await;
    let doctor: Doctor = document(server.get("/v1/doctor").send().await.unwrap(), 200).await;
    assert!(!doctor.ok);
    for (name, remedy) in
        [("topology", "topology apply"), ("models", "excite model push emoji"), ("leader", "logs")]
    {
        let check = doctor.checks.iter().find(|check| check.name == name).unwrap();
        assert!(!check.ok && check.remedy.as_ref().unwrap().contains(remedy), "{check:?}");
    }
    assert!(doctor.checks.iter().find(|check| check.name == "store").unwrap().ok);
    assert!(server.keys("").await.is_empty(), "the probe is taken away");
}

#[tokio::test]
async fn every_answer_has_an_id_and_is_counted_by_its_route() {
    let server = Server::start().await;
    for (path, code) in [("/v1/nothing", "unknown_route"), ("/v1/batches/x", "bad_id")] {
        assert_eq!(problem(server.get(path).send().await.unwrap()).await.code, code);
    }
    let put = server.put("/v1/batches").send().await.unwrap();
    assert_eq!(problem(put).await.code, "unknown_method");
    let large = "x".repeat(5 << 20);
    let large = server.post("/v1/dead/replay").body(large).send().await.unwrap();
    assert_eq!(problem(large).await.status, 413);
    let answer = server.get("/healthz").header("x-request-id", "mine-1").send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["x-request-id"]),
        (200, &"mine-1".parse().unwrap())
    );
    assert_eq!(server.get("/readyz").send().await.unwrap().status(), 200);
    server.accepted("", "a cat\na dog").await;
    let text = server.get("/metrics").send().await.unwrap().text().await.unwrap();
    for line in [
        "excite_accept_lines_total 2",
        "excite_accept_bytes_total 11",
        "excite_accept_total{result=\"accepted\"} 1",
        "excite_http_requests_total{method=\"GET\",route=\"other\",status=\"404\"} 1",
        "excite_http_requests_total{method=\"GET\",route=\"/v1/batches/{id}\",status=\"400\"} 1",
    ] {
        assert!(text.contains(line), "{line}:\n{text}");
    }
}
