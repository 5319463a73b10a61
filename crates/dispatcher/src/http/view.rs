//! A batch as it is shown: its header, and how far it is.

use excite_jobs::api::{BatchState, BatchView};
use excite_jobs::{Batch, BatchId, Summary, Tally, keys};
use time::OffsetDateTime;

use super::App;
use super::problem::Fault;
use crate::header;

/// When a batch ended, and its sums.
type Standing = (Option<OffsetDateTime>, Option<Tally>);

impl App {
    /// A batch that is asked for by its id.
    pub(super) async fn batch(&self, id: BatchId) -> Result<Batch, Fault> {
        let found = header::load(&*self.ports.store, id).await?;
        found.map(|(batch, _)| batch).ok_or_else(|| Fault::missing(format!("batch {id}")))
    }

    /// A batch that is asked for by its id, as it is now.
    pub(super) async fn looked_at(&self, id: BatchId) -> Result<BatchView, Fault> {
        // Side by side: a page asks for this all the time, of a store that is busy.
        let (batch, standing) = tokio::join!(self.batch(id), self.standing(id));
        self.composed(batch?, standing?).await
    }

    /// A batch as it is now.
    pub(super) async fn view(&self, batch: Batch) -> Result<BatchView, Fault> {
        let standing = self.standing(batch.id).await?;
        self.composed(batch, standing).await
    }

    /// When a batch ended, if it did, and its sums.
    async fn standing(&self, id: BatchId) -> Result<Standing, Fault> {
        let key = keys::summary(id);
        let summary = header::document::<Summary>(&*self.ports.store, &key);
        let (summary, progress) = tokio::join!(summary, self.ports.progress.batch(id));
        Ok(match summary? {
            Some((summary, _)) => (Some(summary.finished_at), Some(summary.tally)),
            // A mirror that is gone leaves the page without sums, nothing more.
            None => (None, progress.ok().flatten().map(|progress| progress.tally)),
        })
    }

    async fn composed(
        &self,
        batch: Batch,
        (finished_at, tally): Standing,
    ) -> Result<BatchView, Fault> {
        let state = match (batch.cancelled, finished_at, batch.paused) {
            (true, ..) => BatchState::Cancelled,
            (false, Some(_), _) => BatchState::Finished,
            (false, None, true) => BatchState::Paused,
            (false, None, false) => BatchState::Active,
        };
        let gpu_seconds_left = self.seconds_left(&batch, state, tally.as_ref()).await;
        Ok(BatchView {
            id: batch.id,
            name: batch.name,
            revision: batch.revision,
            state,
            created_at: batch.created_at,
            finished_at,
            lines: batch.lines,
            jobs: batch.jobs,
            model: batch.model,
            class: batch.class,
            lane: batch.lane,
            weight: batch.weight,
            compare: batch.compare,
            attention: batch.outputs.attention,
            trace: batch.outputs.trace,
            parent: batch.parent,
            warnings: batch.warnings,
            tally,
            gpu_seconds_left,
        })
    }

    async fn seconds_left(
        &self,
        batch: &Batch,
        state: BatchState,
        tally: Option<&Tally>,
    ) -> Option<f64> {
        if matches!(state, BatchState::Finished | BatchState::Cancelled) {
            return Some(0.);
        }
        let all = self.estimates.get().await.seconds(&batch.model, &batch.work)?;
        let jobs = u64::from(batch.jobs);
        let open = jobs.saturating_sub(tally?.terminal());
        Some(all * open as f64 / jobs.max(1) as f64)
    }
}
