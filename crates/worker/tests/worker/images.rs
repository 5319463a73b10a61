//! Real images of the bundled model: the command line's bytes, models from directory and store.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use excite_diffusion::{Compute, EmbeddedFiles, Folder, Model, Outputs, Run, bundled};
use excite_jobs::progress::{MicroBatchSize, Progress};
use excite_jobs::store::Store;
use excite_jobs::{
    BatchId, Job, JobId, Line, ModelCard, ModelFile, OutcomeKind, Sidecar, Spec, keys,
};
use excite_worker::pipeline::Guided;
use excite_worker::{Config, Metrics, Models, ModelsOptions};
use sha2::{Digest, Sha256};

use crate::setting::{Running, Setting, until};

/// The specs of a line on the bundled model.
pub(crate) fn specs(model: &Model, line: &str) -> Vec<Spec> {
    let line = Line::parse(line).unwrap();
    line.resolve(&model.facts(), model.tokenizer()).unwrap().specs().collect()
}

/// A worker on real models.
fn work(setting: &Setting, models_dir: Option<PathBuf>, slots: u16) -> Running {
    work_measured(setting, models_dir, slots).0
}

/// The same, with the metrics of its pipeline.
pub(crate) fn work_measured(
    setting: &Setting,
    models_dir: Option<PathBuf>,
    slots: u16,
) -> (Running, Metrics) {
    work_as(setting, models_dir, Config { slots, ..Config::default() })
}

pub(crate) fn work_as(
    setting: &Setting,
    models_dir: Option<PathBuf>,
    config: Config,
) -> (Running, Metrics) {
    let metrics = Metrics::new("test").unwrap();
    let options = ModelsOptions {
        compute: Compute::cpu(),
        models_dir,
        cache_dir: setting.folder.path().join("cache"),
        bytes: 1 << 30,
        pinned: Vec::new(),
    };
    let runtime = tokio::runtime::Handle::current();
    let store = Arc::clone(&setting.store) as Arc<dyn Store>;
    let models = Arc::new(Models::new(options, store, runtime, metrics.clone()));
    let pipeline = Guided::new(Arc::clone(&models), metrics.clone());
    (setting.work_as(pipeline, Some(models), config), metrics)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_are_those_of_the_command_line() {
    let mut setting = Setting::new().await;
    let model = Model::load(&bundled()).unwrap();
    let line = r#"{"prompt": "a cat and a frog", "seeds": "8..10", "steps": 1,
        "method_params": {"thresholds": {"0": 0.9}, "max_refinement_steps": 1}}"#;
    let specs = specs(&model, line);
    let mut jobs: Vec<Job> =
        (0..).zip(&specs).map(|(i, spec)| setting.job_of(i, spec.clone())).collect();
    (jobs[0].outputs.attention, jobs[0].outputs.trace) = (true, true);
    jobs[1].custom_id = Some("frog-9".into());
    let mut unknown = setting.job_of(2, specs[0].clone());
    unknown.spec.model = "nobody-has-it@0".into();
    let mut other = setting.job_of(3, specs[0].clone());
    other.spec.model = format!("emoji@{}", "0".repeat(64));
    for job in &jobs {
        setting.submit(job).await;
    }
    let worker = work(&setting, None, 2);
    let outputs = Outputs { latents: false, maps: true };
    let rendered =
        Run::start(&model, &specs, outputs).unwrap().complete(&|| false, |_| ()).unwrap();
    for _ in &jobs {
        let (index, success) = setting.success().await;
        let at = index as usize;
        let want = rendered[at].picture.to_png_of(&specs[at]).unwrap();
        let png = setting.get(&success.key).await.unwrap();
        assert!(png == want, "image {index} has other bytes");
        assert_eq!(
            success.weakest,
            excite_diffusion::attention(&specs[at], &rendered[at].record).weakest
        );
        assert_eq!((success.steps, success.scores.len()), (1, 2));
    }
    let id = |index| JobId::new(setting.batch, index);
    assert!(setting.get(&keys::attention(id(0))).await.is_some());
    assert!(setting.get(&keys::trace(id(0))).await.is_some());
    assert!(setting.get(&keys::attention(id(1))).await.is_none());
    let sidecar = setting.get(&keys::sidecar(id(1))).await.unwrap();
    let sidecar: Sidecar = serde_json::from_slice(&sidecar).unwrap();
    assert_eq!((sidecar.custom_id.as_deref(), sidecar.steps.len()), (Some("frog-9"), 1));
    for job in [unknown, other] {
        setting.submit(&job).await;
        assert_eq!(setting.failure().await, ("invalid", "unknown_model".into()));
    }
    worker.stop().await;
}

