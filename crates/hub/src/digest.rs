//! The digests by which a file is known: SHA-256, and git's id for files kept in git itself.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};
use crate::snapshot::RemoteFile;

/// Bytes read at a time.
const BUFFER: usize = 1 << 20;

/// Both digests of a file, as its bytes come in.
#[derive(Debug)]
pub(crate) struct Hasher {
    sha256: Sha256,
    /// Only where the listing has nothing better: git's id is a SHA-1.
    blob: Option<Sha1>,
}

/// Both digests of a file, in hexadecimal.
#[derive(Debug)]
pub(crate) struct Digests {
    pub(crate) sha256: String,
    blob: Option<String>,
}

impl Hasher {
    pub(crate) fn new(file: &RemoteFile) -> Self {
        let blob = file.sha256.is_none().then(|| {
            let mut hasher = Sha1::new();
            hasher.update(format!("blob {}\0", file.bytes));
            hasher
        });
        Self { sha256: Sha256::new(), blob }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(blob) = &mut self.blob {
            blob.update(bytes);
        }
    }

    pub(crate) fn finish(&self) -> Digests {
        Digests {
            sha256: format!("{:x}", self.sha256.clone().finalize()),
            blob: self.blob.clone().map(|hasher| format!("{:x}", hasher.finalize())),
        }
    }
}

impl Digests {
    /// Whether these are the digests of the listing.
    ///
    /// # Errors
    /// If one is not, or the listing has none.
    pub(crate) fn check(&self, file: &RemoteFile) -> Result<()> {
        let (kind, expected, found) = match (&file.sha256, &file.blob, &self.blob) {
            (Some(expected), ..) => ("SHA-256", expected, &self.sha256),
            (None, Some(expected), Some(found)) => ("git id", expected, found),
            _ => return Err(Error::NoDigest { path: file.path.clone() }),
        };
        if expected.eq_ignore_ascii_case(found) {
            return Ok(());
        }
        Err(Error::Digest {
            path: file.path.clone(),
            kind,
            expected: expected.clone(),
            found: found.clone(),
        })
    }
}

/// Feeds what is left of an open file to `take`, a piece at a time.
///
/// # Errors
/// If it cannot be read, or `cancelled` says so.
pub(crate) fn read_all(
    file: &mut File,
    path: &Path,
    cancelled: &dyn Fn() -> bool,
    take: &mut dyn FnMut(&[u8]),
) -> Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        if cancelled() {
            return Err(Error::Cancelled);
        }
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => take(&buffer[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::io("read", path, e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gits_id_is_that_of_git() {
        // `printf hello | git hash-object --stdin`
        let git = "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0";
        let mut file =
            RemoteFile { path: "a".into(), bytes: 5, sha256: None, blob: Some(git.into()) };
        let mut hasher = Hasher::new(&file);
        hasher.update(b"hel");
        hasher.update(b"lo");
        hasher.finish().check(&file).unwrap();
        file.blob = None;
        assert!(matches!(hasher.finish().check(&file), Err(Error::NoDigest { .. })));
    }
}
