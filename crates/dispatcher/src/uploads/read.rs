//! The parts of an upload as one body: each is fetched into a file when it is its turn, so that
//! memory does not grow with parts.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use excite_jobs::store::{Store, StoreError};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use tokio::fs::File;
use tokio_util::io::ReaderStream;

use super::{StoredPart, UploadError, Uploads};

/// How long a part may take to come from the store: less than whoever reads waits for a piece.
pub(super) const FETCH_MAX: Duration = Duration::from_secs(50);
/// Bytes of a piece, as the network brings them.
const PIECE_BYTES: usize = 64 << 10;

/// Why a body of parts ended early: the reader only knows that it did.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trouble(Arc<Mutex<Option<UploadError>>>);

impl Trouble {
    fn set(&self, error: UploadError) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    /// What it was, if anything.
    pub(crate) fn take(&self) -> Option<UploadError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Uploads {
    /// The bytes of parts in a row; what goes wrong is told to `trouble`.
    pub(crate) fn read(
        &self,
        parts: Vec<(u32, StoredPart)>,
        trouble: Trouble,
    ) -> impl Stream<Item = Result<Bytes, String>> + Send + use<> {
        let store = self.store.clone();
        let pieces = stream::iter(parts).then(move |(n, part)| open(store.clone(), n, part));
        pieces.try_flatten().map_err(move |error| {
            let text = error.to_string();
            trouble.set(error);
            text
        })
    }
}

/// A part's bytes.
async fn open(
    store: Arc<dyn Store>,
    n: u32,
    part: StoredPart,
) -> Result<impl Stream<Item = Result<Bytes, UploadError>> + Send, UploadError> {
    let disk = move |error: std::io::Error| UploadError::Disk { n, message: error.to_string() };
    // A folder, which only this user can look into.
    let folder = tempfile::tempdir().map_err(disk)?;
    let path = folder.path().join("part");
    fetch(&*store, n, &part, &path).await?;
    let file = File::open(&path).await.map_err(disk)?;
    let pieces = ReaderStream::with_capacity(file, PIECE_BYTES);
    Ok(pieces.map_err(move |error| {
        // The folder is there as long as the stream.
        let _ = &folder;
        disk(error)
    }))
}

async fn fetch(
    store: &dyn Store,
    n: u32,
    part: &StoredPart,
    path: &Path,
) -> Result<(), UploadError> {
    let found = tokio::time::timeout(FETCH_MAX, store.get_file(&part.key, path)).await;
    if !found.map_err(|_| UploadError::Slow(n))?? {
        return Err(UploadError::PartGone(n));
    }
    let bytes = tokio::fs::metadata(path).await.map(|metadata| metadata.len());
    if bytes.is_ok_and(|bytes| bytes == part.bytes) {
        return Ok(());
    }
    let (key, message) = (part.key.clone(), "it has another length".into());
    Err(StoreError::Damaged { key, message }.into())
}
