//! The data folder of `excite serve`: who has it, and what is where.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use crate::fault::{Fault, Status};
use crate::models;

/// A data folder that is this process's own.
#[derive(Debug)]
pub(super) struct Data {
    root: PathBuf,
    /// Held as long as the process lives.
    _lock: File,
}

impl Data {
    /// Opens the folder, and makes it if it is not there.
    ///
    /// # Errors
    /// If it cannot be made, or another process has it: two queues in memory would make every
    /// image twice.
    pub(super) fn open(named: Option<&Path>) -> Result<Self, Fault> {
        let root = match named {
            Some(named) => named.to_owned(),
            None => models::data_home()?.join("serve"),
        };
        fs::create_dir_all(&root).map_err(|e| Fault::io("make", &root, &e))?;
        let path = root.join("serve.lock");
        let lock = File::create(&path).map_err(|e| Fault::io("write", &path, &e))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { root, _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                let message = format!("another `excite serve` has {}", root.display());
                let remedy = "Use that one, stop it, or name another folder with --data.".into();
                Err(Fault::new(Status::Failed, "data_in_use", message, remedy))
            }
            Err(TryLockError::Error(error)) => Err(Fault::io("lock", &path, &error)),
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Where the store is.
    pub(super) fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    /// Where the worker unpacks models.
    pub(super) fn models(&self) -> PathBuf {
        self.root.join("models")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_one_process_s() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/folder");
        let first = Data::open(Some(&path)).unwrap();
        let second = Data::open(Some(&path)).unwrap_err();
        assert_eq!(second.code, "data_in_use");
        drop(first);
        assert!(Data::open(Some(&path)).is_ok());
    }
}
