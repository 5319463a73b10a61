//! From a file of prompts to images: the same bytes as on a laptop, the same counts everywhere.

use std::collections::BTreeSet;

use excite_jobs::State;
use excite_jobs::api::BatchState;
use excite_tests::Rabbit;
use excite_tests::cluster::{Cluster, count};
use sha2::{Digest, Sha256};

use super::assert_all_succeeded;

#[tokio::test]
async fn sixty_jobs_through_two_workers_give_the_bytes_of_generate() {
    let cluster = Cluster::start(Rabbit::shared().await.unwrap(), "end-to-end").await.unwrap();
    let dispatcher = cluster.dispatcher().await.unwrap();
    cluster.push_model(&dispatcher).await.unwrap();
    let (one, two) = tokio::try_join!(cluster.worker(&[]), cluster.worker(&[])).unwrap();

    let prompts = [
        "a cat and a frog",
        "a red car and a white sheep",
        "a lion with a crown",
        "a bear",
        "a horse and a blue balloon",
    ];
    let line = |(i, prompt): (usize, &&str)| {
        format!(
            r#"{{"prompt":"{prompt}","custom_id":"p{i}","seeds":"0..12","steps":2,"width":64,"height":64}}"#
        )
    };
    let lines: Vec<String> = prompts.iter().enumerate().map(line).collect();
    let file = cluster.folder.path().join("prompts.jsonl");
    std::fs::write(&file, lines.join("\n")).unwrap();

    let submitted = ["submit", "prompts.jsonl", "--watch", "--json"];
    let said = cluster.excite(&dispatcher, &submitted).await.unwrap();
    assert!(said.contains(r#""succeeded":60"#), "{said}");
    let out = cluster.folder.path().join("laptop");
    let args = ["generate", "--file", "prompts.jsonl", "--out", "laptop"];
    cluster.excite(&dispatcher, &args).await.unwrap();

    let list: serde_json::Value = {
        let url = format!("{}/v1/batches", dispatcher.url);
        serde_json::from_slice(&cluster.get(&url).await.unwrap()).unwrap()
    };
    let id = list["batches"][0]["id"].as_str().unwrap().parse().unwrap();
    let view = cluster.batch(&dispatcher, id).await.unwrap();
    assert_eq!((view.state, view.jobs), (BatchState::Finished, 60));
    assert_all_succeeded(&view);

    // The bytes: what a laptop makes, what was reported, and what is stored.
    let sha = |bytes: &[u8]| format!("{:x}", Sha256::digest(bytes));
    let mut made = BTreeSet::new();
    for entry in std::fs::read_dir(out).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "png") {
            made.insert(sha(&std::fs::read(path).unwrap()));
        }
    }
    let jobs = cluster.jobs(&dispatcher, id).await.unwrap();
    let mut stored = BTreeSet::new();
    for job in &jobs {
        let bytes = cluster.image(&dispatcher, job.id).await.unwrap();
        assert_eq!(sha(&bytes), job.success.as_ref().unwrap().sha256, "{}", job.id);
        stored.insert(sha(&bytes));
    }
    assert_eq!(made.len(), 60);
    assert_eq!(made, stored);

    // The counts: in the store, in Redis, in the metrics of the workers, over HTTP.
    assert_eq!(cluster.stored(id, "images", ".png").unwrap().len(), 60);
    assert_eq!(cluster.stored(id, "images", ".json").unwrap().len(), 60);
    let mut redis = cluster.redis.connect().await.unwrap();
    let key = format!("excite:{{b:{id}}}:n");
    let succeeded: u64 =
        redis::cmd("HGET").arg(key).arg("succeeded").query_async(&mut redis).await.unwrap();
    assert_eq!((succeeded, count(&view, State::Succeeded)), (60, 60));
    let mut images = 0.;
    for worker in [&one, &two] {
        images += cluster.metric(worker, "excite_images_total", "").await.unwrap();
    }
    assert_eq!(images, 60., "no job was run twice");
    let outcomes = cluster.metric(&dispatcher, "excite_outcomes_total", "succeeded").await.unwrap();
    assert_eq!(outcomes, 60.);

    // And back into files, as the paper lays them out.
    let id = id.to_string();
    let fetch = ["batch", "fetch", &id, "--out", "paper", "--layout", "paper"];
    cluster.excite(&dispatcher, &fetch).await.unwrap();
    let folder = cluster.folder.path().join("paper/a cat and a frog");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 12, "{}", folder.display());
    let again = cluster.excite(&dispatcher, &fetch).await.unwrap();
    assert!(again.contains("60"), "what is there is not fetched again: {again}");
}
