//! `/v1/uploads`: a batch that comes in parts: begun, filled, looked at, committed, taken away.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use excite_jobs::api::{BatchOptions, BatchView, UploadCommit, UploadPart, UploadView};
use excite_jobs::{UploadId, limits};
use tracing::{Instrument, warn};

use super::App;
use super::batches::submission;
use super::extract::{Asked, Document, OfUpload, OfUploadPart, length, text};
use super::openapi::Problems;
use super::problem::Fault;
use super::receive::receive;
use crate::accept::{AcceptError, Accepted};
use crate::uploads::{Trouble, Upload, UploadError};

/// How long the document of a commit may take to come: the commit itself has no such limit.
const DOCUMENT_MAX: Duration = Duration::from_secs(60);

/// Begin a batch that comes in parts, with the same query and headers as the batch in one piece.
///
/// What is not committed within a day is taken away. Under one `Idempotency-Key` the same request
/// begins one upload, so that a client that was cut off finds what has arrived.
#[utoipa::path(
    post,
    path = "/v1/uploads",
    tag = "uploads",
    operation_id = "beginUpload",
    params(
        BatchOptions,
        ("content-type" = String, Header, description = "Of the parts in a row.", example = "application/x-ndjson"),
        ("idempotency-key" = Option<String>, Header, nullable = false, pattern = "^[!-~]{1,256}$")
    ),
    responses(
        (status = 200, description = "It was begun before.", body = UploadView, headers(("location" = String))),
        (status = 201, description = "Begun.", body = UploadView, headers(("location" = String))),
        Problems
    )
)]
pub(super) async fn begin(
    State(app): State<Arc<App>>,
    Asked(options): Asked<BatchOptions>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    if options.dry_run {
        let detail = "`dry_run` is true, and an upload in parts is no dry run".to_owned();
        let remedy = "Leave `dry_run` out, or send the lines to /v1/batches?dry_run=true.";
        return Err(Fault::refused("dry_run", detail, remedy));
    }
    let submission = submission(options, &headers)?;
    app.accept.check(&submission.options).await?;
    let key = submission.key.clone();
    let (upload, new) = app.uploads.begin(Upload::new(submission), key.as_deref()).await?;
    let status = if new { StatusCode::CREATED } else { StatusCode::OK };
    let location = format!("/v1/uploads/{}", upload.id);
    Ok((status, [(header::LOCATION, location)], Json(upload.view())).into_response())
}

/// What has arrived of an upload, and its batch once it is committed.
#[utoipa::path(
    get,
    path = "/v1/uploads/{id}",
    tag = "uploads",
    operation_id = "showUpload",
    params(OfUpload),
    responses((status = 200, description = "As it is now.", body = UploadView), Problems)
)]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    OfUpload(id): OfUpload,
) -> Result<Json<UploadView>, Fault> {
    Ok(Json(app.uploads.load(id).await?.view()))
}

/// Take an upload away; a batch that was made of it stays.
#[utoipa::path(
    delete,
    path = "/v1/uploads/{id}",
    tag = "uploads",
    operation_id = "deleteUpload",
    params(OfUpload),
    responses((status = 204, description = "It is gone."), Problems)
)]
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    OfUpload(id): OfUpload,
) -> Result<StatusCode, Fault> {
    app.uploads.delete(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Send a part; lines may be split anywhere. Sent again, it replaces what was there.
#[utoipa::path(
    put,
    path = "/v1/uploads/{id}/parts/{n}",
    tag = "uploads",
    operation_id = "sendPart",
    params(
        OfUploadPart,
        (
            "content-digest" = Option<String>, Header, nullable = false,
            description = "Checked if it has a SHA-256 (RFC 9530).",
            pattern = "^sha-256=:[A-Za-z0-9+/]{43}=:$"
        )
    ),
    request_body(
        content = Vec<u8>,
        content_type = "application/octet-stream",
        example = "{\"prompt\": \"a cat and a frog\"}\n"
    ),
    responses((status = 200, description = "As it is stored.", body = UploadPart), Problems)
)]
pub(super) async fn put_part(
    State(app): State<Arc<App>>,
    OfUploadPart(id, n): OfUploadPart,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<UploadPart>, Fault> {
    let digest = content_digest(&headers)?;
    // What cannot be taken is not received first.
    app.uploads.load(id).await?.check(n, length(&headers)?.unwrap_or(0))?;
    let _turn = app.uploads.turn().await?;
    let received = receive(body, limits::UPLOAD_PART_BYTES_MAX, PART_REMEDY).await?;
    let sha256 = received.sha256.clone();
    if let Some(digest) = digest.filter(|digest| *digest != sha256) {
        let detail = format!("the part's SHA-256 is {sha256}, `Content-Digest` says {digest}");
        return Err(Fault::refused("digest", detail, "Send the part again."));
    }
    app.uploads.add_part(id, n, &received.path, received.bytes, &sha256).await?;
    Ok(Json(UploadPart { n, bytes: received.bytes, sha256 }))
}

/// Make a batch of the parts, as if they came in one body. Safe to repeat.
#[utoipa::path(
    post,
    path = "/v1/uploads/{id}/commit",
    tag = "uploads",
    operation_id = "commitUpload",
    params(OfUpload),
    request_body(content = UploadCommit, example = json!({"parts": 1})),
    responses(
        (status = 200, description = "It was committed before.", body = BatchView),
        (status = 202, description = "Accepted.", body = BatchView, headers(("location" = String))),
        Problems
    )
)]
pub(super) async fn commit(
    State(app): State<Arc<App>>,
    OfUpload(id): OfUpload,
    request: Request,
) -> Result<Response, Fault> {
    let document = Document::<UploadCommit>::from_request(request, &());
    let document = tokio::time::timeout(DOCUMENT_MAX, document).await;
    let late =
        |_| Fault::bad("body_cut", "the body did not come within a minute", "Send it again.");
    let Document(UploadCommit { parts }) = document.map_err(late)??;
    let max = limits::UPLOAD_PARTS_MAX;
    if !(1..=max).contains(&parts) {
        let remedy = format!("Set `parts` to the number of parts, 1 to {max}.");
        return Err(Fault::refused("out_of_range", format!("`parts` is {parts}"), remedy));
    }
    // Goes on if the client does not wait: then it asks again, and waits for the same.
    let committing = commit_parts(app, id, parts).in_current_span();
    tokio::spawn(committing).await.map_err(|e| Fault::internal(e.to_string()))?
}

