//! `/v1/models`: listed and pushed, file by file, card last.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use excite_jobs::api::ModelList;
use excite_jobs::{ModelCard, limits};
use futures::StreamExt;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use tracing::info;

use super::App;
use super::extract::Document;
use super::problem::Fault;
use crate::models::is_sha256;

/// How long the next piece of a file may take.
const PIECE_MAX: std::time::Duration = std::time::Duration::from_secs(60);

pub(super) async fn list(State(app): State<Arc<App>>) -> Result<Json<ModelList>, Fault> {
    Ok(Json(ModelList { models: app.models.list().await? }))
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Json<ModelCard>, Fault> {
    let card = app.models.card(&name).await?;
    let card = card.ok_or_else(|| Fault::missing(format!("model `{name}`")))?;
    Ok(Json((*card).clone()))
}

pub(super) async fn push(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Document(card): Document<ModelCard>,
) -> Result<Json<ModelCard>, Fault> {
    app.models.push(&name, &card).await?;
    info!(model = card.full_name(), class = card.class, "pushed");
    Ok(Json(card))
}

pub(super) async fn head_file(
    State(app): State<Arc<App>>,
    Path((name, sha256)): Path<(String, String)>,
) -> Result<Response, Fault> {
    check_names(&name, &sha256)?;
    let bytes = app.models.file(&name, &sha256).await?;
    let bytes = bytes.ok_or_else(|| Fault::missing(format!("file {sha256}")))?;
    Ok((StatusCode::OK, [(header::CONTENT_LENGTH, bytes)], Body::empty()).into_response())
}

pub(super) async fn put_file(
    State(app): State<Arc<App>>,
    Path((name, sha256)): Path<(String, String)>,
    body: Body,
) -> Result<StatusCode, Fault> {
    check_names(&name, &sha256)?;
    let cannot = |what: &str, e: std::io::Error| {
        Fault::unavailable("no_space", format!("the file cannot be {what}: {e}"))
    };
    let file = tempfile::NamedTempFile::new().map_err(|e| cannot("kept", e))?;
    let (file, path) = file.into_parts();
    let mut file = tokio::fs::File::from_std(file);
    let (mut hash, mut bytes) = (Sha256::new(), 0_u64);
    let mut body = body.into_data_stream();
    loop {
        let piece = match tokio::time::timeout(PIECE_MAX, body.next()).await {
            Ok(None) => break,
            Ok(Some(Ok(piece))) => piece,
            Ok(Some(Err(error))) => return Err(cut(&error.to_string())),
            Err(_) => return Err(cut("nothing came for a minute")),
        };
        bytes += piece.len() as u64;
        if bytes > limits::MODEL_FILE_BYTES_MAX {
            let detail = format!("more than {} bytes", limits::MODEL_FILE_BYTES_MAX);
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            return Err(Fault::new(status, "too_large", detail, "Use the model's f16 files."));
        }
        hash.update(&piece);
        file.write_all(&piece).await.map_err(|e| cannot("kept", e))?;
    }
    file.flush().await.map_err(|e| cannot("kept", e))?;
    let found = format!("{:x}", hash.finalize());
    if found != sha256 {
        let detail = format!("the file's SHA-256 is {found}, not {sha256}");
        return Err(Fault::refused("sha256", detail, "Send it again."));
    }
    app.models.put_file(&name, &sha256, &path).await?;
    Ok(StatusCode::CREATED)
}

fn cut(why: &str) -> Fault {
    Fault::bad("body_cut", format!("the upload ended before its end: {why}"), "Send it again.")
}

fn check_names(name: &str, sha256: &str) -> Result<(), Fault> {
    if !ModelCard::is_name(name) {
        let remedy = "Use letters, digits, `.`, `_` and `-`.";
        return Err(Fault::bad("model_name", "this cannot name a model", remedy));
    }
    if !is_sha256(sha256) {
        let remedy = "Use 64 hexadecimal digits in lower case.";
        return Err(Fault::bad("sha256", "this is no SHA-256", remedy));
    }
    Ok(())
}
