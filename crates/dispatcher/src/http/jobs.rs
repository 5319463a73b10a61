//! `/v1/batches/{id}/jobs`: what was concluded, in that order. Not here: lists in another order, or
//! with other jobs (`find`).

use std::str::FromStr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use excite_jobs::api::{JobPage, JobView};
use excite_jobs::{Batch, BatchId, Done, JobId, Spec, State as JobState, StoredLine, keys};
use serde::Deserialize;
use tracing::warn;
use utoipa::IntoParams;

use super::App;
use super::extract::{Asked, OfBatch, limit_of};
use super::find::{Sort, Wanted};
use super::openapi::Problems;
use super::problem::Fault;

/// Conclusions that one request looks through at most: with a filter, few of them may fit.
const LOOKED_AT_MAX: usize = 100_000;

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct JobsQuery {
    /// Only those.
    #[param(nullable = false)]
    state: Option<JobState>,
    /// Only those with this label, as `key:value`.
    #[param(example = "subject:cat", pattern = "^[^:]+:.*$", nullable = false)]
    label: Option<String>,
    /// Only those with this name.
    #[param(nullable = false)]
    custom_id: Option<String>,
    /// Only images whose weakest subject has at least this score.
    #[param(nullable = false)]
    min_score: Option<f32>,
    /// Only images whose weakest subject has at most this score.
    #[param(nullable = false)]
    max_score: Option<f32>,
    /// The order; each job comes once then.
    #[param(inline, nullable = false)]
    sort: Option<Sort>,
    /// `next` of the page before, with the same query.
    #[param(nullable = false)]
    after: Option<String>,
    /// Entries of the page, 50 if left out.
    #[param(minimum = 1, maximum = 1000, example = 10, nullable = false)]
    limit: Option<usize>,
}

impl JobsQuery {
    /// What of it only a sorted list can tell.
    fn wanted(&self) -> Result<Wanted, Fault> {
        let label = self.label.as_deref().map(|label| {
            label.split_once(':').map(|(key, value)| (key.to_owned(), value.to_owned())).ok_or_else(
                || Fault::bad("bad_query", format!("`label` is `{label}`"), "Write key:value."),
            )
        });
        Ok(Wanted {
            state: self.state,
            label: label.transpose()?,
            custom_id: self.custom_id.clone(),
            min_score: self.min_score,
            max_score: self.max_score,
        })
    }

    fn filters(&self) -> bool {
        let ranged = self.min_score.is_some() || self.max_score.is_some();
        ranged || self.label.is_some() || self.custom_id.is_some()
    }
}

/// Behind a conclusion: the part's key without what all keys have in common, and the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    part: String,
    line: usize,
}

impl FromStr for Place {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let plain = |part: &str| {
            part.len() <= 100
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
        };
        let parsed = || {
            let (part, line) = text.rsplit_once(':')?;
            let line = line.parse().ok()?;
            plain(part).then(|| Self { part: part.to_owned(), line })
        };
        parsed().ok_or_else(|| {
            let detail = "`after` is no place in the list".to_owned();
            Fault::bad("bad_query", detail, "Use `next` of the page before.")
        })
    }
}

/// Jobs of a batch.
///
/// Without `sort` and filters: what was concluded, in that order, where a job may come twice and
/// the later one counts. Otherwise each job once.
#[utoipa::path(
    get,
    path = "/v1/batches/{id}/jobs",
    tag = "jobs",
    operation_id = "listJobs",
    params(OfBatch, JobsQuery),
    responses((status = 200, description = "A page.", body = JobPage), Problems)
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    OfBatch(id): OfBatch,
    Asked(query): Asked<JobsQuery>,
) -> Result<Json<JobPage>, Fault> {
    let limit = limit_of(query.limit)?;
    let batch = app.batch(id).await?;
    let sort = query.sort.or_else(|| query.filters().then_some(Sort::Index));
    if let Some(sort) = sort {
        let after = query.after.as_deref().map(str::parse).transpose()?;
        return Ok(Json(app.find(&batch, &query.wanted()?, sort, after, limit).await?));
    }
    let after = query.after.as_deref().map(str::parse).transpose()?;
    let wanted = |done: &Done| match query.state {
        Some(state) => done.state == state,
        None => done.state.is_terminal(),
    };
    let (dones, next) = app.dones(&batch, after, limit, wanted).await?;
    let mut jobs = Vec::with_capacity(dones.len());
    for done in dones {
        jobs.push(app.job_view(&batch, done).await?);
    }
    Ok(Json(JobPage { jobs, next: next.map(|place| format!("{}:{}", place.part, place.line)) }))
}