/// Row by row: one batch of a mixed run is cancelled, the other goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_batch_leaves_a_run_that_goes_on() {
    let mut setting = Setting::new().await;
    let model = Model::load(&bundled()).unwrap();
    let line = r#"{"prompt": "a cat", "seed": 1, "steps": 40, "method": "none"}"#;
    let spec = specs(&model, line).remove(0);
    let first = setting.job_of(0, spec.clone());
    let mut second = setting.job_of(1, spec.clone());
    second.batch = BatchId::new();
    second.id = JobId::new(second.batch, 1);
    setting.submit(&first).await;
    setting.submit(&second).await;
    let worker = work(&setting, None, 2);
    until("both run", async || {
        let workers = setting.progress.workers().await.unwrap();
        workers.iter().any(|beat| beat.jobs.len() == 2 && beat.jobs[0].step > 0)
    })
    .await;
    setting.progress.set_cancelled(second.batch, true).await.unwrap();
    let outcomes = [setting.outcome().await, setting.outcome().await];
    for outcome in outcomes {
        match outcome.kind {
            OutcomeKind::Succeeded(_) => assert_eq!(outcome.index, 0),
            kind => assert_eq!((outcome.index, kind), (1, OutcomeKind::Cancelled)),
        }
    }
    assert!(setting.get(&keys::image(second.id)).await.is_none());
    worker.stop().await;
}

/// Two slots are measured first, then one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_many_run_together_is_learnt_from_their_steps_and_shown() {
    let mut setting = Setting::new().await;
    let model = Model::load(&bundled()).unwrap();
    let line = r#"{"prompt": "a cat", "seeds": "1..5", "steps": 4, "method": "none"}"#;
    let specs = specs(&model, line);
    for (index, spec) in (0..).zip(&specs) {
        setting.submit(&setting.job_of(index, spec.clone())).await;
    }
    let (worker, metrics) = work_measured(&setting, None, 2);
    for _ in &specs {
        setting.success().await;
    }
    // No step is made any more: the gauge stands where it stays, and the next beat says the same.
    let gauge = metrics.batch_size.with_label_values(&["emoji"]).get();
    let mut shown = Vec::new();
    until("both sizes are measured, and the beat says what the gauge does", async || {
        let mut workers = setting.progress.workers().await.unwrap();
        shown = workers.remove(0).micro_batches;
        let measured = |chosen: &MicroBatchSize| chosen.reason.contains(" with 1");
        shown.iter().any(|chosen| measured(chosen) && i64::from(chosen.jobs) == gauge)
    })
    .await;
    let chosen = &shown[0];
    assert_eq!((chosen.model.as_str(), chosen.width), (model.name(), 128));
    assert!(chosen.reason.contains(" with 2, "), "{}", chosen.reason);
    assert!((1..=2).contains(&chosen.jobs), "{chosen:?}");
    worker.stop().await;
}

fn files() -> EmbeddedFiles {
    let Folder::Embedded { files, .. } = bundled() else { panic!("it is part of the program") };
    files
}

