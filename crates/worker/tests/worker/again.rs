//! What a job may cost or spare: further seeds until an image is good enough, and none at all where
//! an equal job was done before.

use bytes::Bytes;
use excite_diffusion::{Model, Outputs, Run, Search, Wanted, bundled};
use excite_jobs::{Accept, BatchId, Job, JobId, Reuse, Sidecar, Spec, keys};
use excite_worker::Metrics;

use crate::images::{specs, work_as, work_measured};
use crate::setting::{Running, Setting};

const SMALL: &str = r#"{"prompt": "a cat and a frog", "seeds": "8..10", "steps": 2,
    "width": 64, "height": 64, "method_params": {"max_iter_to_alter": 1, "thresholds": {}}}"#;

/// One step, where nothing but the copies matters.
const PLAIN: &str = r#"{"prompt": "a cat and a frog", "seed": 8, "steps": 1, "width": 64,
    "height": 64, "method": "none"}"#;

/// What the command line makes of a spec.
fn alone(model: &Model, spec: &Spec) -> Vec<u8> {
    let outputs = Outputs { latents: false, maps: true };
    let run = Run::start(model, std::slice::from_ref(spec), outputs).unwrap();
    run.complete(&|| false, |_| ()).unwrap()[0].picture.to_png_of(spec).unwrap()
}

async fn sidecar(setting: &Setting, job: &Job) -> Sidecar {
    let bytes = setting.get(&keys::sidecar(job.id)).await.unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_best_of_several_seeds_is_stored_with_all_that_were_tried() {
    let mut setting = Setting::new().await;
    let model = Model::load(&bundled()).unwrap();
    let specs = specs(&model, SMALL);
    let mut jobs: Vec<Job> =
        (0..).zip(&specs).map(|(i, spec)| setting.job_of(i, spec.clone())).collect();
    jobs[0].accept = Some(Accept { min_score: 1., max_seeds: 3 });
    jobs[1].accept = Some(Accept { min_score: 0., max_seeds: 3 });
    for job in &jobs {
        setting.submit(job).await;
    }
    let (worker, metrics) = work_measured(&setting, None, 2);
    for _ in &jobs {
        let (index, success) = setting.success().await;
        let sidecar = sidecar(&setting, &jobs[index as usize]).await;
        assert_eq!(success.tries as usize, sidecar.tries.len());
        assert_eq!(sidecar.tries.len(), if index == 0 { 3 } else { 1 });
        assert!(sidecar.is_of(&specs[index as usize], jobs[index as usize].accept));
        let best = sidecar.tries.iter().map(|one| one.score.unwrap()).reduce(f32::max);
        let kept = sidecar.tries.iter().find(|one| one.score == best).unwrap();
        assert_eq!(sidecar.spec, Spec { seed: kept.seed, ..specs[index as usize].clone() });
        assert_eq!(best, sidecar.attention.scores.iter().flatten().copied().reduce(f32::min));
        let png = setting.get(&success.key).await.unwrap();
        assert!(png == alone(&model, &sidecar.spec), "image {index} has other bytes");
    }
    // Three steps an image, and two first ones for seeds that were not kept.
    assert_eq!((metrics.steps.get(), metrics.steps_wasted.get()), (3 + 3 + 2, 0));
    worker.stop().await;
}

/// A state of a later try is further than one of an earlier try, whatever its step.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_goes_on_in_the_try_where_it_was() {
    let mut setting = Setting::new().await;
    let model = Model::load(&bundled()).unwrap();
    let spec = specs(&model, SMALL).remove(0);
    let accept = Some(Accept { min_score: 1., max_seeds: 2 });
    let wanted = [Wanted { spec: spec.clone(), accept }];
    let outputs = Outputs { latents: false, maps: true };
    let mut search = Search::start(&model, &wanted, outputs).unwrap();
    let mut saved = Vec::new();
    while search.next_round().unwrap() {
        while search.has_step() {
            search.step(&|| false).unwrap();
            saved.push(search.checkpoint(0).unwrap());
            search.judge().unwrap();
        }
        search.decode().unwrap();
    }
    let made = search.finish().remove(0).unwrap();
    let want = made.picture.to_png_of(&made.spec).unwrap();
    let mut job = setting.job_of(0, spec);
    (job.accept, job.lease) = (accept, 2);
    for state in &saved[..2] {
        let key = keys::checkpoint(job.id, state.steps_made() as u32, 1);
        setting.put(&key, state.to_bytes().unwrap()).await;
    }
    setting.submit(&job).await;
    let (worker, metrics) = work_measured(&setting, None, 1);
    let (_, success) = setting.success().await;
    assert!(setting.get(&success.key).await.unwrap() == want);
    assert_eq!((success.tries, sidecar(&setting, &job).await.tries), (2, made.tries.clone()));
    // The second try was one step in; if the first one was better, it is made again.
    let again = u64::from(made.tries[0].seed == made.spec.seed);
    assert_eq!((metrics.steps.get(), metrics.steps_wasted.get()), (2 + again, again));
    worker.stop().await;
    assert!(setting.keys(&keys::checkpoints(job.id)).await.is_empty());
}

