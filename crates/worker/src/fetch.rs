//! Fetches a model from the store into a directory that workers of one machine may share.
//!
//! A file gets its name only when its bytes are those that the card promises. Not here: loading.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use excite_jobs::limits::{MODEL_FILE_BYTES_MAX, MODEL_FILES_MAX};
use excite_jobs::store::{Store, StoreError};
use excite_jobs::{ModelCard, ModelFile, keys};
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tracing::info;

/// For a card, which is small.
const CARD_TIMEOUT: Duration = Duration::from_secs(60);
/// For one file of a model, at a few megabytes a second.
const FILE_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// Why a model cannot be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store did not answer.
    #[error("the store did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The card is not what it should be.
    #[error("its card is wrong: {0}; push the model again")]
    Card(String),
    /// A file has other bytes than the card says.
    #[error("`{file}` has other bytes than the card says: {message}")]
    Damaged {
        /// Which.
        file: String,
        /// What differs.
        message: String,
    },
    /// The directory cannot be written to.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// What.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
}

/// Fetches models.
pub(crate) struct Fetcher {
    dir: PathBuf,
    store: Arc<dyn Store>,
    runtime: Handle,
}

impl Fetcher {
    pub(crate) fn new(dir: PathBuf, store: Arc<dyn Store>, runtime: Handle) -> Self {
        Self { dir, store, runtime }
    }

    /// The folder of a model, fetched if it is not there; `None` if the store has no such model.
    /// Blocks, also while another process fetches the same.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub(crate) fn fetch(&self, name: &str, digest: &str) -> Result<Option<PathBuf>, FetchError> {
        let Some(card) = self.card(name, digest)? else { return Ok(None) };
        let folder = self.folder(name, digest);
        create(&folder)?;
        let _lock = self.lock(digest)?;
        for (path, expected) in &card.files {
            let target = folder.join(path);
            let there = fs::metadata(&target).is_ok_and(|found| found.len() == expected.bytes);
            if !there {
                self.file(name, path, expected, &target)?;
            }
        }
        info!(model = card.full_name(), "a model was fetched");
        Ok(Some(folder))
    }

    /// Takes the files away that are not what the card says; whether there were any. Blocks, as
    /// long as reading all of them takes.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub(crate) fn drop_damaged(&self, name: &str, digest: &str) -> Result<bool, FetchError> {
        let Some(card) = self.card(name, digest)? else { return Ok(false) };
        let _lock = self.lock(digest)?;
        let mut damaged = false;
        for (path, expected) in &card.files {
            let target = self.folder(name, digest).join(path);
            let whole = hash(&target).is_ok_and(|(_, found)| found == expected.sha256);
            if !whole {
                damaged = true;
                // One that cannot be taken away is told of by the next try.
                let _ = fs::remove_file(&target);
            }
        }
        Ok(damaged)
    }

    /// The lock goes with the process: one that is killed leaves none behind.
    fn lock(&self, digest: &str) -> Result<File, FetchError> {
        let lock = self.dir.join(format!("{digest}.lock"));
        let file = File::create(&lock).map_err(write(&lock))?;
        file.lock().map_err(write(&lock))?;
        Ok(file)
    }

    fn folder(&self, name: &str, digest: &str) -> PathBuf {
        self.dir.join(digest).join(name)
    }

    fn card(&self, name: &str, digest: &str) -> Result<Option<ModelCard>, FetchError> {
        let wrong = |message: String| FetchError::Card(message);
        if digest.len() != 64 || !digest.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(None);
        }
        let key = keys::model_of(name, digest);
        let found = self.wait(CARD_TIMEOUT, self.store.get(&key))?;
        let Some(found) = found else { return Ok(None) };
        let card: ModelCard =
            serde_json::from_slice(&found.body).map_err(|e| wrong(e.to_string()))?;
        if card.name != name || card.digest != digest {
            return Err(wrong(format!("it is that of `{}`", card.full_name())));
        }
        if card.files.len() > MODEL_FILES_MAX {
            return Err(wrong(format!("{} files are too many", card.files.len())));
        }
        for (path, file) in &card.files {
            let hash =
                file.sha256.len() == 64 && file.sha256.bytes().all(|b| b.is_ascii_hexdigit());
            if !ModelCard::is_path(path) || !hash || file.bytes > MODEL_FILE_BYTES_MAX {
                return Err(wrong(format!("its entry `{}` is no file", path.escape_debug())));
            }
        }
        if ModelCard::digest_of(&card.files) != digest {
            return Err(wrong("its files have another digest".into()));
        }
        Ok(Some(card))
    }

    fn file(
        &self,
        name: &str,
        path: &str,
        expected: &ModelFile,
        target: &Path,
    ) -> Result<(), FetchError> {
        if let Some(parent) = target.parent() {
            create(parent)?;
        }
        let part = target.with_extension("part");
        let damaged = |message: String| FetchError::Damaged { file: path.to_owned(), message };
        let key = keys::model_file(name, &expected.sha256);
        if !self.wait(FILE_TIMEOUT, self.store.get_file(&key, &part))? {
            return Err(damaged("the store does not have it".into()));
        }
        let (bytes, sha256) = hash(&part).map_err(write(&part))?;
        if (bytes, &sha256) != (expected.bytes, &expected.sha256) {
            // Nobody should find it and take it for the file.
            let _ = fs::remove_file(&part);
            return Err(damaged(format!("{bytes} bytes with SHA-256 {sha256}")));
        }
        fs::rename(&part, target).map_err(write(target))
    }

    fn wait<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, FetchError> {
        let answer = self.runtime.block_on(async { tokio::time::timeout(limit, call).await });
        Ok(answer.map_err(|_| FetchError::Timeout(limit))??)
    }
}

fn create(path: &Path) -> Result<(), FetchError> {
    fs::create_dir_all(path).map_err(write(path))
}

fn write(path: &Path) -> impl Fn(io::Error) -> FetchError {
    move |source| FetchError::Write { path: path.to_owned(), source }
}

fn hash(path: &Path) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let (mut hasher, mut buffer, mut bytes) = (Sha256::new(), vec![0u8; 1 << 20], 0);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((bytes, format!("{:x}", hasher.finalize())));
        }
        bytes += read as u64;
        hasher.update(&buffer[..read]);
    }
}
