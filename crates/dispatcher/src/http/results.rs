//! A batch as a whole: its results as lines of JSON, its images as one ZIP file. Both are streamed,
//! so that their length costs no memory.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use excite_jobs::store::Store;
use excite_jobs::{Batch, JobId, Seeds, State as JobState, keys};
use futures::{StreamExt, stream};
use serde::Deserialize;
use tokio::sync::mpsc;
use tracing::warn;
use utoipa::IntoParams;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::App;
use super::extract::{Asked, OfBatch};
use super::openapi::Problems;
use super::problem::Fault;
use crate::header as batch_header;

/// Jobs that are looked up together.
const PAGE: usize = 500;
/// Images that are fetched ahead of the one that is sent.
const AHEAD: usize = 8;
/// Pieces on their way to the client.
const PIECES: usize = 16;
/// Bytes of a piece.
const PIECE_BYTES: usize = 64 << 10;

/// Every concluded job of a batch, a line of JSON each (`JobView`).
#[utoipa::path(
    get,
    path = "/v1/batches/{id}/results",
    tag = "batches",
    operation_id = "fetchResults",
    params(OfBatch),
    responses(
        (status = 200, description = "NDJSON.", body = String, content_type = "application/x-ndjson"),
        Problems
    )
)]
pub(super) async fn results(
    State(app): State<Arc<App>>,
    OfBatch(id): OfBatch,
) -> Result<Response, Fault> {
    let batch = app.batch(id).await?;
    let (send, receive) = mpsc::channel::<Sent>(PIECES);
    tokio::spawn(async move {
        if let Err(fault) = lines(&app, &batch, &send).await {
            warn!(batch = %batch.id, ?fault, "results were cut short");
            // The client sees that the answer has no proper end.
            let _ = send.send(Err(io::Error::other("results were cut short"))).await;
        }
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, streamed(receive)).into_response())
}

/// A piece of an answer; an error leaves it without its proper end.
type Sent = Result<Bytes, io::Error>;

/// A body that is sent as it is made.
fn streamed(pieces: mpsc::Receiver<Sent>) -> Body {
    let next = async |mut pieces: mpsc::Receiver<Sent>| Some((pieces.recv().await?, pieces));
    Body::from_stream(stream::unfold(pieces, next))
}

/// Sends each terminal job as it was concluded last, in the order of conclusion.
async fn lines(app: &App, batch: &Batch, send: &mpsc::Sender<Sent>) -> Result<(), Fault> {
    let mut after = None;
    loop {
        let (dones, next) = app.dones(batch, after, PAGE, |done| done.state.is_terminal()).await?;
        let mut piece = Vec::new();
        for done in dones {
            piece.extend(batch_header::json(&app.job_view(batch, done).await?));
            piece.push(b'\n');
        }
        if !piece.is_empty() && send.send(Ok(piece.into())).await.is_err() {
            return Ok(());
        }
        match next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ZipQuery {
    /// Which jobs; all if left out.
    #[param(example = "0..4,9", pattern = "^[0-9]{1,6}(,[0-9]{1,6})*$", nullable = false)]
    indices: Option<String>,
}

/// Images of a batch with their sidecars, as one ZIP file.
#[utoipa::path(
    get,
    path = "/v1/batches/{id}/images.zip",
    tag = "batches",
    operation_id = "fetchImages",
    params(OfBatch, ZipQuery),
    responses(
        (status = 200, description = "A ZIP file.", body = Vec<u8>, content_type = "application/zip"),
        Problems
    )
)]
pub(super) async fn images(
    State(app): State<Arc<App>>,
    OfBatch(id): OfBatch,
    Asked(query): Asked<ZipQuery>,
) -> Result<Response, Fault> {
    let batch = app.batch(id).await?;
    let wanted = query.indices.as_deref().map(indices).transpose()?;
    let index = app.indexes.of(&batch).await?;
    let stored = index.concluded().filter(|found| found.state == JobState::Succeeded);
    let jobs: BTreeSet<u32> = stored
        .map(|found| found.index)
        .filter(|job| wanted.as_ref().is_none_or(|wanted| wanted.contains(*job)))
        .collect();
    drop(index);
    if jobs.is_empty() {
        return Err(Fault::missing(format!("image of those in batch {id}")));
    }
    let mut named = Vec::with_capacity(jobs.len());
    let mut names = BTreeSet::new();
    for job in jobs {
        let (line, _) = app.line_at(&batch, job).await?;
        let own = line.custom_id.filter(|id| names.insert(id.clone()));
        named.push((JobId::new(id, job), own.unwrap_or_else(|| format!("{job:08}"))));
    }
    let (send, receive) = mpsc::channel::<Sent>(PIECES);
    let store = app.ports.store.clone();
    tokio::spawn(archive(store, named, send));
    let head = [
        (header::CONTENT_TYPE, "application/zip".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"excite-{id}.zip\"")),
    ];
    Ok((head, streamed(receive)).into_response())
}

fn indices(text: &str) -> Result<Seeds, Fault> {
    // They are written as seeds are.
    text.parse().map_err(|_| {
        let detail = "`indices` is no list of places".to_owned();
        Fault::bad("bad_query", detail, "Write 1,4,9 or 0..4,9.")
    })
}

/// Fetches images and their sidecars, and sends them as one file.
async fn archive(store: Arc<dyn Store>, jobs: Vec<(JobId, String)>, send: mpsc::Sender<Sent>) {
    let (put, mut entries) = mpsc::channel::<(String, Bytes)>(AHEAD);
    let failed = send.clone();
    let writing = tokio::task::spawn_blocking(move || {
        let mut zip = ZipWriter::new_stream(Pieces { send, piece: Vec::new() });
        // PNG and the rest are small as they are.
        let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        while let Some((name, body)) = entries.blocking_recv() {
            zip.start_file(name, stored)?;
            zip.write_all(&body)?;
        }
        zip.finish()?.into_inner().flush()?;
        Ok::<(), zip::result::ZipError>(())
    });
    let get = |(job, name): (JobId, String)| {
        let store = store.clone();
        async move {
            let image = store.get(&keys::image(job)).await;
            let sidecar = store.get(&keys::sidecar(job)).await;
            (name, image, sidecar)
        }
    };
    let mut fetched = stream::iter(jobs).map(get).buffered(AHEAD);
    let mut whole = true;
    'sending: while let Some((name, image, sidecar)) = fetched.next().await {
        for (end, object) in [("png", image), ("json", sidecar)] {
            match object {
                Ok(Some(object)) => {
                    if put.send((format!("{name}.{end}"), object.body)).await.is_err() {
                        break 'sending;
                    }
                }
                // Taken away meanwhile.
                Ok(None) => {}
                Err(error) => {
                    warn!(name, %error, "a download was cut short");
                    whole = false;
                    break 'sending;
                }
            }
        }
    }
    if !whole {
        // Without its end no program takes the file for a whole one.
        let _ = failed.send(Err(io::Error::other("the store failed"))).await;
    }
    drop(put);
    let _ = writing.await;
}

/// Writes into the body of an answer. Blocks: not for tasks.
struct Pieces {
    send: mpsc::Sender<Sent>,
    piece: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.piece);
        if piece.is_empty() {
            return Ok(());
        }
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "nobody reads any more");
        self.send.blocking_send(Ok(piece.into())).map_err(gone)
    }
}
