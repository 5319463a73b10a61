//! `/v1/models`: listed and pushed, file by file, card last.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use excite_jobs::api::ModelList;
use excite_jobs::{ModelCard, limits};
use tracing::info;

use super::App;
use super::extract::{Document, OfModelFile, OfName};
use super::openapi::Problems;
use super::problem::Fault;
use super::receive::receive;

/// Models that jobs can name.
#[utoipa::path(
    get,
    path = "/v1/models",
    tag = "system",
    operation_id = "listModels",
    responses((status = 200, description = "Their current cards.", body = ModelList), Problems)
)]
pub(super) async fn list(State(app): State<Arc<App>>) -> Result<Json<ModelList>, Fault> {
    Ok(Json(ModelList { models: app.models.list().await? }))
}

/// The current card of a model.
#[utoipa::path(
    get,
    path = "/v1/models/{name}",
    tag = "system",
    operation_id = "showModel",
    params(OfName),
    responses((status = 200, description = "The card.", body = ModelCard), Problems)
)]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    OfName(name): OfName,
) -> Result<Json<ModelCard>, Fault> {
    let card = app.models.card(&name).await?;
    let card = card.ok_or_else(|| Fault::missing(format!("model `{name}`")))?;
    Ok(Json((*card).clone()))
}

/// Make a model current, once its files are there.
#[utoipa::path(
    put,
    path = "/v1/models/{name}",
    tag = "system",
    operation_id = "pushModel",
    params(OfName),
    request_body(content = ModelCard, example = json!({
        "v": 1,
        "name": "emoji",
        "digest": "adf23d0f774293eb3db99218d20273dacae538a9ea60ee24dd938778e2d6dca4",
        "class": "default",
        "bytes": 1000,
        "facts": {
            "name": "emoji@adf23d0f774293eb3db99218d20273dacae538a9ea60ee24dd938778e2d6dca4",
            "width": 128,
            "height": 128,
            "size_multiple": 8,
            "side_min": 64,
            "train_timesteps": 1000,
            "scheduler": "pndm",
            "prompt_only_tokens": false
        },
        "files": {
            "unet/config.json": {
                "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                "bytes": 0
            }
        }
    })),
    responses((status = 200, description = "The card.", body = ModelCard), Problems)
)]
pub(super) async fn push(
    State(app): State<Arc<App>>,
    OfName(name): OfName,
    Document(card): Document<ModelCard>,
) -> Result<Json<ModelCard>, Fault> {
    app.models.push(&name, &card).await?;
    info!(model = card.full_name(), class = card.class, "pushed");
    Ok(Json(card))
}

/// Whether a file of a model is there.
#[utoipa::path(
    head,
    path = "/v1/models/{name}/files/{sha256}",
    tag = "system",
    operation_id = "hasModelFile",
    params(OfModelFile),
    responses(
        (status = 200, description = "It is there.", headers(("content-length" = u64))),
        (status = "default", description = "It is not, or nobody knows: only a status.")
    )
)]
pub(super) async fn head_file(
    State(app): State<Arc<App>>,
    OfModelFile(name, sha256): OfModelFile,
) -> Result<Response, Fault> {
    let bytes = app.models.file(&name, &sha256).await?;
    let bytes = bytes.ok_or_else(|| Fault::missing(format!("file {sha256}")))?;
    Ok((StatusCode::OK, [(header::CONTENT_LENGTH, bytes)], Body::empty()).into_response())
}

/// Push a file of a model.
#[utoipa::path(
    put,
    path = "/v1/models/{name}/files/{sha256}",
    tag = "system",
    operation_id = "pushModelFile",
    params(OfModelFile),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 201, description = "It is stored."), Problems)
)]
pub(super) async fn put_file(
    State(app): State<Arc<App>>,
    OfModelFile(name, sha256): OfModelFile,
    body: Body,
) -> Result<StatusCode, Fault> {
    let remedy = "Use the model's f16 files.";
    let received = receive(body, limits::MODEL_FILE_BYTES_MAX, remedy).await?;
    if received.sha256 != sha256 {
        let detail = format!("the file's SHA-256 is {}, not {sha256}", received.sha256);
        return Err(Fault::refused("sha256", detail, "Send it again."));
    }
    app.models.put_file(&name, &sha256, &received.path).await?;
    Ok(StatusCode::CREATED)
}
