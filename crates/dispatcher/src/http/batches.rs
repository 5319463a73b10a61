//! `/v1/batches`: submitted, listed, shown, changed, taken away.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use excite_jobs::api::{
    BatchChange, BatchOptions, BatchPage, BatchState, BatchView, Deletion, DryRun, Problem,
};
use excite_jobs::{BatchId, limits};
use futures::{StreamExt, stream};
use serde::Deserialize;
use tracing::warn;
use utoipa::{IntoParams, ToSchema};

use super::App;
use super::extract::{Asked, Document, OfBatch, PageQuery, length, limit_of, text};
use super::openapi::Problems;
use super::problem::Fault;
use crate::accept::{
    Accepted, BodyFault, Format, Matrix, Submission, announce, batch_name, is_traceparent, within,
};
use crate::{delete, header as batch_header};

/// Answer of `POST /v1/batches` with 200.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only described: each is sent as it is")]
enum Submitted {
    /// What it would be.
    DryRun(DryRun),
    /// What it is.
    Batch(BatchView),
}

/// Batches that are read for a page at a time.
const AT_A_TIME: usize = 16;

/// Submit a batch, or see what it would be with `dry_run`.
///
/// The body is lines, one job or more each: NDJSON (each line a `Line`), CSV (the first row names
/// the fields of a `Line`), one prompt a line, or a matrix of values. It may be compressed with
/// gzip. Under one `Idempotency-Key` the same request makes one batch, however often it is sent.
#[utoipa::path(
    post,
    path = "/v1/batches",
    tag = "batches",
    operation_id = "submitBatch",
    params(
        BatchOptions,
        ("idempotency-key" = Option<String>, Header, nullable = false, pattern = "^[!-~]{1,256}$"),
        ("traceparent" = Option<String>, Header, nullable = false, description = "Travels with the jobs (W3C Trace Context).")
    ),
    request_body(
        description = "Lines, or a matrix.",
        content(
            (String = "application/x-ndjson", example = "{\"prompt\": \"a cat and a frog\", \"seeds\": \"0..2\", \"custom_id\": \"pair\"}\n"),
            (String = "text/csv", example = "prompt,seed,custom_id\na cat and a frog,7,pair\n"),
            (String = "text/plain", example = "a cat and a frog\na dog and a red ball\n"),
            (Matrix = "application/json", example = json!({
                "mode": "product",
                "axes": {"prompt": ["a cat and a frog"], "seed": "0..2"},
                "defaults": {"steps": 8}
            })),
        )
    ),
    responses(
        (status = 200, description = "A dry run, or a batch that was accepted before.", body = Submitted),
        (status = 202, description = "Accepted.", body = BatchView, headers(("location" = String))),
        Problems
    )
)]
pub(super) async fn submit(
    State(app): State<Arc<App>>,
    Asked(options): Asked<BatchOptions>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let submission = submission(options, &headers)?;
    // What is too large need not come first.
    let max = limits::BATCH_BYTES_MAX;
    if length(&headers)?.is_some_and(|bytes| bytes > max) {
        return app.answer(Err(BodyFault::TooLarge { max }.into())).await;
    }
    let accepted = app.accept.accept(submission, body.into_data_stream()).await;
    app.answer(accepted.map_err(Fault::from)).await
}

/// What the headers say of a body.
pub(super) fn submission(options: BatchOptions, headers: &HeaderMap) -> Result<Submission, Fault> {
    let kind = text(headers, "content-type")?.unwrap_or_default();
    let format = Format::of(kind).ok_or_else(|| {
        let detail = format!("`{kind}` is no media type of a batch");
        let remedy = format!("Set `Content-Type` to {}.", Format::MEDIA_TYPES);
        Fault::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type", detail, remedy)
    })?;
    let gzip = match text(headers, "content-encoding")?.map(str::to_ascii_lowercase).as_deref() {
        None | Some("" | "identity") => false,
        Some("gzip" | "x-gzip") => true,
        Some(other) => {
            let detail = format!("`{other}` is no encoding that is read");
            let remedy = "Use gzip, or none.";
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(Fault::new(status, "content_encoding", detail, remedy));
        }
    };
    let key = text(headers, "idempotency-key")?.map(str::to_owned);
    let max = limits::IDEMPOTENCY_KEY_CHARS_MAX;
    if key.as_ref().is_some_and(|key| key.is_empty() || key.len() > max) {
        let detail = "the `Idempotency-Key` is empty or too long".to_owned();
        return Err(Fault::bad("idempotency_key", detail, format!("Use 1 to {max} characters.")));
    }
    // A wrong trace context is no reason to refuse a batch.
    let traceparent = text(headers, "traceparent").ok().flatten();
    let traceparent = traceparent.filter(|text| is_traceparent(text)).map(str::to_owned);
    Ok(Submission { options, format, gzip, key, traceparent })
}

