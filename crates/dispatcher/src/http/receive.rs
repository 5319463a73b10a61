//! A body of any size, received into a file: counted and hashed on its way, and there whole or not
//! at all.

use std::io;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::StatusCode;
use futures::StreamExt;
use sha2::{Digest, Sha256};
use tempfile::{NamedTempFile, TempPath};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

use super::problem::Fault;

/// How long the next piece of a body may take.
const PIECE_MAX: Duration = Duration::from_secs(60);
/// What is still read of a body that is too long: a sender that is in the middle of it would not see
/// the answer.
const REST_BYTES_MAX: usize = 64 << 20;

/// A body that has arrived whole.
pub(super) struct Received {
    /// Its file, taken away when this is dropped.
    pub(super) path: TempPath,
    /// Its length.
    pub(super) bytes: u64,
    /// Of its bytes, in hexadecimal.
    pub(super) sha256: String,
}

/// Receives a body of at most `max` bytes; `remedy` is for a longer one.
pub(super) async fn receive(body: Body, max: u64, remedy: &str) -> Result<Received, Fault> {
    let (file, path) = NamedTempFile::new().map_err(|e| not_kept(&e))?.into_parts();
    let mut file = File::from_std(file);
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
        if bytes > max {
            discard(body).await;
            let detail = format!("more than {max} bytes");
            return Err(Fault::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail, remedy));
        }
        hash.update(&piece);
        file.write_all(&piece).await.map_err(|e| not_kept(&e))?;
    }
    file.flush().await.map_err(|e| not_kept(&e))?;
    Ok(Received { path, bytes, sha256: format!("{:x}", hash.finalize()) })
}

/// Reads on, up to a bound.
async fn discard(mut body: BodyDataStream) {
    let mut rest = 0;
    while let Ok(Some(Ok(piece))) = tokio::time::timeout(PIECE_MAX, body.next()).await {
        rest += piece.len();
        if rest > REST_BYTES_MAX {
            return;
        }
    }
}

fn cut(why: &str) -> Fault {
    Fault::bad("body_cut", format!("the upload ended before its end: {why}"), "Send it again.")
}

fn not_kept(error: &io::Error) -> Fault {
    Fault::unavailable("no_space", format!("the file cannot be kept: {error}"))
}