/// A setting in which one job was done.
struct Done {
    setting: Setting,
    worker: Running,
    metrics: Metrics,
    first: Job,
    /// Its image.
    png: Bytes,
    /// Steps that were made.
    steps: u64,
}

impl Done {
    async fn new(edit: impl FnOnce(&mut Job)) -> Self {
        let mut setting = Setting::new().await;
        let model = Model::load(&bundled()).unwrap();
        let mut first = setting.job_of(0, specs(&model, PLAIN).remove(0));
        edit(&mut first);
        let (worker, metrics) = work_measured(&setting, None, 1);
        setting.submit(&first).await;
        let (_, success) = setting.success().await;
        let png = setting.get(&success.key).await.unwrap();
        let steps = metrics.steps.get();
        Self { setting, worker, metrics, first, png, steps }
    }

    /// The same job in a new batch; whether it was made again, and what it is.
    async fn again(&mut self, edit: impl FnOnce(&mut Job)) -> (bool, Job) {
        let mut job = self.first.clone();
        job.batch = BatchId::new();
        (job.index, job.id) = (5, JobId::new(job.batch, 5));
        edit(&mut job);
        self.setting.submit(&job).await;
        let (_, success) = self.setting.success().await;
        assert_eq!(success.key, keys::image(job.id));
        let steps = self.metrics.steps.get();
        let made = steps > self.steps;
        assert_eq!(success.found, !made);
        self.steps = steps;
        assert_eq!(sidecar(&self.setting, &job).await.sha256, success.sha256);
        let same = self.setting.get(&success.key).await.unwrap() == self.png;
        assert!(same || job.accept.is_some(), "other bytes");
        (made, job)
    }

    fn looked(&self, result: &str) -> u64 {
        self.worker.metrics.reuse.with_label_values(&[result]).get()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_equal_job_of_the_tenant_gets_a_copy_under_its_own_keys() {
    let mut done = Done::new(|job| job.outputs.trace = true).await;
    let (made, job) = done.again(|job| job.custom_id = Some("again".into())).await;
    assert!(!made);
    let copy = sidecar(&done.setting, &job).await;
    let source = sidecar(&done.setting, &done.first).await;
    assert_eq!(copy.custom_id.as_deref(), Some("again"));
    assert_eq!((&copy.spec, &copy.steps), (&source.spec, &source.steps));
    let trace = done.setting.get(&keys::trace(job.id)).await.unwrap();
    assert!(trace == done.setting.get(&keys::trace(done.first.id)).await.unwrap());

    assert!(done.again(|job| job.tenant = "other".into()).await.0, "another's is never used");
    assert!(done.again(|job| job.outputs.attention = true).await.0, "nobody has drawn it");
    assert!(!done.again(|job| job.outputs.attention = true).await.0, "now it is drawn");
    assert!(done.again(|job| job.lease = 2).await.0, "only a new job looks");
    assert!(done.again(|job| job.accept = Some(Accept { min_score: 1., max_seeds: 2 })).await.0);
    assert!(!done.again(|job| job.accept = Some(Accept { min_score: 1., max_seeds: 2 })).await.0);
    assert_eq!((done.looked("reused"), done.looked("missing"), done.looked("unusable")), (3, 3, 1));
    done.worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_gone_or_damaged_is_made_again() {
    let mut done = Done::new(|_| ()).await;
    let pointers = done.setting.keys("reuse/").await;
    let [pointer] = pointers.as_slice() else { panic!("{pointers:?}") };
    let source = done.first.clone();
    let (image, beside) = (keys::image(source.id), keys::sidecar(source.id));
    let (png, json) =
        (done.setting.get(&image).await.unwrap(), done.setting.get(&beside).await.unwrap());
    let body = done.setting.get(pointer).await.unwrap();
    let mut turned = png.to_vec();
    turned[60] ^= 1;
    let mut other: Sidecar = serde_json::from_slice(&json).unwrap();
    other.spec.seed += 1;
    let mut elsewhere: Reuse = serde_json::from_slice(&body).unwrap();
    elsewhere.job = JobId::new(BatchId::new(), 0);
    for (what, key, bytes) in [
        ("a damaged image", &image, turned),
        ("a sidecar of another image", &beside, serde_json::to_vec(&other).unwrap()),
        ("a sidecar that is cut", &beside, json[..9].to_vec()),
        ("a pointer to what is gone", pointer, serde_json::to_vec(&elsewhere).unwrap()),
        ("no pointer at all", pointer, b"?".to_vec()),
    ] {
        done.setting.put(key, bytes).await;
        assert!(done.again(|_| ()).await.0, "{what} was used");
        // What was made last would be found now.
        for (key, bytes) in [(&image, &png), (&beside, &json), (pointer, &body)] {
            done.setting.put(key, bytes.clone()).await;
        }
        assert!(!done.again(|_| ()).await.0, "{what}: it is all well again");
    }
    assert_eq!((done.looked("unusable"), done.looked("reused")), (5, 5));
    done.worker.stop().await;
    // A worker that is told not to look.
    let config = excite_worker::Config { reuse: false, ..Default::default() };
    (done.worker, done.metrics) = work_as(&done.setting, None, config);
    done.steps = 0;
    assert!(done.again(|_| ()).await.0);
    assert_eq!(done.looked("missing"), 0);
    done.worker.stop().await;
}
