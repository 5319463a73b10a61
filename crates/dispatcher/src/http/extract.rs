//! What handlers take out of a request; whatever is wrong with it is a problem with a remedy.

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use excite_jobs::{BatchId, JobId, ModelCard, UploadId, limits};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Required, Schema};
use utoipa::{IntoParams, PartialSchema};

use super::DOCUMENT_BYTES_MAX;
use super::problem::Fault;
use crate::models::is_sha256;

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
            let status = error.status();
            if status == StatusCode::PAYLOAD_TOO_LARGE {
                let detail = format!("the body has more than {DOCUMENT_BYTES_MAX} bytes");
                return Fault::new(status, "too_large", detail, "Send a smaller document.");
            }
            Fault::new(status, "body_cut", error.body_text(), "Send the whole document.")
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

impl IntoParams for OfBatch {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![batch_in_path()]
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

impl IntoParams for OfJob {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![batch_in_path(), index_in_path()]
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

impl IntoParams for OfJobFile {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let names = ["image", "thumbnail", "sidecar", "attention", "trace"];
        let what = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names));
        let what = in_path("what", "Which of the files.", what.into(), json!("image"));
        vec![batch_in_path(), index_in_path(), what]
    }
}

/// A model or worker in the path.
pub(super) struct OfName(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for OfName {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(name) = path.map_err(|e| bad_name(e.body_text()))?;
        named(name).map(Self)
    }
}

impl IntoParams for OfName {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![name_in_path()]
    }
}

/// A model in the path, and the SHA-256 of one of its files.
pub(super) struct OfModelFile(pub(super) String, pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for OfModelFile {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        let Path((name, sha256)) = path.map_err(|e| bad_name(e.body_text()))?;
        if !is_sha256(&sha256) {
            let remedy = "Use 64 hexadecimal digits in lower case.";
            return Err(Fault::bad("sha256", "this is no SHA-256", remedy));
        }
        Ok(Self(named(name)?, sha256))
    }
}

impl IntoParams for OfModelFile {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let sha256 = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[0-9a-f]{64}$"));
        let example = json!("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        let sha256 = in_path("sha256", "Of the file.", sha256.into(), example);
        vec![name_in_path(), sha256]
    }
}

/// An upload in the path.
pub(super) struct OfUpload(pub(super) UploadId);

impl<S: Send + Sync> FromRequestParts<S> for OfUpload {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(id) = path.map_err(|e| bad_upload(e.body_text()))?;
        upload(&id).map(Self)
    }
}

impl IntoParams for OfUpload {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![upload_in_path()]
    }
}

/// An upload in the path, and the number of one of its parts.
pub(super) struct OfUploadPart(pub(super) UploadId, pub(super) u32);

impl<S: Send + Sync> FromRequestParts<S> for OfUploadPart {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        let Path((id, n)) = path.map_err(|e| bad_upload(e.body_text()))?;
        Ok(Self(upload(&id)?, part_number(&n)?))
    }
}

impl IntoParams for OfUploadPart {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let n = ObjectBuilder::new().schema_type(Type::Integer);
        let n = n.minimum(Some(1)).maximum(Some(limits::UPLOAD_PARTS_MAX));
        vec![upload_in_path(), in_path("n", "Number of the part.", n.into(), json!(1))]
    }
}

fn upload(text: &str) -> Result<UploadId, Fault> {
    text.parse().map_err(|e: excite_jobs::IdError| bad_upload(e.to_string()))
}

fn bad_upload(detail: String) -> Fault {
    Fault::bad("bad_id", detail, "Use the id as POST /v1/uploads gave it.")
}

fn part_number(text: &str) -> Result<u32, Fault> {
    let max = limits::UPLOAD_PARTS_MAX;
    let number = text.parse().ok().filter(|number| (1..=max).contains(number));
    number.ok_or_else(|| {
        let detail =
            format!("`{}` is no number of a part", text.chars().take(80).collect::<String>());
        Fault::bad("bad_part", detail, format!("Number parts from 1 to {max}."))
    })
}

fn upload_in_path() -> Parameter {
    let example = json!("0192d7a0-0000-7000-8000-000000000002");
    in_path("id", "The upload.", UploadId::schema(), example)
}

fn named(name: String) -> Result<String, Fault> {
    // Workers take their names from hosts, which are named as models are.
    if ModelCard::is_name(&name) {
        return Ok(name);
    }
    let name: String = name.chars().take(100).collect();
    Err(bad_name(format!("`{name}` names no model and no worker")))
}

fn bad_name(detail: String) -> Fault {
    Fault::bad("bad_name", detail, "Use letters, digits, `.`, `_` and `-`.")
}

fn batch_in_path() -> Parameter {
    let example = json!("0192d7a0-0000-7000-8000-000000000001");
    in_path("id", "The batch.", BatchId::schema(), example)
}

fn index_in_path() -> Parameter {
    let index = ObjectBuilder::new().schema_type(Type::Integer);
    let index = index.minimum(Some(0)).maximum(Some(limits::JOBS_MAX - 1));
    in_path("index", "Place of the job in the batch.", index.into(), json!(0))
}

fn name_in_path() -> Parameter {
    let name = ObjectBuilder::new().schema_type(Type::String);
    let name = name.pattern(Some("^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$"));
    in_path("name", "Its name.", name.into(), json!("emoji"))
}

fn in_path(name: &str, description: &str, schema: RefOr<Schema>, example: Value) -> Parameter {
    let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path);
    let parameter = parameter.required(Required::True).description(Some(description));
    parameter.schema(Some(schema)).example(Some(example)).build()
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
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// `next` of the page before.
    #[param(value_type = Option<BatchId>, nullable = false)]
    pub(super) after: Option<String>,
    /// Entries of the page, 50 if left out.
    #[param(minimum = 1, maximum = 1000, example = 10, nullable = false)]
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

/// Bytes that a body will have, if its sender says so.
pub(super) fn length(headers: &HeaderMap) -> Result<Option<u64>, Fault> {
    Ok(text(headers, "content-length")?.and_then(|length| length.parse().ok()))
}

/// A header as text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Fault> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let remedy = "Use printable ASCII characters.";
    let wrong = |_| Fault::bad("bad_header", format!("the header `{name}` is no text"), remedy);
    value.to_str().map(Some).map_err(wrong)
}
