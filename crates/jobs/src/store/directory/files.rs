//! The blocking half of the directory: files, locks, renames.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::super::{Condition, Etag, Head, Object, StoreError, check_key, new_file_in};

/// Files that locks are spread over. Two keys may share one; then they wait for each other.
const LOCKS: u64 = 256;
/// A lock is held while a file is compared and renamed; who holds it longer is stuck.
const LOCK_LIMIT: Duration = Duration::from_secs(30);
const LOCK_POLL: Duration = Duration::from_millis(2);
/// Another process may still write a temporary file that is younger.
const STALE: Duration = Duration::from_secs(24 * 3600);
/// A folder may go with its last object just before a file is renamed into it.
const RENAMES: u32 = 100;

#[derive(Debug, Clone)]
pub(super) struct Files {
    pub(super) root: PathBuf,
    pub(super) temporary: PathBuf,
    pub(super) locks: PathBuf,
}

impl Files {
    pub(super) fn put(
        &self,
        key: &str,
        body: &[u8],
        condition: &Condition,
    ) -> Result<Etag, StoreError> {
        // Before the lock: this may take long.
        let file = self.temporary_file(key, |file| file.write_all(body))?;
        let _lock = self.lock(key)?;
        let holds = match condition {
            Condition::Always => true,
            Condition::Absent => !self.path(key).is_file(),
            Condition::Unchanged(etag) => self.head(key)?.is_some_and(|head| head.etag == *etag),
        };
        if !holds {
            return Err(StoreError::Conflict(key.to_owned()));
        }
        self.rename(key, file)?;
        Ok(etag(&Sha256::digest(body)))
    }

    pub(super) fn get(&self, key: &str) -> Result<Option<Object>, StoreError> {
        let Some(mut file) = self.open(key)? else { return Ok(None) };
        let mut body = Vec::new();
        file.read_to_end(&mut body).map_err(|error| failure(key, &error))?;
        let etag = etag(&Sha256::digest(&body));
        Ok(Some(Object { body: Bytes::from(body), etag }))
    }

    pub(super) fn head(&self, key: &str) -> Result<Option<Head>, StoreError> {
        let Some(mut file) = self.open(key)? else { return Ok(None) };
        let mut hash = Sha256::new();
        let bytes = io::copy(&mut file, &mut hash).map_err(|error| failure(key, &error))?;
        Ok(Some(Head { bytes, etag: etag(&hash.finalize()) }))
    }

