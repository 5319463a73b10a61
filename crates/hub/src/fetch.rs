//! Brings files into a folder: resumed where they broke off, checked before they get their name.

use std::fs::{File, TryLockError};
use std::path::Path;

use crate::digest::{Hasher, read_all};
use crate::error::{Error, Result};
use crate::http::{Client, Failure};
use crate::hub::{Asked, Hub};
use crate::limits::FETCH_BYTES_MAX;
use crate::part::Part;
use crate::paths::{self, PART};
use crate::snapshot::{RemoteFile, Snapshot};
use crate::source::{SOURCE, Source, SourceFile};

/// File in the folder that is locked while a fetch is under way. It stays there: were it removed,
/// two fetches could each hold a lock on a file of that name.
const LOCK: &str = ".fetch.lock";
/// Bytes after which a broken connection counts as the first again.
const GOOD_PROGRESS: u64 = 1 << 20;

/// How far a fetch or a check has come. Bytes go back where a file has to begin anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// Index of the file, from 0.
    pub index: usize,
    /// Number of files.
    pub files: usize,
    /// Path of the file.
    pub path: &'a str,
    /// Bytes of the file that are there.
    pub bytes: u64,
    /// Bytes of all files that are there.
    pub done: u64,
    /// Bytes of all files together.
    pub total: u64,
}

impl Hub {
    /// Brings `files` of a snapshot into `folder`, and writes what they are to `source.json`.
    ///
    /// A file that is there and right is left alone; a `.part` of an earlier fetch is continued.
    /// `progress` is called for every piece, and `cancelled` between pieces.
    ///
    /// # Errors
    /// If a file cannot be fetched or is not what the listing says, the folder cannot be written,
    /// another fetch into it is under way, or `cancelled` says so. Files that are complete, and
    /// `.part` files except those with a wrong digest, stay for the next attempt.
    pub fn fetch(
        &self,
        snapshot: &Snapshot,
        files: &[RemoteFile],
        folder: &Path,
        progress: &mut dyn FnMut(Progress<'_>),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Source> {
        check(files)?;
        std::fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
        let _lock = lock(folder)?;
        let client = self.client();
        let total = files.iter().map(|file| file.bytes).sum();
        let mut before = 0;
        let mut fetched = Vec::with_capacity(files.len());
        for (index, file) in files.iter().enumerate() {
            let mut report = |bytes| {
                let (files, path) = (files.len(), file.path.as_str());
                progress(Progress { index, files, path, bytes, done: before + bytes, total });
            };
            report(0);
            let destination = paths::join(folder, &file.path)?;
            if let Some(parent) = destination.parent() {
                std::fs::create_dir_all(parent).map_err(|e| Error::io("create", parent, e))?;
            }
            let sha256 = match there(file, &destination, cancelled, &mut report)? {
                Some(sha256) => sha256,
                None => {
                    let repository = &snapshot.repository;
                    let asked = Asked {
                        url: self.address(snapshot, &file.path),
                        repository,
                        what: format!("`{}` of `{repository}`", file.path),
                        gated: snapshot.gated,
                    };
                    let transfer = Transfer { hub: self, client: &client, asked, file, cancelled };
                    transfer.run(&destination, &mut report)?
                }
            };
            before += file.bytes;
            fetched.push(SourceFile { path: file.path.clone(), bytes: file.bytes, sha256 });
        }
        let source = Source::new(snapshot, fetched).beside(folder);
        source.write(folder)?;
        Ok(source)
    }
}

/// What no server gets us to write.
fn check(files: &[RemoteFile]) -> Result<()> {
    let mut total: u64 = 0;
    for file in files {
        paths::check(&file.path)?;
        if [SOURCE, LOCK].contains(&file.path.as_str()) || file.path.ends_with(PART) {
            let reason = "this name is kept for fetches themselves";
            return Err(Error::UnsafePath { path: file.path.clone(), reason });
        }
        if file.sha256.is_none() && file.blob.is_none() {
            return Err(Error::NoDigest { path: file.path.clone() });
        }
        total = total.saturating_add(file.bytes);
    }
    if total > FETCH_BYTES_MAX {
        let what = "bytes of all files together";
        return Err(Error::TooMuch { what, found: total, max: FETCH_BYTES_MAX });
    }
    Ok(())
}

fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(LOCK);
    let file = File::create(&path).map_err(|e| Error::io("create", &path, e))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(Error::Busy { folder: folder.to_owned() }),
        // Some network file systems have no locks; the digests are checked all the same.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
    }
}

