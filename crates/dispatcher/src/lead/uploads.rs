//! Old uploads in parts: a page of them is swept now and then, beside the turns.

use std::sync::Arc;
use std::time::Duration;

use excite_jobs::limits::UPLOAD_SECONDS_MAX;
use time::OffsetDateTime;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::warn;

use super::leader::Leader;
use crate::uploads;

/// Between two sweeps.
const EVERY: Duration = Duration::from_secs(600);

/// Where the sweep is.
#[derive(Debug)]
pub(super) struct UploadSweep {
    begun: Instant,
    /// Up to here all were looked at; locked while a sweep runs.
    swept: Arc<Mutex<Option<String>>>,
}

impl UploadSweep {
    pub(super) fn new() -> Self {
        Self { begun: Instant::now(), swept: Arc::default() }
    }
}

impl Leader {
    /// Begins a sweep if it is time. Nothing waits for it, and it is well if another leader sweeps
    /// at the same time.
    pub(super) fn sweep_uploads(&mut self) {
        if self.uploads.begun.elapsed() < EVERY {
            return;
        }
        self.uploads.begun = Instant::now();
        // A sweep that still runs goes on; what is left comes next time.
        let Ok(mut swept) = self.uploads.swept.clone().try_lock_owned() else { return };
        let store = self.ports.store.clone();
        tokio::spawn(async move {
            // By their names, so a clock that is wrong by minutes does no harm.
            let until = OffsetDateTime::now_utc().unix_timestamp() - UPLOAD_SECONDS_MAX;
            if let Err(error) = uploads::sweep(&*store, until, &mut swept).await {
                warn!(%error, "the sweep of uploads was not finished");
            }
        });
    }
}
