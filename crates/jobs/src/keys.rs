//! Every key in the store and every name in the broker, in one place.

use uuid::Uuid;

use crate::id::{BatchId, JobId, UploadId};
use crate::job::Lane;
use crate::retry::Rung;

/// In front of every name in the broker. The number is raised when a queue must be declared
/// otherwise: a queue cannot be changed, but another one can be made beside it.
pub const BROKER_PREFIX: &str = "excite.v1";

/// A batch's header and commit mark: a batch is there if this is.
pub fn batch(batch: BatchId) -> String {
    format!("batches/{batch}/batch.json")
}

/// Everything of a batch.
pub fn batch_prefix(batch: BatchId) -> String {
    format!("batches/{batch}/")
}

/// Lines of a batch: gzipped NDJSON.
pub fn part(batch: BatchId, part: usize) -> String {
    format!("batches/{batch}/manifest/{part:05}.ndjson.gz")
}

/// The same lines, stored again by another upload with the same idempotency key, whose own batch
/// this is not.
pub fn adopted_part(batch: BatchId, from: BatchId, part: usize) -> String {
    format!("batches/{batch}/manifest/{from}-{part:05}.ndjson.gz")
}

/// How far the feeder is.
pub fn cursor(batch: BatchId) -> String {
    format!("batches/{batch}/cursor.json")
}

/// How a batch ended.
pub fn summary(batch: BatchId) -> String {
    format!("batches/{batch}/summary.json")
}

/// What was concluded of a batch.
pub fn done_prefix(batch: BatchId) -> String {
    format!("batches/{batch}/done/")
}

/// The `n`th piece of it that the dispatcher of an epoch wrote.
pub fn done(batch: BatchId, epoch: u64, n: u64) -> String {
    format!("batches/{batch}/done/{epoch:010}-{n:08}.ndjson")
}

/// A mark that a batch is not finished, so that a new dispatcher need not look at all batches.
pub fn active(batch: BatchId) -> String {
    format!("active/{batch}")
}

/// All such marks.
pub const ACTIVE_PREFIX: &str = "active/";
/// All batches.
pub const BATCHES_PREFIX: &str = "batches/";

/// An image.
pub fn image(job: JobId) -> String {
    format!("batches/{}/images/{:08}.png", job.batch, job.index)
}

/// What is known of an image, and its commit mark.
pub fn sidecar(job: JobId) -> String {
    format!("batches/{}/images/{:08}.json", job.batch, job.index)
}

/// A picture of the subjects' maps.
pub fn attention(job: JobId) -> String {
    format!("batches/{}/attention/{:08}.png", job.batch, job.index)
}

/// The image, small, for lists.
pub fn thumbnail(job: JobId) -> String {
    format!("batches/{}/thumbs/{:08}.jpg", job.batch, job.index)
}

/// What every step recorded.
pub fn trace(job: JobId) -> String {
    format!("batches/{}/traces/{:08}.safetensors", job.batch, job.index)
}

/// A mark that a worker begins a job that may have killed others.
pub fn suspect(job: JobId, n: u32) -> String {
    format!("suspects/{job}/{n}")
}

/// All such marks of a job.
pub fn suspects(job: JobId) -> String {
    format!("suspects/{job}/")
}

/// The state of a job after `step` steps, saved under a lease. Later steps list later.
pub fn checkpoint(job: JobId, step: u32, lease: u32) -> String {
    format!("checkpoints/{job}/{step:05}-{lease}.safetensors")
}

/// All states of a job.
pub fn checkpoints(job: JobId) -> String {
    format!("checkpoints/{job}/")
}

/// Where an image with this fingerprint is.
pub fn reuse(fingerprint: &str) -> String {
    format!("reuse/{fingerprint}.json")
}

/// Whose batch an idempotency key made; `hash` is the SHA-256 of the key.
pub fn idempotency(hash: &str) -> String {
    format!("idempotency/{hash}.json")
}

/// What an upload in parts is to become, and which parts have arrived.
pub fn upload(upload: UploadId) -> String {
    format!("uploads/{upload}/upload.json")
}

/// Everything of an upload.
pub fn upload_prefix(upload: UploadId) -> String {
    format!("uploads/{upload}/")
}

/// All parts of an upload.
pub fn upload_parts(upload: UploadId) -> String {
    format!("uploads/{upload}/parts/")
}

/// Part `n` of an upload as one request sent it; `sent` tells it from the same part sent again.
pub fn upload_part(upload: UploadId, n: u32, sent: Uuid) -> String {
    format!("uploads/{upload}/parts/{n:05}-{sent}")
}

/// All uploads.
pub const UPLOADS_PREFIX: &str = "uploads/";

/// Which dispatcher leads.
pub const LEADER: &str = "leader.json";
/// Measured seconds, for estimates.
pub const ESTIMATES: &str = "estimates.json";

/// What shows that the store can be used; gone a moment later.
pub fn probe(name: &str) -> String {
    format!("probe/{name}")
}

/// A model's current card.
pub fn model(name: &str) -> String {
    format!("models/{name}/model.json")
}

/// A model's card of one digest, for jobs that were accepted with it.
pub fn model_of(name: &str, digest: &str) -> String {
    format!("models/{name}/{digest}.json")
}

/// A file of a model, by its SHA-256.
pub fn model_file(name: &str, sha256: &str) -> String {
    format!("models/{name}/files/{sha256}")
}

/// All models.
pub const MODELS_PREFIX: &str = "models/";

/// The queue of a class and lane.
pub fn jobs_queue(class: &str, lane: Lane) -> String {
    format!("{BROKER_PREFIX}.jobs.{class}.{lane}")
}

/// The queue of a rung, and its exchange.
pub fn delay_queue(rung: Rung) -> String {
    format!("{BROKER_PREFIX}.delay.{rung}")
}

/// The exchange that routes jobs.
pub fn jobs_exchange() -> String {
    format!("{BROKER_PREFIX}.jobs")
}

/// Where outcomes, ticks and changes go.
pub fn control_queue() -> String {
    format!("{BROKER_PREFIX}.control")
}

/// Where the broker puts what it gave up: a queue and its exchange.
pub fn dead_queue() -> String {
    format!("{BROKER_PREFIX}.dead")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_an_upload_is_below_it_and_its_parts_are_apart() {
        let id = UploadId::new();
        let part = upload_part(id, 7, Uuid::now_v7());
        assert!(part.starts_with(&format!("{}00007-", upload_parts(id))), "{part}");
        assert!(!upload(id).starts_with(&upload_parts(id)));
        for key in [upload(id), upload_parts(id), part] {
            assert!(key.starts_with(&upload_prefix(id)), "{key}");
            assert!(key.starts_with(UPLOADS_PREFIX), "{key}");
        }
        assert_ne!(upload_part(id, 7, Uuid::now_v7()), upload_part(id, 7, Uuid::now_v7()));
    }
}