    pub(super) fn delete(&self, key: &str) -> Result<(), StoreError> {
        let path = self.path(key);
        let _lock = self.lock(key)?;
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if is_absent(&error) || path.is_dir() => return Ok(()),
            Err(error) => return Err(failure(key, &error)),
        }
        // Only empty folders can be removed; the first that is not ends it.
        for folder in path.ancestors().skip(1).take_while(|folder| *folder != self.root) {
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn put_file(&self, key: &str, path: &Path) -> Result<(), StoreError> {
        let damaged = |error: &io::Error| StoreError::Damaged {
            key: key.to_owned(),
            message: format!("cannot read `{}`: {error}", path.display()),
        };
        let mut source = File::open(path).map_err(|error| damaged(&error))?;
        let bytes = source.metadata().map_err(|error| damaged(&error))?.len();
        let mut copied = 0;
        let file = self.temporary_file(key, |file| {
            copied = io::copy(&mut source, file)?;
            Ok(())
        })?;
        if copied != bytes {
            let message = format!("`{}` changed while it was read", path.display());
            return Err(StoreError::Damaged { key: key.to_owned(), message });
        }
        let _lock = self.lock(key)?;
        self.rename(key, file)
    }

    pub(super) fn get_file(&self, key: &str, path: &Path) -> Result<bool, StoreError> {
        let Some(mut object) = self.open(key)? else { return Ok(false) };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut copy = || {
            let mut file = new_file_in(folder.unwrap_or(Path::new(".")))?;
            io::copy(&mut object, &mut file)?;
            file.as_file().sync_all()?;
            file.persist(path).map_err(|error| error.error)
        };
        copy().map(|_| true).map_err(|error| StoreError::Damaged {
            key: key.to_owned(),
            message: format!("cannot write `{}`: {error}", path.display()),
        })
    }

    /// Removes what processes left behind that died while they wrote. Best effort.
    pub(super) fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.temporary) else { return };
        for entry in entries.flatten() {
            let changed = entry.metadata().and_then(|metadata| metadata.modified());
            let age = changed.ok().and_then(|at| SystemTime::now().duration_since(at).ok());
            if age.is_some_and(|age| age > STALE)
                && let Err(error) = fs::remove_file(entry.path())
            {
                tracing::warn!(path = %entry.path().display(), %error, "cannot remove a stale file");
            }
        }
    }

    fn path(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    /// The object's file; none if there is none, or a folder in its place.
    fn open(&self, key: &str) -> Result<Option<File>, StoreError> {
        let path = self.path(key);
        match File::open(&path) {
            Ok(_) if path.is_dir() => Ok(None),
            Ok(file) => Ok(Some(file)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(failure(key, &error)),
        }
    }

    fn temporary_file(
        &self,
        key: &str,
        fill: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<NamedTempFile, StoreError> {
        let filled = || {
            let mut file = new_file_in(&self.temporary)?;
            fill(file.as_file_mut())?;
            file.as_file().sync_all()?;
            Ok(file)
        };
        filled().map_err(|error| failure(key, &error))
    }

    /// Puts a file in its place, and makes sure that it stays there when the power fails.
    fn rename(&self, key: &str, mut file: NamedTempFile) -> Result<(), StoreError> {
        check_key(key)?;
        let path = self.path(key);
        let folder = path.parent().unwrap_or(&self.root);
        for _ in 0..RENAMES {
            if let Err(error) = fs::create_dir_all(folder) {
                match error.kind() {
                    // Another writer took the folder away or made it, too.
                    ErrorKind::NotFound => continue,
                    _ => return Err(misplaced(key, &error)),
                }
            }
            match file.persist(&path) {
                Ok(_) => {
                    let synced = File::open(folder).and_then(|folder| folder.sync_all());
                    return synced.or_else(|error| match error.kind() {
                        // Gone with the object, which was deleted meanwhile.
                        ErrorKind::NotFound => Ok(()),
                        _ => Err(failure(key, &error)),
                    });
                }
                Err(error) if error.error.kind() == ErrorKind::NotFound => file = error.file,
                Err(error) => return Err(misplaced(key, &error.error)),
            }
        }
        Err(failure(key, &io::Error::other("its folder is taken away again and again")))
    }

    /// Held until it is dropped. Of one open file: threads and processes exclude each other alike.
    fn lock(&self, key: &str) -> Result<File, StoreError> {
        let name = format!("{:02x}", spread(key) % LOCKS);
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true);
        let file = options.open(self.locks.join(name)).map_err(|error| failure(key, &error))?;
        let end = Instant::now() + LOCK_LIMIT;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if Instant::now() < end => {
                    std::thread::sleep(LOCK_POLL);
                }
                Err(TryLockError::WouldBlock) => {
                    let message = "another process holds its lock".to_owned();
                    return Err(StoreError::Unavailable { key: key.to_owned(), message });
                }
                Err(TryLockError::Error(error)) => return Err(failure(key, &error)),
            }
        }
    }
}

/// The same in every process and version: the low bytes of a SHA-256.
fn spread(key: &str) -> u64 {
    Sha256::digest(key.as_bytes()).iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn etag(hash: &[u8]) -> Etag {
    Etag(hash.iter().map(|byte| format!("{byte:02x}")).collect())
}

pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// An object cannot lie below another one, nor where there is a folder.
fn misplaced(key: &str, error: &io::Error) -> StoreError {
    match error.kind() {
        ErrorKind::NotADirectory | ErrorKind::IsADirectory | ErrorKind::AlreadyExists => {
            StoreError::Key(key.to_owned())
        }
        _ => failure(key, error),
    }
}

fn failure(key: &str, error: &io::Error) -> StoreError {
    let (key, message) = (key.to_owned(), error.to_string());
    match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            StoreError::Denied { key, message }
        }
        _ => StoreError::Unavailable { key, message },
    }
}
