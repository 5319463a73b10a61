//! `/v1/batches/{id}/jobs/{index}`: all that is known of one job.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use excite_jobs::api::{JobDetail, JobEvent, JobEventKind, JobOutputs, JobRun};
use excite_jobs::progress::unpack;
use excite_jobs::{Batch, Done, JobId, Method, Reason, Sidecar, State as JobState, keys};
use tracing::warn;

use super::App;
use super::extract::OfJob;
use super::openapi::Problems;
use super::problem::Fault;

/// All that is known of a job: spec, timeline, scores step by step, maps, tries.
#[utoipa::path(
    get,
    path = "/v1/batches/{id}/jobs/{index}",
    tag = "jobs",
    operation_id = "showJob",
    params(OfJob),
    responses((status = 200, description = "The job.", body = JobDetail), Problems)
)]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    OfJob(job): OfJob,
) -> Result<Json<JobDetail>, Fault> {
    let batch = app.batch(job.batch).await?;
    let (line, spec) = app.line_at(&batch, job.index).await?;
    let index = app.indexes.of(&batch).await?;
    let history = app.indexes.history(&index, job.index).await?;
    let record = app.indexes.records(&index, &[job.index]).await?.remove(&job.index);
    let concluded = index.state(job.index).filter(|state| state.is_terminal());
    drop(index);
    let running = app.running(job).await;
    let state = match (concluded, batch.cancelled, &running) {
        (Some(state), ..) => state,
        (None, true, _) => JobState::Cancelled,
        (None, false, Some(_)) => JobState::Running,
        (None, false, None) => app.mirrored(job).await,
    };
    let record = record.filter(|record| record.state == state);
    let sidecar = if state == JobState::Succeeded { app.sidecar(job).await? } else { None };
    let guided = spec.method != Method::None && !spec.subjects.is_empty();
    let stored = state == JobState::Succeeded;
    let view = app.job_at(&batch, job.index, state, record).await?;
    let outputs = JobOutputs {
        image: stored,
        attention: stored && batch.outputs.attention && guided,
        trace: stored && batch.outputs.trace,
    };
    let timeline = timeline(&batch, &history);
    let (kind, curve, attention, tries) = match sidecar {
        Some(sidecar) => {
            (Some(sidecar.kind), sidecar.steps, Some(sidecar.attention), sidecar.tries)
        }
        None => (None, Vec::new(), None, Vec::new()),
    };
    Ok(Json(JobDetail {
        job: view,
        spec,
        accept: line.accept,
        kind,
        timeline,
        running,
        curve,
        measured_at_step: attention.as_ref().map(|attention| attention.measured_at_step),
        maps: attention.map(|attention| attention.maps).unwrap_or_default(),
        tries,
        outputs,
    }))
}

impl App {
    /// Where a job is, while it runs.
    async fn running(&self, job: JobId) -> Option<JobRun> {
        let workers = self.ports.progress.workers().await.unwrap_or_default();
        workers.into_iter().find_map(|beat| {
            let running = beat.jobs.into_iter().find(|running| running.job == job)?;
            Some(JobRun {
                worker: beat.worker,
                step: running.step,
                steps: running.steps,
                loss: running.loss,
                scores: running.scores,
            })
        })
    }

    /// What the mirror says of a job that is not concluded.
    async fn mirrored(&self, job: JobId) -> JobState {
        let states = self.ports.progress.states(job.batch).await.ok().flatten();
        states.map_or(JobState::Waiting, |states| unpack(&states, job.index))
    }

    async fn sidecar(&self, job: JobId) -> Result<Option<Sidecar>, Fault> {
        let key = keys::sidecar(job);
        let Some(object) = self.ports.store.get(&key).await? else { return Ok(None) };
        let read = serde_json::from_slice(&object.body);
        Ok(read.inspect_err(|error| warn!(key, %error, "a sidecar cannot be read")).ok())
    }
}

/// What was noted of a job. That it runs now is not among it.
fn timeline(batch: &Batch, history: &[Done]) -> Vec<JobEvent> {
    let event =
        |at, event| JobEvent { at, event, worker: None, step: None, attempt: None, message: None };
    let mut events = vec![event(batch.created_at, JobEventKind::Submitted)];
    for done in history {
        if let Some(run) = done.run {
            let resumed = run.from_step > 0;
            let kind = if resumed { JobEventKind::Resumed } else { JobEventKind::Started };
            events.push(JobEvent {
                worker: done.worker.clone(),
                step: resumed.then_some(run.from_step),
                ..event(run.started_at, kind)
            });
        }
        let kind = match (done.state, done.reason) {
            (JobState::Queued, Reason::Preempted) => JobEventKind::Preempted,
            (JobState::Queued, Reason::Replayed) => JobEventKind::Replayed,
            (JobState::Retrying, _) => JobEventKind::Retrying,
            (JobState::Succeeded, _) => JobEventKind::Stored,
            (JobState::Dead, _) => JobEventKind::Dead,
            (JobState::Cancelled, _) => JobEventKind::Cancelled,
            (JobState::Waiting | JobState::Queued | JobState::Running, _) => continue,
        };
        events.push(JobEvent {
            worker: done.worker.clone(),
            step: done.checkpoint.as_deref().and_then(steps_of),
            attempt: Some(done.attempt),
            message: done.failure.as_ref().map(|failure| failure.message.clone()),
            ..event(done.at, kind)
        });
    }
    events
}

/// Steps made, as the key of a checkpoint says.
fn steps_of(key: &str) -> Option<u32> {
    key.rsplit_once('/')?.1.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_checkpoints_tell_the_step() {
        let id: JobId = "0192d7a0-0000-7000-8000-000000000001-00000007".parse().unwrap();
        assert_eq!(steps_of(&keys::checkpoint(id, 31, 2)), Some(31));
        assert_eq!(steps_of("x"), None);
    }
}