/// Makes a batch of the parts as if they came in one body.
async fn commit_parts(app: Arc<App>, id: UploadId, count: u32) -> Result<Response, Fault> {
    let _turn = app.uploads.commit_turn(id).await;
    let upload = app.uploads.load(id).await?;
    if let Some(batch) = upload.batch {
        return app.answer(Ok(Accepted::Known(app.batch(batch).await?))).await;
    }
    let parts = upload.first_parts(count)?;
    let unreadable = || Fault::internal(format!("upload {id} is of a kind that is not known"));
    let submission = upload.submission().ok_or_else(unreadable)?;
    let trouble = Trouble::default();
    let body = app.uploads.read(parts, trouble.clone());
    let accepted = app.accept.accept(submission, body).await;
    let accepted = accepted.map_err(|error| match (trouble.take(), error) {
        // Why the body was cut.
        (Some(trouble), _) => trouble.into(),
        // Parts that were replaced meanwhile, or after a commit that died in between.
        (None, AcceptError::KeyReused { batch }) => {
            UploadError::Committed { upload: id, batch }.into()
        }
        (None, error) => Fault::from(error),
    });
    if let Ok(Accepted::New(batch) | Accepted::Known(batch)) = &accepted
        && let Err(error) = app.uploads.committed(id, batch.id).await
    {
        // The batch is there; whoever commits again finds it, and marks the upload.
        warn!(upload = %id, batch = %batch.id, %error, "a committed upload keeps its parts for now");
    }
    app.answer(accepted).await
}

/// The SHA-256 that the sender says (RFC 9530), in hexadecimal; none if other digests are sent.
fn content_digest(headers: &HeaderMap) -> Result<Option<String>, Fault> {
    let Some(sent) = text(headers, "content-digest")? else { return Ok(None) };
    let Some(member) = sent.split(',').find_map(|one| one.trim().strip_prefix("sha-256=")) else {
        return Ok(None);
    };
    let base64 = member.strip_prefix(':').and_then(|rest| rest.strip_suffix(':'));
    let bytes = base64.and_then(|base64| BASE64_STANDARD.decode(base64).ok());
    let Some(bytes) = bytes.filter(|bytes| bytes.len() == 32) else {
        let detail = "the `sha-256` of `Content-Digest` cannot be read";
        let remedy = "Write it as sha-256=:BASE64 of 32 bytes:, or leave it out.";
        return Err(Fault::bad("bad_digest", detail, remedy));
    };
    Ok(Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
}

/// What to do about a part that is too long.
const PART_REMEDY: &str = "Send it as several parts.";

impl From<UploadError> for Fault {
    fn from(error: UploadError) -> Self {
        let detail = error.to_string();
        let conflict =
            |code, detail: String, remedy| Self::new(StatusCode::CONFLICT, code, detail, remedy);
        let too_large = |detail: String, remedy| {
            Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail, remedy)
        };
        match error {
            UploadError::Missing(_) => {
                let remedy = "Begin a new one with POST /v1/uploads: what is not committed within \
                              a day is taken away.";
                Self::new(StatusCode::NOT_FOUND, "not_found", detail, remedy)
            }
            UploadError::Committed { .. } => {
                conflict("upload_committed", detail, "Begin a new upload for other lines.")
            }
            UploadError::KeyReused(_) => conflict(
                "idempotency_key_reused",
                detail,
                "Use a new `Idempotency-Key` for each upload.",
            ),
            UploadError::PartsMissing { .. } => {
                conflict("parts_missing", detail, "Send them, then commit again.")
            }
            UploadError::PartGone(_) => {
                conflict("part_replaced", detail, "Look at the upload, then commit again.")
            }
            UploadError::PartTooLarge => too_large(detail, PART_REMEDY),
            UploadError::TooLarge => too_large(detail, "Make several batches of it."),
            UploadError::Busy => {
                let remedy = "Try again in a moment, with fewer parts at a time.";
                Self::new(StatusCode::TOO_MANY_REQUESTS, "busy", detail, remedy)
            }
            UploadError::Slow(_) => Self::unavailable("store_unavailable", detail),
            UploadError::Disk { .. } => Self::unavailable("no_space", detail),
            UploadError::Store(error) => error.into(),
            UploadError::Header(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_digest_is_found_among_others() {
        let empty = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("content-digest", HeaderValue::from_str(value).unwrap());
            content_digest(&headers).map_err(|fault| fault.status())
        };
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".to_owned();
        assert_eq!(of(&format!("sha-256=:{empty}:")), Ok(Some(hex.clone())));
        assert_eq!(of(&format!("sha-512=:AAAA:, sha-256=:{empty}:")), Ok(Some(hex)));
        assert_eq!(of("sha-512=:AAAA:"), Ok(None));
        for wrong in [format!("sha-256={empty}"), "sha-256=:AAAA:".into(), "sha-256=:?:".into()] {
            assert_eq!(of(&wrong), Err(400), "{wrong}");
        }
    }
}
