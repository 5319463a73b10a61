//! The lines of batches, read part by part when jobs are published.
//!
//! A few decoded parts are kept, because the feeder walks through them and retries come back to
//! them. Not here: how parts are written (accept).

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use excite_jobs::store::{Store, StoreError};
use excite_jobs::{Batch, Job, Part, StoredLine, limits};
use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};

/// Decoded parts that are kept: of 10,000 lines and some 10 MB each.
const PARTS_KEPT: usize = 8;

/// Why lines cannot be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ManifestError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The part is not there, or not what the header promises.
    #[error("`{key}` is damaged: {message}; submit the batch again")]
    Damaged {
        /// The part, or the header.
        key: String,
        /// What is wrong.
        message: String,
    },
    /// The batch has no such job.
    #[error("the batch has no job {0}")]
    NoJob(u32),
}

impl ManifestError {
    /// Whether trying again later can help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_transient())
    }
}

/// Reads lines of batches.
pub struct Manifests {
    store: Arc<dyn Store>,
    /// Used last at the end. Held only to look up and to insert.
    kept: Mutex<Vec<(String, Arc<Vec<StoredLine>>)>>,
}

impl Manifests {
    /// Reads from `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, kept: Mutex::new(Vec::new()) }
    }

    /// The lines of the part that holds the job at `index`; all lines of a small batch.
    ///
    /// # Errors
    /// See [`ManifestError`].
    pub async fn lines(
        &self,
        batch: &Batch,
        index: u32,
    ) -> Result<Arc<Vec<StoredLine>>, ManifestError> {
        if index >= batch.jobs {
            return Err(ManifestError::NoJob(index));
        }
        if batch.parts.is_empty() {
            return Ok(Arc::new(batch.inline.clone()));
        }
        let part = batch.part_of(index).ok_or(ManifestError::NoJob(index))?;
        let part = &batch.parts[part];
        if let Some(lines) = self.kept(&part.key) {
            return Ok(lines);
        }
        let lines = Arc::new(self.read(part).await?);
        self.keep(&part.key, &lines);
        Ok(lines)
    }

    /// The first publication of the job at `index`.
    ///
    /// # Errors
    /// See [`ManifestError`].
    pub async fn job(&self, batch: &Batch, index: u32) -> Result<Job, ManifestError> {
        let job = if batch.parts.is_empty() {
            batch.job(&batch.inline, index)
        } else {
            batch.job(&self.lines(batch, index).await?, index)
        };
        job.ok_or(ManifestError::NoJob(index))
    }

    fn kept(&self, key: &str) -> Option<Arc<Vec<StoredLine>>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(kept, _)| kept == key)?;
        let entry = kept.remove(at);
        let lines = entry.1.clone();
        kept.push(entry);
        Some(lines)
    }

    fn keep(&self, key: &str, lines: &Arc<Vec<StoredLine>>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.iter().any(|(kept, _)| kept == key) {
            return;
        }
        if kept.len() >= PARTS_KEPT {
            kept.remove(0);
        }
        kept.push((key.to_owned(), lines.clone()));
    }

    async fn read(&self, part: &Part) -> Result<Vec<StoredLine>, ManifestError> {
        let damaged = |message: String| ManifestError::Damaged { key: part.key.clone(), message };
        let object = self.store.get(&part.key).await?;
        let object = object.ok_or_else(|| damaged("it is not there".into()))?;
        let part = part.clone();
        // Ten megabytes of JSON take longer than a task may keep its thread.
        let read = tokio::task::spawn_blocking(move || decode(&part, &object.body));
        let read = read.await.map_err(|_| damaged("reading it failed".into()))?;
        read.map_err(damaged)
    }
}

fn decode(part: &Part, body: &[u8]) -> Result<Vec<StoredLine>, String> {
    let sha256 = format!("{:x}", Sha256::digest(body));
    if sha256 != part.sha256 {
        return Err(format!("its SHA-256 is {sha256}, not {}", part.sha256));
    }
    let max = limits::PART_LINES_MAX as u64 * (limits::LINE_BYTES_MAX as u64 * 2);
    let mut text = String::new();
    let mut gzip = MultiGzDecoder::new(body).take(max);
    gzip.read_to_string(&mut text).map_err(|e| e.to_string())?;
    let lines = text.lines().map(serde_json::from_str).collect::<Result<Vec<StoredLine>, _>>();
    let lines = lines.map_err(|e| format!("a line cannot be read: {e}"))?;
    if lines.len() != part.lines as usize {
        return Err(format!("it has {} lines, not {}", lines.len(), part.lines));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use excite_jobs::store::Condition;
    use excite_jobs::store::directory::DirectoryStore;

    use super::*;

    fn part(key: &str, first: u32) -> (Part, Vec<u8>) {
        let line = serde_json::json!({"line": first / 2 + 1, "first": first, "seeds": "5..7",
            "spec": {"engine": 1, "guidance_scale": 7.5, "height": 128, "method": "none",
            "model": "emoji@0", "negative_prompt": "", "noise": "torch_cpu", "prompt": "a cat",
            "scheduler": "pndm", "seed": 0, "steps": 2, "subjects": [], "width": 128}});
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        writeln!(gzip, "{line}").unwrap();
        let body = gzip.finish().unwrap();
        let sha256 = format!("{:x}", Sha256::digest(&body));
        let bytes = body.len() as u64;
        (Part { key: key.into(), sha256, bytes, lines: 1, first, jobs: 2 }, body)
    }

    fn batch(parts: Vec<Part>) -> Batch {
        let header = serde_json::json!({"v": 1, "id": excite_jobs::BatchId::new(), "revision": 1,
            "tenant": "default", "created_at": "2026-01-02T03:04:05Z", "jobs": 2 * parts.len(),
            "lines": parts.len(), "parts": parts, "model": "emoji@0", "class": "default",
            "lane": "bulk", "max_attempts": 8, "weight": 1, "work": {"plain": 1., "guided": 0.},
            "body_sha256": ""});
        serde_json::from_value(header).unwrap()
    }

    #[tokio::test]
    async fn jobs_are_found_in_their_parts_and_damage_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(DirectoryStore::open(folder.path()).unwrap());
        let mut parts = Vec::new();
        for n in 0..12 {
            let (mut part, body) = part(&format!("p/{n}"), n * 2);
            if n == 10 {
                part.sha256 = "0".into();
            }
            if n != 11 {
                store.put(&part.key, body.into(), Condition::Always).await.unwrap();
            }
            parts.push(part);
        }
        let batch = batch(parts);
        let manifests = Manifests::new(store.clone());
        for index in (0..20).chain(0..20) {
            let job = manifests.job(&batch, index).await.unwrap();
            assert_eq!((job.index, job.spec.seed, job.lease), (index, 5 + index % 2, 1));
        }
        assert_eq!(manifests.kept.lock().unwrap().len(), PARTS_KEPT);
        store.delete(&["p/9".into()]).await.unwrap();
        assert!(manifests.job(&batch, 18).await.is_ok(), "it is kept");
        for (index, want) in [(20, "its SHA-256 is"), (22, "it is not there"), (24, "no job 24")] {
            let error = manifests.job(&batch, index).await.unwrap_err();
            assert!(error.to_string().contains(want), "{error}");
            assert!(!error.is_transient());
        }
    }
}