/// The SHA-256 of a file that is there already and is what the listing says.
fn there(
    file: &RemoteFile,
    destination: &Path,
    cancelled: &dyn Fn() -> bool,
    report: &mut dyn FnMut(u64),
) -> Result<Option<String>> {
    let Ok(mut open) = File::open(destination) else { return Ok(None) };
    let found = open.metadata().map_err(|e| Error::io("read", destination, e))?;
    if !found.is_file() || found.len() != file.bytes {
        return Ok(None);
    }
    let (mut hasher, mut bytes) = (Hasher::new(file), 0);
    read_all(&mut open, destination, cancelled, &mut |piece| {
        hasher.update(piece);
        bytes += piece.len() as u64;
        report(bytes);
    })?;
    let digests = hasher.finish();
    Ok(digests.check(file).is_ok().then_some(digests.sha256))
}

/// One file on its way.
struct Transfer<'a> {
    hub: &'a Hub,
    client: &'a Client,
    asked: Asked<'a>,
    file: &'a RemoteFile,
    cancelled: &'a dyn Fn() -> bool,
}

impl Transfer<'_> {
    /// Fetches what is missing, and gives its SHA-256.
    fn run(&self, destination: &Path, report: &mut dyn FnMut(u64)) -> Result<String> {
        let mut part = Part::open(self.file, destination, self.cancelled, report)?;
        let mut inherited = part.bytes() > 0;
        loop {
            self.complete(&mut part, report)?;
            let digests = part.digests();
            match digests.check(self.file) {
                Ok(()) => {
                    part.finish(destination)?;
                    return Ok(digests.sha256);
                }
                // An earlier fetch may have left a part of another revision.
                Err(Error::Digest { .. }) if inherited => {
                    inherited = false;
                    part.restart()?;
                }
                Err(e) => {
                    part.delete()?;
                    return Err(e);
                }
            }
        }
    }

    /// Asks again until every byte is there.
    fn complete(&self, part: &mut Part<'_>, report: &mut dyn FnMut(u64)) -> Result<()> {
        let mut failed = 0;
        let mut most = part.bytes();
        let mut answered = false;
        while part.bytes() < self.file.bytes {
            let failure = match self.stream(part, &mut answered, report) {
                Ok(()) if part.bytes() == self.file.bytes => break,
                Ok(()) => Failure::Broken("the answer ended early".into()),
                Err(failure) => failure,
            };
            // Bytes received twice are no progress, so this ends.
            if part.bytes() >= most.saturating_add(GOOD_PROGRESS) {
                failed = 0;
            }
            most = most.max(part.bytes());
            failed += 1;
            self.hub.again(failure, failed, &self.asked, self.cancelled).map_err(|e| match e {
                Error::Connect { message, attempts, .. } if answered => Error::Cut {
                    path: self.file.path.clone(),
                    bytes: part.bytes(),
                    expected: self.file.bytes,
                    attempts,
                    message,
                },
                e => e,
            })?;
        }
        Ok(())
    }

    /// Makes one request and keeps what it brings.
    fn stream(
        &self,
        part: &mut Part<'_>,
        answered: &mut bool,
        report: &mut dyn FnMut(u64),
    ) -> Result<(), Failure> {
        let from = part.bytes();
        let mut reply = match self.client.get(&self.asked.url, from, self.cancelled) {
            // There is nothing from there on: the part is no beginning of this file.
            Err(Failure::Status(refusal)) if refusal.status == 416 && from > 0 => {
                part.restart().map_err(Failure::Fatal)?;
                return Err(Failure::Broken("the server has no bytes there".into()));
            }
            reply => reply?,
        };
        *answered = true;
        if let Some(found) = reply.total.filter(|total| *total != self.file.bytes) {
            let (path, expected) = (self.file.path.clone(), self.file.bytes);
            return Err(Failure::Fatal(Error::Size { path, expected, found }));
        }
        if reply.start != from {
            // The server knows no ranges, or not this one.
            part.restart().map_err(Failure::Fatal)?;
            report(0);
        }
        if reply.start != part.bytes() {
            return Err(Failure::Broken("the answer begins in the middle".into()));
        }
        while let Some(piece) = reply.piece(self.cancelled)? {
            part.append(&piece).map_err(Failure::Fatal)?;
            report(part.bytes());
        }
        Ok(())
    }
}
