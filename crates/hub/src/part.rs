//! A file that is not complete yet: `path.part`, beside where it will be.
//!
//! What it holds is hashed when it is opened and as it grows. It takes its final name only when it
//! is on the disk and its digest is right.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::digest::{Digests, Hasher, read_all};
use crate::error::{Error, Result};
use crate::paths::PART;
use crate::snapshot::RemoteFile;

/// The part of a file that is there.
pub(crate) struct Part<'a> {
    wanted: &'a RemoteFile,
    path: PathBuf,
    file: File,
    hasher: Hasher,
    bytes: u64,
}

impl<'a> Part<'a> {
    /// Opens what an earlier fetch left of the file that is to be at `destination`, or begins it.
    ///
    /// # Errors
    /// If it cannot be opened or read, or `cancelled` says so.
    pub(crate) fn open(
        wanted: &'a RemoteFile,
        destination: &Path,
        cancelled: &dyn Fn() -> bool,
        hashed: &mut dyn FnMut(u64),
    ) -> Result<Self> {
        let mut path = destination.as_os_str().to_owned();
        path.push(PART);
        let path = PathBuf::from(path);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|e| Error::io("create", &path, e))?;
        let there = file.metadata().map_err(|e| Error::io("read", &path, e))?.len();
        let mut part = Self { wanted, path, file, hasher: Hasher::new(wanted), bytes: 0 };
        if there > wanted.bytes {
            part.restart()?;
        } else if there > 0 {
            let Self { file, path, hasher, bytes, .. } = &mut part;
            read_all(file, path, cancelled, &mut |piece| {
                hasher.update(piece);
                *bytes += piece.len() as u64;
                hashed(*bytes);
            })?;
        }
        Ok(part)
    }

    /// Bytes that are there.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn append(&mut self, piece: &[u8]) -> Result<()> {
        let found = self.bytes + piece.len() as u64;
        if found > self.wanted.bytes {
            let (path, expected) = (self.wanted.path.clone(), self.wanted.bytes);
            return Err(Error::Size { path, expected, found });
        }
        if let Err(e) = self.file.write_all(piece) {
            // Some of the piece may have been written; the hash has none of it.
            let _ = self.file.set_len(self.bytes);
            return Err(self.write_error(e));
        }
        self.hasher.update(piece);
        self.bytes = found;
        Ok(())
    }

    /// Throws away what is there.
    pub(crate) fn restart(&mut self) -> Result<()> {
        let path = &self.path;
        self.file.set_len(0).map_err(|e| Error::io("write", path, e))?;
        self.file.seek(SeekFrom::Start(0)).map_err(|e| Error::io("write", path, e))?;
        self.hasher = Hasher::new(self.wanted);
        self.bytes = 0;
        Ok(())
    }

    pub(crate) fn digests(&self) -> Digests {
        self.hasher.finish()
    }

    pub(crate) fn delete(self) -> Result<()> {
        std::fs::remove_file(&self.path).map_err(|e| Error::io("delete", &self.path, e))
    }

    /// Gives a complete file whose digest was found right its name.
    pub(crate) fn finish(self, destination: &Path) -> Result<()> {
        // The name must not survive a power cut that the bytes do not.
        self.file.sync_all().map_err(|e| self.write_error(e))?;
        std::fs::rename(&self.path, destination).map_err(|e| Error::io("rename", &self.path, e))?;
        sync_folder(destination);
        Ok(())
    }

    fn write_error(&self, e: std::io::Error) -> Error {
        match e.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                let missing = self.wanted.bytes - self.bytes;
                Error::DiskFull { path: self.path.clone(), missing }
            }
            _ => Error::io("write", &self.path, e),
        }
    }
}

/// Writes a small file as a whole or not at all.
///
/// # Errors
/// If it cannot be written.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(PART);
    let part = PathBuf::from(part);
    let write = || {
        let mut file = File::create(&part)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|e| match e.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            Error::DiskFull { path: part.clone(), missing: bytes.len() as u64 }
        }
        _ => Error::io("write", &part, e),
    })?;
    std::fs::rename(&part, path).map_err(|e| Error::io("rename", &part, e))?;
    sync_folder(path);
    Ok(())
}

/// Makes a new name last. Not every file system can, and the bytes are safe either way.
fn sync_folder(path: &Path) {
    if cfg!(unix)
        && let Some(folder) = path.parent()
    {
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
}
