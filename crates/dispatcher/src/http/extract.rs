//! What handlers take out of a request; whatever is wrong with it is a problem with a remedy.

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use excite_jobs::{BatchId, JobId, limits};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::problem::Fault;

/// The query, with unknown names refused.
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fault> {
        match Query::<T>::try_from_uri(&parts.uri) {
            Ok(Query(value)) => Ok(Self(value)),
            Err(error) => {
                let detail = format!("the query cannot be read: {}", error.body_text());
                Err(Fault::bad("bad_query", detail, "Mend or leave out what is named."))
            }
        }
    }
}

/// A JSON document as body.
pub(super) struct Document<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Document<T> {
    type Rejection = Fault;

    async fn from_request(request: Request, state: &S) -> Result<Self, Fault> {
        let bytes = Bytes::from_request(request, state).await.map_err(|error| {
            let (status, detail) = (error.status(), error.body_text());
            let code =
                if status == StatusCode::PAYLOAD_TOO_LARGE { "too_large" } else { "body_cut" };
            Fault::new(status, code, detail, "Send a smaller document, whole.")
        })?;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| {
            let detail = format!("the body cannot be read: {error}");
            Fault::refused("bad_body", detail, "Send a JSON object with the documented fields.")
        })
    }
}

/// A batch in the path.
pub(super) struct OfBatch(pub(super) BatchId);

impl<S: Send + Sync> FromRequestParts<S> for OfBatch {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(text) = path.map_err(|e| bad_id(e.body_text()))?;
        text.parse().map(Self).map_err(|e: excite_jobs::IdError| bad_id(e.to_string()))
    }
}

/// A job in the path.
pub(super) struct OfJob(pub(super) JobId);

impl<S: Send + Sync> FromRequestParts<S> for OfJob {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        let Path((batch, index)) = path.map_err(|e| bad_id(e.body_text()))?;
        job(&batch, &index).map(Self)
    }
}

/// A job in the path, and what is wanted of it.
pub(super) struct OfJobFile(pub(super) JobId, pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for OfJobFile {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let path = Path::<(String, String, String)>::from_request_parts(parts, state).await;
        let Path((batch, index, what)) = path.map_err(|e| bad_id(e.body_text()))?;
        Ok(Self(job(&batch, &index)?, what))
    }
}

fn job(batch: &str, index: &str) -> Result<JobId, Fault> {
    let batch: BatchId = batch.parse().map_err(|e: excite_jobs::IdError| bad_id(e.to_string()))?;
    let index = index.parse::<u32>().ok().filter(|index| *index < limits::JOBS_MAX);
    let index = index.ok_or_else(|| bad_id("the place of a job is a number".into()))?;
    Ok(JobId::new(batch, index))
}

fn bad_id(detail: String) -> Fault {
    Fault::bad("bad_id", detail, "Use the id as `excite batch list --json` shows it.")
}

/// A page of a list.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct PageQuery {
    pub(super) after: Option<String>,
    pub(super) limit: Option<usize>,
}

/// Entries of a page where nobody says otherwise.
const PAGE: usize = 50;
/// The most.
const PAGE_MAX: usize = 1000;

/// A number of entries.
pub(super) fn limit_of(limit: Option<usize>) -> Result<usize, Fault> {
    match limit.unwrap_or(PAGE) {
        limit @ 1..=PAGE_MAX => Ok(limit),
        limit => Err(Fault::bad(
            "bad_query",
            format!("`limit` is {limit}"),
            format!("Set `limit` to 1 to {PAGE_MAX}."),
        )),
    }
}

/// A header as text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Fault> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let remedy = "Use printable ASCII characters.";
    let wrong = |_| Fault::bad("bad_header", format!("the header `{name}` is no text"), remedy);
    value.to_str().map(Some).map_err(wrong)
}
