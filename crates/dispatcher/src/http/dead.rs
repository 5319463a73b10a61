//! `/v1/dead`: dead jobs by what they died of, and back to life.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use bytes::Bytes;
use excite_jobs::api::{DeadGroup, DeadList, ReplayRequest, Replayed};
use excite_jobs::queue::{Message, QueueName};
use excite_jobs::store::Condition;
use excite_jobs::{
    Batch, BatchId, Control, DeadReason, State as JobState, Summary, Tally, keys, limits,
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::App;
use super::extract::{Asked, Document};
use super::openapi::Problems;
use super::problem::Fault;
use crate::{done_log, header};

/// Batches that are looked through where none is named, the newest first.
const BATCHES_MAX: usize = 200;
/// Indices that a group lists.
const INDICES_MAX: usize = 20;

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DeadQuery {
    /// Only of this batch; otherwise of the newest 200.
    #[param(nullable = false)]
    batch: Option<BatchId>,
}

/// A dead job.
struct DeadJob {
    index: u32,
    reason: DeadReason,
    code: String,
    message: String,
}

/// Dead jobs by batch, reason and code.
#[utoipa::path(
    get,
    path = "/v1/dead",
    tag = "dead",
    operation_id = "listDead",
    params(DeadQuery),
    responses((status = 200, description = "Groups of them.", body = DeadList), Problems)
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Asked(query): Asked<DeadQuery>,
) -> Result<Json<DeadList>, Fault> {
    let ids = match query.batch {
        Some(id) => vec![id],
        None => app.batches.newest(None, BATCHES_MAX).await?,
    };
    let mut groups = Vec::new();
    for id in ids {
        let Some((batch, _)) = header::load(&*app.ports.store, id).await? else {
            match query.batch {
                Some(id) => return Err(Fault::no_batch(id)),
                None => continue,
            }
        };
        // A batch that is named is looked through even if nobody counted.
        if query.batch.is_none() && !app.may_have_dead(&batch).await? {
            continue;
        }
        groups.extend(grouped(id, app.dead(&batch).await?));
    }
    Ok(Json(DeadList { groups }))
}

/// Try dead jobs again.
#[utoipa::path(
    post,
    path = "/v1/dead/replay",
    tag = "dead",
    operation_id = "replayDead",
    request_body(
        content = ReplayRequest,
        example = json!({"batch": "0192d7a0-0000-7000-8000-000000000001", "reason": "attempts"})
    ),
    responses((status = 200, description = "How many.", body = Replayed), Problems)
)]
pub(super) async fn replay(
    State(app): State<Arc<App>>,
    Document(request): Document<ReplayRequest>,
) -> Result<Json<Replayed>, Fault> {
    let id = request.batch;
    let batch = app.batch(id).await?;
    if batch.cancelled {
        let detail = format!("batch {id} is cancelled");
        return Err(Fault::refused("batch_cancelled", detail, "Submit the jobs again."));
    }
    let wanted = |dead: &DeadJob| {
        request.reason.is_none_or(|reason| dead.reason == reason)
            && request.code.as_ref().is_none_or(|code| dead.code == *code)
            && request.indices.as_ref().is_none_or(|indices| indices.contains(&dead.index))
    };
    let dead = app.dead(&batch).await?;
    let indices: Vec<u32> = dead.iter().filter(|d| wanted(d)).map(|d| d.index).collect();
    if !indices.is_empty() {
        // It is not finished from now on, so that whoever watches waits; in this order, so that
        // a leader finds it should this process die here.
        let store = &app.ports.store;
        store.put(&keys::active(id), Bytes::new(), Condition::Always).await?;
        store.delete(&[keys::summary(id)]).await?;
    }
    for indices in indices.chunks(limits::REPLAY_INDICES_MAX) {
        let control = Control::Replay { batch: id, indices: indices.to_vec() };
        let message = Message {
            body: header::json(&control),
            kind: Control::TYPE.into(),
            traceparent: batch.traceparent.clone(),
            ..Message::default()
        };
        // Confirmed before it is answered; asked for twice, it is done once.
        app.ports.queue.publish(&QueueName::Control, message).await?;
    }
    Ok(Json(Replayed { jobs: indices.len() as u64 }))
}

impl App {
    async fn may_have_dead(&self, batch: &Batch) -> Result<bool, Fault> {
        let dead = |tally: &Tally| tally.of(JobState::Dead) > 0;
        let key = keys::summary(batch.id);
        if let Some((summary, _)) = header::document::<Summary>(&*self.ports.store, &key).await? {
            return Ok(dead(&summary.tally));
        }
        let progress = self.ports.progress.batch(batch.id).await.ok().flatten();
        Ok(progress.is_none_or(|progress| dead(&progress.tally)))
    }

    /// The dead jobs of a batch, by place.
    async fn dead(&self, batch: &Batch) -> Result<Vec<DeadJob>, Fault> {
        let store = &*self.ports.store;
        // Only the log as a whole says who is dead now.
        let reasons = done_log::fold(store, batch, None).await?.dead;
        let mut dead = BTreeMap::new();
        if reasons.is_empty() {
            return Ok(Vec::new());
        }
        done_log::read(store, batch.id, None, &mut |_, done| {
            let Some(reason) = reasons.get(&done.index).filter(|_| done.state == JobState::Dead)
            else {
                return;
            };
            let (code, message) = done.failure.map_or_else(
                || (reason.to_string(), String::new()),
                |failure| (failure.code, failure.message),
            );
            dead.insert(done.index, DeadJob { index: done.index, reason: *reason, code, message });
        })
        .await?;
        Ok(dead.into_values().collect())
    }
}

fn grouped(batch: BatchId, dead: Vec<DeadJob>) -> Vec<DeadGroup> {
    let mut groups: BTreeMap<(DeadReason, String), DeadGroup> = BTreeMap::new();
    for DeadJob { index, reason, code, message } in dead {
        let group = groups.entry((reason, code.clone())).or_insert_with(|| DeadGroup {
            batch,
            reason,
            code,
            example: message,
            jobs: 0,
            indices: Vec::new(),
        });
        group.jobs += 1;
        if group.indices.len() < INDICES_MAX {
            group.indices.push(index);
        }
    }
    groups.into_values().collect()
}