/// Batches, the newest first.
#[utoipa::path(
    get,
    path = "/v1/batches",
    tag = "batches",
    operation_id = "listBatches",
    params(PageQuery),
    responses((status = 200, description = "A page.", body = BatchPage), Problems)
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Asked(page): Asked<PageQuery>,
) -> Result<Json<BatchPage>, Fault> {
    let limit = limit_of(page.limit)?;
    let mut before = page.after.map(|after| parse(&after)).transpose()?;
    let mut batches = Vec::new();
    loop {
        let ids = app.batches.newest(before, limit).await?;
        before = ids.last().copied();
        let more = ids.len() == limit;
        let mut views = stream::iter(ids).map(|id| app.shown(id)).buffered(AT_A_TIME);
        while let Some(view) = views.next().await {
            batches.extend(view?);
            if batches.len() == limit {
                let next = batches.last().map(|view: &BatchView| view.id.to_string());
                return Ok(Json(BatchPage { batches, next }));
            }
        }
        if !more {
            return Ok(Json(BatchPage { batches, next: None }));
        }
    }
}

fn parse(text: &str) -> Result<BatchId, Fault> {
    text.parse().map_err(|error: excite_jobs::IdError| {
        Fault::bad("bad_query", format!("`after`: {error}"), "Use `next` of the page before.")
    })
}

impl App {
    /// Counts what became of a submission, and answers it.
    pub(super) async fn answer(
        &self,
        accepted: Result<Accepted, Fault>,
    ) -> Result<Response, Fault> {
        let result = match &accepted {
            Ok(Accepted::DryRun(_)) => "dry_run",
            Ok(Accepted::New(_)) => "accepted",
            Ok(Accepted::Known(_)) => "known",
            Err(fault) if fault.status() >= 500 => "failed",
            Err(_) => "refused",
        };
        self.metrics.accepts.with_label_values(&[result]).inc();
        let (status, batch) = match accepted? {
            Accepted::DryRun(mut answer) => {
                let price = self.config.price_per_gpu_hour;
                answer.price = price.zip(answer.gpu_seconds).map(|(price, s)| price * s / 3600.);
                answer.currency = answer.price.map(|_| self.config.currency.clone());
                return Ok(Json(answer).into_response());
            }
            Accepted::New(batch) => (StatusCode::ACCEPTED, batch),
            Accepted::Known(batch) => (StatusCode::OK, batch),
        };
        self.batches.add(batch.id).await;
        let location = format!("/v1/batches/{}", batch.id);
        let view = self.view(batch).await?;
        Ok((status, [(header::LOCATION, location)], Json(view)).into_response())
    }

    /// A batch for the list; none for uploads under way and canaries.
    async fn shown(&self, id: BatchId) -> Result<Option<BatchView>, Fault> {
        match self.looks.of(id).await? {
            Some(look) if !look.batch.canary => Ok(Some(self.with_sums(&look).await)),
            _ => Ok(None),
        }
    }
}

/// A batch with its sums.
///
/// The sums are as they are now. What another dispatcher changed shows after two seconds at most.
#[utoipa::path(
    get,
    path = "/v1/batches/{id}",
    tag = "batches",
    operation_id = "showBatch",
    params(OfBatch),
    responses((status = 200, description = "The batch.", body = BatchView), Problems)
)]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    OfBatch(id): OfBatch,
) -> Result<Json<BatchView>, Fault> {
    Ok(Json(app.looked_at(id).await?))
}

