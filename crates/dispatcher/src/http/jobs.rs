//! `/v1/batches/{id}/jobs`: what was concluded, in that order, and what is stored of each job.

use std::str::FromStr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use excite_jobs::api::{JobPage, JobView};
use excite_jobs::{Batch, Done, JobId, State as JobState, keys};
use serde::Deserialize;
use tracing::warn;

use super::App;
use super::extract::{Asked, OfBatch, OfJob, limit_of, text};
use super::problem::Fault;
use crate::header as batch_header;

/// Conclusions that one request looks through at most: with a filter, few of them may fit.
const LOOKED_AT_MAX: usize = 100_000;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct JobsQuery {
    state: Option<JobState>,
    after: Option<String>,
    limit: Option<usize>,
}

/// Behind a conclusion: the part's key without what all keys have in common, and the line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
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

pub(super) async fn list(
    State(app): State<Arc<App>>,
    OfBatch(id): OfBatch,
    Asked(query): Asked<JobsQuery>,
) -> Result<Json<JobPage>, Fault> {
    let limit = limit_of(query.limit)?;
    let after = query.after.as_deref().map(str::parse).transpose()?;
    let found = batch_header::load(&*app.ports.store, id).await?;
    let (batch, _) = found.ok_or_else(|| Fault::missing(format!("batch {id}")))?;
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
    async fn dones(
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

    async fn job_view(&self, batch: &Batch, done: Done) -> Result<JobView, Fault> {
        let lines = self.manifests.lines(batch, done.index).await?;
        let at = lines.partition_point(|line| line.first <= done.index).checked_sub(1);
        let found = at.and_then(|at| Some((&lines[at], lines[at].spec_at(done.index)?)));
        let (line, spec) = found.ok_or_else(|| Fault::missing(format!("job {}", done.index)))?;
        Ok(JobView {
            id: JobId::new(batch.id, done.index),
            index: done.index,
            line: line.line,
            custom_id: line.custom_id.clone(),
            labels: line.labels.clone(),
            prompt: spec.prompt,
            seed: spec.seed,
            method: spec.method.name().to_string(),
            state: done.state,
            attempt: done.attempt,
            worker: done.worker,
            at: done.at,
            success: done.success,
            failure: done.failure,
            dead: done.dead,
        })
    }
}

pub(super) async fn file(
    State(app): State<Arc<App>>,
    OfJob(job, what): OfJob,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let (key, kind) = match what.as_str() {
        "image" => (keys::image(job), "image/png"),
        "sidecar" => (keys::sidecar(job), "application/json"),
        "attention" => (keys::attention(job), "image/png"),
        "trace" => (keys::trace(job), "application/octet-stream"),
        _ => return Err(Fault::missing(format!("`{what}` of a job"))),
    };
    let missing = || Fault::missing(format!("{what} of job {job}"));
    let object = app.ports.store.get(&key).await?.ok_or_else(missing)?;
    let etag = format!("\"{}\"", object.etag.0.trim_matches('"'));
    // What is stored never changes.
    let cache = "private, max-age=31536000, immutable";
    let head = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::ETAG, etag.clone()),
        (header::CACHE_CONTROL, cache.to_owned()),
    ];
    if text(&headers, "if-none-match")?.is_some_and(|known| known == etag) {
        return Ok((StatusCode::NOT_MODIFIED, head).into_response());
    }
    Ok((head, object.body).into_response())
}
