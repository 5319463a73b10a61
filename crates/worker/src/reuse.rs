//! Results that were made before: an equal job of the same tenant is answered with a copy.
//!
//! Nothing depends on it: a pointer that is missing, damaged, or leads to what is gone costs an
//! image that is made again, never a job. Not here: what is equal (`excite_jobs::Job::fingerprint`).

use excite_jobs::store::{Condition, StoreError};
use excite_jobs::{Job, OutcomeKind, Reuse, Sidecar, Success, VERSION, keys};
use tracing::{info, warn};

use crate::finish::Finisher;
use crate::pipeline::{Encoded, sha256};

/// What came of looking for a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Looked {
    /// The job has a copy of it.
    Reused,
    /// There is none.
    Missing,
    /// What the pointer leads to is gone, damaged, of another image, or lacks what is wanted.
    Unusable,
    /// The store failed.
    Failed,
}

impl Looked {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Reused => "reused",
            Self::Missing => "missing",
            Self::Unusable => "unusable",
            Self::Failed => "failed",
        }
    }
}

/// Why there is nothing to copy.
#[derive(Debug, thiserror::Error)]
enum NoResult {
    #[error("there is none")]
    Missing,
    /// Its batch was deleted.
    #[error("`{0}` is gone")]
    Gone(String),
    #[error("`{key}` {what}")]
    Unusable { key: String, what: &'static str },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Finisher {
    /// Stores what was made for an equal job under this job's own keys; `None` if it is to be made.
    pub(crate) async fn reuse(&self, job: &Job) -> Option<OutcomeKind> {
        let kind = self.kind.as_deref()?;
        let key = keys::reuse(&job.fingerprint(kind).ok()?);
        let found = match self.result(job, kind, &key).await {
            Ok(found) => found,
            Err(error) => {
                let looked = match &error {
                    NoResult::Missing => Looked::Missing,
                    NoResult::Gone(_) | NoResult::Unusable { .. } => Looked::Unusable,
                    NoResult::Store(_) => Looked::Failed,
                };
                match error {
                    NoResult::Missing => {}
                    NoResult::Gone(key) => {
                        info!(key, "an earlier result is gone; it is made again")
                    }
                    error => warn!(%error, "an earlier result is not used; it is made again"),
                }
                self.metrics.looked(looked);
                return None;
            }
        };
        // From here on it is a result like any other.
        Some(match self.put(job, found).await {
            Ok(success) => {
                info!(key, "a result that was made before is used");
                self.metrics.looked(Looked::Reused);
                OutcomeKind::Succeeded(Success { found: true, ..success })
            }
            Err(failure) => {
                self.metrics.looked(Looked::Failed);
                OutcomeKind::Failed(failure)
            }
        })
    }

    /// Leaves a pointer to a result that was made here. If that fails, its like are made again.
    pub(crate) async fn remember(&self, job: &Job, sha256: String) {
        let Some(kind) = self.kind.as_deref() else { return };
        let Ok(fingerprint) = job.fingerprint(kind) else { return };
        let reuse = Reuse { v: VERSION, job: job.id, sha256 };
        let Ok(body) = serde_json::to_vec(&reuse) else { return };
        // The newest one is the last to be deleted with its batch.
        let key = keys::reuse(&fingerprint);
        let put = self.store.once().put(&key, body.into(), Condition::Always).await;
        if let Err(error) = put {
            warn!(%error, "a result will not be found by its like");
        }
    }

    /// The result that a pointer leads to, if it is what the job would make. Each call is made once:
    /// waiting for a store that fails would cost more than the image.
    async fn result(&self, job: &Job, kind: &str, key: &str) -> Result<Encoded, NoResult> {
        let store = self.store.once();
        let unusable = |key: &str, what| NoResult::Unusable { key: key.to_owned(), what };
        let read = async |key: String| match store.get(&key).await? {
            Some(object) => Ok(object.body),
            None => Err(NoResult::Gone(key)),
        };
        let pointer = store.get(key).await?.ok_or(NoResult::Missing)?;
        let reuse: Reuse = serde_json::from_slice(&pointer.body)
            .ok()
            .filter(|reuse: &Reuse| reuse.v == VERSION)
            .ok_or_else(|| unusable(key, "cannot be read"))?;
        let (image, beside) = (keys::image(reuse.job), keys::sidecar(reuse.job));
        let sidecar: Sidecar = serde_json::from_slice(&read(beside.clone()).await?)
            .map_err(|_| unusable(&beside, "cannot be read"))?;
        let is_of =
            sidecar.is_of(&job.spec, job.accept) && sidecar.kind == kind && !sidecar.adopted;
        if !is_of || sidecar.v != VERSION || sidecar.sha256 != reuse.sha256 {
            return Err(unusable(&beside, "belongs to another image"));
        }
        let png = read(image.clone()).await?;
        if sha256(&png) != reuse.sha256 {
            return Err(unusable(&image, "is damaged"));
        }
        let attention = match job.outputs.attention {
            // Without subjects there is nothing to draw.
            true if !job.spec.subjects.is_empty() => Some(read(keys::attention(reuse.job)).await?),
            _ => None,
        };
        let trace = match job.outputs.trace {
            true => Some(read(keys::trace(reuse.job)).await?),
            false => None,
        };
        Ok(Encoded {
            png: png.into(),
            sidecar: Sidecar {
                custom_id: job.custom_id.clone(),
                labels: job.labels.clone(),
                ..sidecar
            },
            attention: attention.map(Into::into),
            trace: trace.map(Into::into),
        })
    }
}
