//! Models pushed over HTTP.

use excite_jobs::api::{BatchView, ModelList};
use excite_jobs::store::Store;
use excite_jobs::{ModelCard, ModelFacts, keys};

use crate::server::{Server, WEIGHTS, card, document, problem, sha256};

#[tokio::test]
async fn a_model_is_pushed_file_by_file_and_then_used() {
    let server = Server::bare().await;
    let answer = server.submit("?model=tiny", "text/plain", "a cat").send().await.unwrap();
    assert_eq!(problem(answer).await.code, "unknown_model");
    let card = card("tiny");
    let early = server.put("/v1/models/tiny").json(&card).send().await.unwrap();
    assert_eq!(problem(early).await.code, "files_missing");

    let path = format!("/v1/models/tiny/files/{}", sha256(WEIGHTS));
    let head = || server.client.head(format!("{}{path}", server.url)).send();
    assert_eq!(head().await.unwrap().status(), 404);
    let wrong = server.put(&path).body("other bytes").send().await.unwrap();
    assert_eq!(problem(wrong).await.code, "sha256");
    assert_eq!(server.put(&path).body(WEIGHTS).send().await.unwrap().status(), 201);
    let there = head().await.unwrap();
    assert_eq!(
        (there.status().as_u16(), there.headers()["content-length"].to_str().unwrap()),
        (200, "7")
    );

    let pushed: ModelCard =
        document(server.put("/v1/models/tiny").json(&card).send().await.unwrap(), 200).await;
    assert_eq!(pushed, card);
    let list: ModelList = document(server.get("/v1/models").send().await.unwrap(), 200).await;
    assert_eq!(list.models, std::slice::from_ref(&card));
    let by_digest = keys::model_of("tiny", &card.digest);
    assert!(server.store.head(&by_digest).await.unwrap().is_some());
    let answer = server.submit("?model=tiny", "text/plain", "a cat").send().await.unwrap();
    let view: BatchView = document(answer, 202).await;
    assert_eq!(view.model, card.full_name());

    let mut newer = card.clone();
    let file = newer.files.pop_first().unwrap().1;
    newer.files.insert("unet/other.safetensors".into(), file);
    newer.digest = ModelCard::digest_of(&newer.files);
    newer.facts.name = newer.full_name();
    let pushed = server.put("/v1/models/tiny").json(&newer).send().await.unwrap();
    assert_eq!(document::<ModelCard>(pushed, 200).await, newer);
    for model in [card.full_name(), newer.full_name()] {
        let answer = server.submit(&format!("?model={model}"), "text/plain", "a cat").send();
        let view: BatchView = document(answer.await.unwrap(), 202).await;
        assert_eq!(view.model, model);
    }
    let nobody = format!("?model=tiny@{}", "0".repeat(64));
    let unknown = server.submit(&nobody, "text/plain", "a cat").send().await.unwrap();
    assert_eq!(problem(unknown).await.code, "unknown_model");
}

#[tokio::test]
async fn cards_that_cannot_be_used_are_refused() {
    let server = Server::bare().await;
    let put = |card: &ModelCard| server.put("/v1/models/tiny").json(card).send();
    let good = card("tiny");
    let mut path = good.clone();
    let file = path.files.pop_first().unwrap().1;
    path.files.insert("../weights".into(), file);
    let facts = |change: fn(&mut ModelFacts)| {
        let mut card = good.clone();
        change(&mut card.facts);
        card
    };
    #[rustfmt::skip]
    let table = [
        (ModelCard { digest: "0".repeat(64), ..good.clone() },   "digest"),
        (ModelCard { name: "other".into(), ..good.clone() },     "model_name"),
        (ModelCard { class: "a/b".into(), ..good.clone() },      "class"),
        (ModelCard { v: 9, ..good.clone() },                     "version"),
        (path,                                                   "files"),
        (facts(|facts| facts.width = 1 << 31),                   "facts"),
        (facts(|facts| facts.height = 8),                        "facts"),
        (facts(|facts| facts.size_multiple = 0),                 "facts"),
        (facts(|facts| facts.train_timesteps = 0),               "facts"),
    ];
    for (card, code) in table {
        let problem = problem(put(&card).await.unwrap()).await;
        assert_eq!((problem.status, problem.code.as_str()), (422, code));
    }
    for path in ["/v1/models/.x/files/00", "/v1/models/tiny/files/00"] {
        assert_eq!(problem(server.put(path).body("x").send().await.unwrap()).await.status, 400);
    }
    let body = server.put("/v1/models/tiny").body("{}").send().await.unwrap();
    assert_eq!(problem(body).await.code, "bad_body");
}