/// Pause, weigh, rename or cancel a batch.
///
/// With `If-Match` only if nobody changed it meanwhile.
#[utoipa::path(
    patch,
    path = "/v1/batches/{id}",
    tag = "batches",
    operation_id = "changeBatch",
    params(
        OfBatch,
        ("if-match" = Option<String>, Header, nullable = false, description = "The batch's `revision`.")
    ),
    request_body(content = BatchChange, example = json!({"weight": 10})),
    responses(
        (status = 200, description = "As it is then.", body = BatchView),
        (status = 412, description = "Somebody changed it.", body = Problem, content_type = "application/problem+json"),
        Problems
    )
)]
pub(super) async fn change(
    State(app): State<Arc<App>>,
    OfBatch(id): OfBatch,
    headers: HeaderMap,
    Document(change): Document<BatchChange>,
) -> Result<Json<BatchView>, Fault> {
    if change == BatchChange::default() {
        let remedy = "Set `name`, `paused`, `weight` or `cancelled`.";
        return Err(Fault::refused("no_change", "nothing is to be changed".into(), remedy));
    }
    if let Some(weight) = change.weight {
        within("weight", weight, &limits::WEIGHT)?;
    }
    let name = change.name.as_deref().map(batch_name).transpose()?;
    if change.cancelled == Some(false) {
        let remedy = "Submit the jobs again.";
        let detail = "what was cancelled stays so".to_owned();
        return Err(Fault::refused("cancelled_stays", detail, remedy));
    }
    let known = text(&headers, "if-match")?.filter(|etag| *etag != "*");
    let known = known.map(|etag| etag.trim_matches('"').to_owned());
    let mut other = None;
    let changed = batch_header::change(&*app.ports.store, id, |batch| {
        let revision = batch.revision.to_string();
        other = known.as_ref().filter(|known| **known != revision).map(|_| revision);
        if other.is_some() {
            return false;
        }
        let before = (batch.name.clone(), batch.paused, batch.weight, batch.cancelled);
        batch.name = name.clone().or_else(|| batch.name.take());
        batch.paused = change.paused.unwrap_or(batch.paused);
        batch.weight = change.weight.unwrap_or(batch.weight);
        batch.cancelled |= change.cancelled == Some(true);
        before != (batch.name.clone(), batch.paused, batch.weight, batch.cancelled)
    });
    let changed = changed.await;
    // Also if it failed: what is kept here may be why.
    app.looks.forget(id);
    let changed = changed?;
    if let Some(revision) = other {
        let detail = format!("the batch is at revision {revision} now: somebody changed it");
        let remedy = "Look at it again, then change it.";
        return Err(Fault::new(
            StatusCode::PRECONDITION_FAILED,
            "changed_meanwhile",
            detail,
            remedy,
        ));
    }
    let batch = changed.ok_or_else(|| Fault::no_batch(id))?;
    if batch.cancelled && change.cancelled == Some(true) {
        // Only so that running jobs stop sooner: the leading dispatcher does it again.
        if let Err(error) = app.ports.progress.set_cancelled(id, true).await {
            warn!(batch = %id, %error, "workers learn later that it is cancelled");
        }
    }
    announce(&app.ports, id, batch.traceparent.clone());
    Ok(Json(app.view(batch).await?))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DeleteQuery {
    /// Only count.
    #[param(example = true)]
    dry_run: bool,
}

/// Delete a finished or cancelled batch with all that is stored of it, or count what would go.
#[utoipa::path(
    delete,
    path = "/v1/batches/{id}",
    tag = "batches",
    operation_id = "deleteBatch",
    params(OfBatch, DeleteQuery),
    responses((status = 200, description = "What went.", body = Deletion), Problems)
)]
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    OfBatch(id): OfBatch,
    Asked(query): Asked<DeleteQuery>,
) -> Result<Json<Deletion>, Fault> {
    let view = app.view(app.batch(id).await?).await?;
    if !matches!(view.state, BatchState::Finished | BatchState::Cancelled) {
        let detail = format!("batch {id} is {}", view.state);
        let remedy = format!("Wait, or stop it with `excite batch cancel {id}`.");
        return Err(Fault::new(StatusCode::CONFLICT, "batch_not_finished", detail, remedy));
    }
    if query.dry_run {
        return Ok(Json(delete::count(&*app.ports.store, id).await?));
    }
    let ports = app.ports.clone();
    // Goes on if the client does not wait.
    let deleting = tokio::spawn(async move { delete::delete(&ports, id).await });
    let deletion = deleting.await.map_err(|e| Fault::internal(e.to_string()))??;
    app.batches.remove(id).await;
    app.looks.forget(id);
    Ok(Json(deletion))
}
