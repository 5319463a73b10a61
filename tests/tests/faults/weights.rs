//! A worker with broken files: it does not make dead what others can make.

use std::path::Path;

use excite_jobs::State;
use excite_tests::Rabbit;
use excite_tests::cluster::{Cluster, count};

use super::{LIMIT, assert_unharmed, lines};

const EMOJI: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/emoji");
const UNET: &str = "unet/diffusion_pytorch_model.safetensors";

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Overwrites some bytes with ones that no number and no text has.
fn spoil(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at..at + 64].fill(0xff);
    std::fs::write(path, bytes).unwrap();
}

/// In the head of the file, at its end, and a file that was cut.
#[tokio::test]
async fn a_broken_folder_of_models_is_passed_over() {
    let cluster = Cluster::start(Rabbit::shared().await.unwrap(), "weights").await.unwrap();
    let dispatcher = cluster.dispatcher().await.unwrap();
    let push = ["model", "push", "emoji", "--name", "other"];
    cluster.excite(&dispatcher, &push).await.unwrap();
    for (name, at) in [("head", Some(20)), ("tail", Some(8_000_000)), ("cut", None)] {
        let models = cluster.folder.path().join(name);
        copy(Path::new(EMOJI), &models.join("other"));
        let weights = models.join("other").join(UNET);
        match at {
            Some(at) => spoil(&weights, at),
            None => {
                std::fs::File::options().write(true).open(weights).unwrap().set_len(9000).unwrap()
            }
        }
        let (models, cache) = (models.display().to_string(), format!("{}-cache", models.display()));
        let args = ["--models-dir", &models, "--cache-dir", &cache];
        let worker = cluster.worker(&args).await.unwrap();
        let view = cluster.submit(&dispatcher, "model=other", &lines(3, 1)).await.unwrap();
        assert_unharmed(&cluster, &dispatcher, &view).await;
        drop(worker);
    }
}

/// What was fetched is broken since: it is fetched again.
#[tokio::test]
async fn a_broken_cache_costs_a_try_at_most() {
    let cluster = Cluster::start(Rabbit::shared().await.unwrap(), "cache").await.unwrap();
    let dispatcher = cluster.dispatcher().await.unwrap();
    let push = ["model", "push", "emoji", "--name", "other"];
    cluster.excite(&dispatcher, &push).await.unwrap();
    let cache = cluster.folder.path().join("cache");
    let args = ["--cache-dir", &cache.display().to_string()];
    let worker = cluster.worker(&args).await.unwrap();
    let view = cluster.submit(&dispatcher, "model=other", &lines(1, 1)).await.unwrap();
    assert_unharmed(&cluster, &dispatcher, &view).await;
    drop(worker);
    let digest = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        path.is_dir().then(|| path.join("other").join(UNET))
    };
    let weights = std::fs::read_dir(&cache).unwrap().find_map(digest).unwrap();
    for at in [20, 8_000_000] {
        spoil(&weights, at);
        let worker = cluster.worker(&args).await.unwrap();
        let view = cluster.submit(&dispatcher, "model=other", &lines(3, 1)).await.unwrap();
        let view = cluster.finished(&dispatcher, view.id, LIMIT).await.unwrap();
        assert_eq!(count(&view, State::Succeeded), 3, "{:?}", view.tally);
        let records = cluster.records(view.id).unwrap();
        assert!(records.iter().all(|done| done.attempt <= 2), "{records:?}");
        drop(worker);
    }
}
