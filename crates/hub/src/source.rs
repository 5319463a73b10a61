//! `source.json`: where a model folder comes from and what each of its files must be.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::digest::read_all;
use crate::error::{Error, Result};
use crate::fetch::Progress;
use crate::limits::JSON_BYTES_MAX;
use crate::part::write_atomically;
use crate::paths;
use crate::snapshot::{Snapshot, is_hex};

/// Name of the file in the model folder.
pub const SOURCE: &str = "source.json";

/// The only form there is so far.
const VERSION: u32 = 1;

/// Where a model folder comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    v: u32,
    /// `owner/name`.
    pub repository: String,
    /// As asked: a branch, a tag or a commit.
    pub revision: String,
    /// The commit that was fetched, in hexadecimal.
    pub commit: String,
    /// The licence's identifier, if the repository names one.
    pub licence: Option<String>,
    /// The files that were fetched, in order of path.
    pub files: Vec<SourceFile>,
}

/// A file that was fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceFile {
    /// Path from the folder, with `/`.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

/// A file that is not what was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Path from the folder, with `/`.
    pub path: String,
    /// What is wrong with it.
    pub damage: Damage,
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// It is not there.
    #[error("missing")]
    Missing,
    /// It is shorter or longer.
    #[error("{found} bytes, expected {expected}")]
    Size {
        /// Bytes fetched.
        expected: u64,
        /// Bytes there.
        found: u64,
    },
    /// It has other bytes.
    #[error("SHA-256 {found}, expected {expected}")]
    Digest {
        /// SHA-256 of the bytes fetched, in hexadecimal.
        expected: String,
        /// SHA-256 of the bytes there, in hexadecimal.
        found: String,
    },
    /// It cannot be read, or is no file.
    #[error("unreadable: {0}")]
    Unreadable(String),
}

impl Source {
    pub(crate) fn new(snapshot: &Snapshot, mut files: Vec<SourceFile>) -> Self {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files.dedup();
        Self {
            v: VERSION,
            repository: snapshot.repository.clone(),
            revision: snapshot.revision.clone(),
            commit: snapshot.commit.clone(),
            licence: snapshot.licence.clone(),
            files,
        }
    }

    /// With the other files that the folder already has of the same commit.
    pub(crate) fn beside(mut self, folder: &Path) -> Self {
        if let Ok(earlier) = Self::read(folder)
            && (&earlier.repository, &earlier.commit) == (&self.repository, &self.commit)
        {
            let new = |file: &SourceFile| self.files.iter().all(|other| other.path != file.path);
            let kept: Vec<SourceFile> = earlier.files.into_iter().filter(new).collect();
            self.files.extend(kept);
            self.files.sort_by(|a, b| a.path.cmp(&b.path));
        }
        self
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(SOURCE);
        let json = serde_json::to_string_pretty(self)
            .map_err(|e| Error::Source { path: path.clone(), message: e.to_string() })?;
        write_atomically(&path, format!("{json}\n").as_bytes())
    }

    /// Reads a folder's `source.json`.
    ///
    /// # Errors
    /// If there is none, or it is not what [`Hub::fetch`](crate::Hub::fetch) writes.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(SOURCE);
        let wrong = |message: String| Error::Source { path: path.clone(), message };
        let file = File::open(&path).map_err(|e| Error::io("read", &path, e))?;
        let mut bytes = Vec::new();
        file.take(JSON_BYTES_MAX)
            .read_to_end(&mut bytes)
            .map_err(|e| Error::io("read", &path, e))?;
        let source: Self = serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string()))?;
        if source.v != VERSION {
            return Err(wrong(format!("`v` is {}, and only {VERSION} is known", source.v)));
        }
        for file in &source.files {
            paths::check(&file.path)?;
            if !is_hex(&file.sha256, 64) {
                return Err(wrong(format!("`sha256` of `{}` is no SHA-256", file.path)));
            }
        }
        Ok(source)
    }

    /// Reads every file of a folder again, and gives those that are not what was fetched.
    ///
    /// # Errors
    /// If a path leaves the folder, or `cancelled` says so.
    pub fn verify(
        &self,
        folder: &Path,
        progress: &mut dyn FnMut(Progress<'_>),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<Mismatch>> {
        let total = self.files.iter().fold(0, |sum: u64, file| sum.saturating_add(file.bytes));
        let mut before: u64 = 0;
        let mut found = Vec::new();
        for (index, file) in self.files.iter().enumerate() {
            let mut report = |bytes: u64| {
                let (files, path) = (self.files.len(), file.path.as_str());
                let done = before.saturating_add(bytes);
                progress(Progress { index, files, path, bytes, done, total });
            };
            report(0);
            if let Some(damage) = file.damage(folder, cancelled, &mut report)? {
                found.push(Mismatch { path: file.path.clone(), damage });
            }
            before = before.saturating_add(file.bytes);
        }
        Ok(found)
    }
}

impl SourceFile {
    fn damage(
        &self,
        folder: &Path,
        cancelled: &dyn Fn() -> bool,
        report: &mut dyn FnMut(u64),
    ) -> Result<Option<Damage>> {
        let path = paths::join(folder, &self.path)?;
        let opened = File::open(&path).and_then(|file| Ok((file.metadata()?, file)));
        let (metadata, mut file) = match opened {
            Ok(opened) => opened,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Some(Damage::Missing)),
            Err(e) => return Ok(Some(Damage::Unreadable(e.to_string()))),
        };
        if !metadata.is_file() {
            return Ok(Some(Damage::Unreadable("it is no file".into())));
        }
        if metadata.len() != self.bytes {
            let (expected, found) = (self.bytes, metadata.len());
            return Ok(Some(Damage::Size { expected, found }));
        }
        let (mut hasher, mut bytes) = (Sha256::new(), 0);
        let read = read_all(&mut file, &path, cancelled, &mut |piece| {
            hasher.update(piece);
            bytes += piece.len() as u64;
            report(bytes);
        });
        match read {
            Err(Error::Io { source, .. }) => {
                return Ok(Some(Damage::Unreadable(source.to_string())));
            }
            read => read?,
        }
        let found = format!("{:x}", hasher.finalize());
        if found.eq_ignore_ascii_case(&self.sha256) {
            return Ok(None);
        }
        Ok(Some(Damage::Digest { expected: self.sha256.clone(), found }))
    }
}
