//! A batch as it is shown: its header, and how far it is.

use std::sync::Arc;

use excite_jobs::api::{BatchState, BatchView};
use excite_jobs::{Batch, BatchId, Tally};

use super::App;
use super::looks::Look;
use super::problem::Fault;
use crate::header;

impl App {
    /// A batch that is asked for by its id.
    pub(super) async fn batch(&self, id: BatchId) -> Result<Batch, Fault> {
        let found = header::load(&*self.ports.store, id).await?;
        found.map(|(batch, _)| batch).ok_or_else(|| Fault::no_batch(id))
    }

    /// A batch that is looked at: its sums as they are now, the rest as it was a moment ago.
    pub(super) async fn looked_at(&self, id: BatchId) -> Result<BatchView, Fault> {
        let (look, sums) = tokio::join!(self.looks.of(id), self.sums(id));
        let look = look?.ok_or_else(|| Fault::no_batch(id))?;
        Ok(self.composed(&look, sums).await)
    }

    /// A batch whose header is at hand, as it is now.
    pub(super) async fn view(&self, batch: Batch) -> Result<BatchView, Fault> {
        let (ended, sums) = tokio::join!(self.looks.ended(batch.id), self.sums(batch.id));
        let look = Look { batch: Arc::new(batch), ended: ended? };
        Ok(self.composed(&look, sums).await)
    }

    /// A look with the sums as they are now.
    pub(super) async fn with_sums(&self, look: &Look) -> BatchView {
        self.composed(look, self.sums(look.batch.id).await).await
    }

    /// The sums of the mirror. One that is gone leaves the page without sums, nothing more.
    async fn sums(&self, id: BatchId) -> Option<Tally> {
        Some(self.ports.progress.batch(id).await.ok()??.tally)
    }

    async fn composed(&self, look: &Look, sums: Option<Tally>) -> BatchView {
        let batch = &*look.batch;
        let finished_at = look.ended.as_ref().map(|summary| summary.finished_at);
        let tally = look.ended.as_ref().map(|summary| summary.tally.clone()).or(sums);
        let state = match (batch.cancelled, finished_at, batch.paused) {
            (true, ..) => BatchState::Cancelled,
            (false, Some(_), _) => BatchState::Finished,
            (false, None, true) => BatchState::Paused,
            (false, None, false) => BatchState::Active,
        };
        let gpu_seconds_left = self.seconds_left(batch, state, tally.as_ref()).await;
        BatchView {
            id: batch.id,
            name: batch.name.clone(),
            revision: batch.revision,
            state,
            created_at: batch.created_at,
            finished_at,
            lines: batch.lines,
            jobs: batch.jobs,
            model: batch.model.clone(),
            class: batch.class.clone(),
            lane: batch.lane,
            weight: batch.weight,
            compare: batch.compare,
            attention: batch.outputs.attention,
            trace: batch.outputs.trace,
            parent: batch.parent,
            warnings: batch.warnings.clone(),
            tally,
            gpu_seconds_left,
        }
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