/// The bundled model under another name, in the store.
async fn push(setting: &Setting, model: &Model, name: &str) -> ModelCard {
    let mut entries = BTreeMap::new();
    for (path, bytes) in files() {
        let sha256 = format!("{:x}", Sha256::digest(bytes));
        let file = ModelFile { sha256: sha256.clone(), bytes: bytes.len() as u64 };
        entries.insert((*path).to_owned(), file);
        setting.put(&keys::model_file(name, &sha256), *bytes).await;
    }
    let digest = ModelCard::digest_of(&entries);
    let card = ModelCard {
        v: 1,
        name: name.into(),
        digest: digest.clone(),
        class: "default".into(),
        bytes: 0,
        facts: model.facts(),
        files: entries,
    };
    setting.put(&keys::model_of(name, &digest), serde_json::to_vec(&card).unwrap()).await;
    card
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_of_the_store_is_fetched_and_a_wrong_byte_refused() {
    let mut setting = Setting::new().await;
    let model = Model::load(&bundled()).unwrap();
    let card = push(&setting, &model, "pushed").await;
    let line = r#"{"prompt": "a cat", "seed": 1, "steps": 1, "method": "none"}"#;
    let mut spec = specs(&model, line).remove(0);
    spec.model = card.full_name();
    let vae = &card.files["vae/config.json"].sha256;
    let key = keys::model_file("pushed", vae);
    let right = setting.get(&key).await.unwrap();
    setting.put(&key, "{}").await;
    let worker = work(&setting, None, 2);
    setting.submit(&setting.job_of(0, spec.clone())).await;
    assert_eq!(setting.failure().await, ("transient", "model_fetch".into()));
    setting.put(&key, right).await;
    setting.submit(&setting.job_of(1, spec)).await;
    assert_eq!(setting.success().await.0, 1);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_of_the_directory_is_found_by_its_name() {
    let mut setting = Setting::new().await;
    let model = Model::load(&bundled()).unwrap();
    let dir = setting.folder.path().join("models");
    for (path, bytes) in files() {
        let target = dir.join("local").join(path);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::write(target, bytes).unwrap();
    }
    let line = r#"{"prompt": "a cat", "seed": 1, "steps": 1, "method": "none"}"#;
    let mut spec = specs(&model, line).remove(0);
    spec.model = model.name().replacen("emoji", "local", 1);
    let worker = work(&setting, Some(dir), 1);
    setting.submit(&setting.job_of(0, spec)).await;
    setting.success().await;
    worker.stop().await;
}

/// What is saved while a job runs is gone with the job; what cannot be used costs steps, never the
/// image.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_goes_on_from_the_latest_state_that_fits() {
    let mut setting = Setting::new().await;
    let model = Model::load(&bundled()).unwrap();
    let line = r#"{"prompt": "a cat and a frog", "seeds": "8..10", "steps": 3,
        "method_params": {"thresholds": {}}}"#;
    let specs = specs(&model, line);
    let outputs = Outputs { latents: false, maps: true };
    let mut run = Run::start(&model, &specs, outputs).unwrap();
    run.step(&|| false).unwrap();
    run.step(&|| false).unwrap();
    let fits = run.checkpoint(0).unwrap().to_bytes().unwrap();
    let others = run.checkpoint(1).unwrap().to_bytes().unwrap();
    // As if another kind of machine had made it.
    let kind = excite_diffusion::kind().as_bytes();
    let at = fits.windows(kind.len()).position(|bytes| bytes == kind).unwrap();
    let mut foreign = others.clone();
    foreign[at..at + kind.len()].fill(b'x');
    let rendered = run.complete(&|| false, |_| ()).unwrap();
    let want = rendered[0].picture.to_png_of(&specs[0]).unwrap();
    let cut = fits[..fits.len() / 2].to_vec();
    // Step by step: what is saved, and the steps that are left of four.
    for (index, saved, left) in [
        (0, vec![(2, fits.clone())], 2),
        (1, vec![(2, fits.clone()), (3, cut.clone())], 2),
        (2, vec![(1, others.clone()), (2, foreign), (3, cut)], 4),
        (3, vec![], 4),
    ] {
        let mut job = setting.job_of(index, specs[0].clone());
        job.lease = 2;
        job.checkpoint = Some(keys::checkpoint(job.id, 2, 1));
        for (step, bytes) in saved {
            setting.put(&keys::checkpoint(job.id, step, 1), bytes).await;
        }
        setting.submit(&job).await;
        let (worker, metrics) = work_measured(&setting, None, 1);
        let (_, success) = setting.success().await;
        assert!(setting.get(&success.key).await.unwrap() == want, "job {index} has other bytes");
        assert_eq!(metrics.steps.get(), left, "job {index}");
        worker.stop().await;
        let kept = setting.keys(&keys::checkpoints(job.id)).await;
        assert!(kept.is_empty(), "job {index}: {kept:?}");
    }
}