impl App {
    /// Up to `limit` conclusions behind a place, and the place where the next page begins.
    pub(super) async fn dones(
        &self,
        batch: &Batch,
        after: Option<Place>,
        limit: usize,
        wanted: impl Fn(&Done) -> bool,
    ) -> Result<(Vec<Done>, Option<Place>), Fault> {
        let store = &*self.ports.store;
        let prefix = keys::done_prefix(batch.id);
        let mut dones = Vec::new();
        let mut looked_at = 0;
        // The part that was begun is read again, from its line on.
        let mut begun = after.clone();
        let mut last = after.map(|place| format!("{prefix}{}", place.part));
        loop {
            let keys = match &begun {
                Some(place) => vec![format!("{prefix}{}", place.part)],
                None => store.list(&prefix, last.as_deref(), false).await?.keys,
            };
            if keys.is_empty() {
                return Ok((dones, None));
            }
            for key in keys {
                let from = begun.take().map_or(0, |place| place.line);
                let part = key[prefix.len()..].to_owned();
                last = Some(key.clone());
                // Taken away meanwhile: the batch is being deleted.
                let Some(object) = store.get(&key).await? else { continue };
                let lines = object.body.split(|byte| *byte == b'\n');
                for (at, line) in lines.enumerate().skip(from).filter(|(_, l)| !l.is_empty()) {
                    looked_at += 1;
                    match serde_json::from_slice::<Done>(line) {
                        Ok(done) if wanted(&done) => dones.push(done),
                        Ok(_) => {}
                        Err(error) => warn!(key, %error, "a conclusion cannot be read, skipped"),
                    }
                    if dones.len() == limit || looked_at >= LOOKED_AT_MAX {
                        return Ok((dones, Some(Place { part, line: at + 1 })));
                    }
                }
            }
        }
    }

    /// A conclusion as lists show it.
    pub(super) async fn job_view(&self, batch: &Batch, done: Done) -> Result<JobView, Fault> {
        let (line, spec) = self.line_at(batch, done.index).await?;
        Ok(JobView {
            attempt: done.attempt,
            worker: done.worker,
            at: Some(done.at),
            success: done.success,
            failure: done.failure,
            dead: done.dead,
            ..view(batch.id, done.index, &line, spec, done.state)
        })
    }

    /// The line of a job, and its own spec.
    pub(super) async fn line_at(
        &self,
        batch: &Batch,
        index: u32,
    ) -> Result<(StoredLine, Spec), Fault> {
        let lines = self.manifests.lines(batch, index).await?;
        let at = lines.partition_point(|line| line.first <= index).checked_sub(1);
        let found = at.and_then(|at| Some((lines[at].clone(), lines[at].spec_at(index)?)));
        found.ok_or_else(|| Fault::missing(format!("job {index}")))
    }
}

/// A job of which nothing was concluded.
pub(super) fn view(
    batch: BatchId,
    index: u32,
    line: &StoredLine,
    spec: Spec,
    state: JobState,
) -> JobView {
    JobView {
        id: JobId::new(batch, index),
        index,
        line: line.line,
        custom_id: line.custom_id.clone(),
        labels: line.labels.clone(),
        prompt: spec.prompt,
        seed: spec.seed,
        method: spec.method.name().to_string(),
        state,
        attempt: 1,
        worker: None,
        at: None,
        compared_with: line.twin_of(index),
        success: None,
        failure: None,
        dead: None,
    }
}
