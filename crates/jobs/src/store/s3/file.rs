//! Files of any size: in parts where one request would be too long, on from where it broke off.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use aws_sdk_s3::primitives::{ByteStream, Length};
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use tokio::time::sleep;

use super::error::Answer;
use super::{PAUSE, S3Store, TRIES, error, setup};
use crate::store::StoreError;

/// The longest request, and a part: 10,000 of them make 640 GB.
const PART_BYTES: u64 = 64 << 20;
/// Parts at a time: they share one line.
const PARALLEL: usize = 3;

pub(super) async fn put(store: &S3Store, key: &str, path: &Path) -> Result<(), StoreError> {
    let full = store.key(key)?;
    let metadata = tokio::fs::metadata(path).await;
    let bytes = metadata.map_err(|error| unreadable(key, path, &error))?.len();
    let upload = Upload { store, key, full, path, bytes };
    match bytes <= PART_BYTES {
        true => upload.whole().await,
        false => upload.in_parts().await,
    }
}

struct Upload<'a> {
    store: &'a S3Store,
    key: &'a str,
    full: String,
    path: &'a Path,
    bytes: u64,
}

impl Upload<'_> {
    async fn whole(&self) -> Result<(), StoreError> {
        let (body, checksum) = self.piece(0, self.bytes).await?;
        let put = self.store.client.put_object().bucket(&self.store.bucket).key(&self.full);
        let put = put.checksum_sha256(checksum).content_length(self.bytes as i64).body(body);
        let put = put.customize().config_override(setup::patient()).send().await;
        put.map(drop).map_err(|error| self.store.failure(self.key, &error))
    }

    async fn in_parts(&self) -> Result<(), StoreError> {
        let S3Store { client, bucket, .. } = self.store;
        let create = client.create_multipart_upload().bucket(bucket).key(&self.full);
        let created = create.checksum_algorithm(ChecksumAlgorithm::Sha256).send().await;
        let created = created.map_err(|error| self.store.failure(self.key, &error))?;
        let Some(id) = created.upload_id else {
            return Err(StoreError::Unsuitable("the server begins no upload in parts".into()));
        };
        let done = self.parts(&id).await;
        if done.is_err() {
            // Parts that lie about cost money; a rule of the bucket takes those that stay here.
            let abort = client.abort_multipart_upload().bucket(bucket).key(&self.full);
            if let Err(error) = abort.upload_id(&id).send().await {
                let error = self.store.failure(self.key, &error);
                tracing::warn!(key = self.key, %error, "an upload in parts is left unfinished");
            }
        }
        done
    }

    async fn parts(&self, id: &str) -> Result<(), StoreError> {
        let starts = (0..self.bytes).step_by(PART_BYTES as usize).zip(1..);
        let parts = stream::iter(starts.map(|(start, number)| self.part(id, start, number)));
        let mut parts: Vec<_> = parts.buffer_unordered(PARALLEL).try_collect().await?;
        parts.sort_by_key(|part: &CompletedPart| part.part_number);
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let complete = self.store.client.complete_multipart_upload().bucket(&self.store.bucket);
        let complete = complete.key(&self.full).upload_id(id).multipart_upload(parts);
        let completed = complete.customize().config_override(setup::patient()).send().await;
        match completed {
            Ok(_) => Ok(()),
            // The client tried again after the answer to its success was lost.
            Err(error) if error.code() == Some("NoSuchUpload") => self.is_there().await,
            Err(error) => Err(self.store.failure(self.key, &error)),
        }
    }

    async fn is_there(&self) -> Result<(), StoreError> {
        let head = crate::store::Store::head(self.store, self.key).await?;
        match head.is_some_and(|head| head.bytes == self.bytes) {
            true => Ok(()),
            false => Err(error::unavailable(self.key, "the upload in parts was ended by another")),
        }
    }

    async fn part(&self, id: &str, start: u64, number: i32) -> Result<CompletedPart, StoreError> {
        let bytes = PART_BYTES.min(self.bytes - start);
        let (body, checksum) = self.piece(start, bytes).await?;
        let upload = self.store.client.upload_part().bucket(&self.store.bucket).key(&self.full);
        let upload = upload.upload_id(id).part_number(number).content_length(bytes as i64);
        let upload = upload.checksum_sha256(&checksum).body(body);
        let uploaded = upload.customize().config_override(setup::patient()).send().await;
        let uploaded = uploaded.map_err(|error| self.store.failure(self.key, &error))?;
        let part = CompletedPart::builder().part_number(number).checksum_sha256(checksum);
        Ok(part.set_e_tag(uploaded.e_tag).build())
    }

    /// A piece of the file, read again for each try, and its checksum.
    async fn piece(&self, start: u64, bytes: u64) -> Result<(ByteStream, String), StoreError> {
        let path = self.path.to_path_buf();
        let hashed = tokio::task::spawn_blocking(move || hash(&path, start, bytes)).await;
        let hashed = hashed.map_err(io::Error::other).and_then(|hashed| hashed);
        let checksum = hashed.map_err(|error| unreadable(self.key, self.path, &error))?;
        let body = ByteStream::read_from().path(self.path).offset(start);
        let body = body.length(Length::Exact(bytes)).build().await;
        let body =
            body.map_err(|error| unreadable(self.key, self.path, &io::Error::other(error)))?;
        Ok((body, checksum))
    }
}

fn hash(path: &Path, start: u64, bytes: u64) -> io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    file.seek(SeekFrom::Start(start))?;
    let mut hash = Sha256::new();
    if io::copy(&mut file.take(bytes), &mut hash)? < bytes {
        return Err(io::Error::other("it became shorter while it was read"));
    }
    Ok(BASE64_STANDARD.encode(hash.finalize()))
}

pub(super) async fn get(store: &S3Store, key: &str, path: &Path) -> Result<bool, StoreError> {
    let mut download = Download { store, key, path, full: store.key(key)?, version: None };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder: PathBuf = folder.unwrap_or(Path::new(".")).to_path_buf();
    let (mut temporary, mut at, mut failures) = (None, 0, 0);
    let found = loop {
        let before = at;
        let error = match download.go_on(&folder, &mut temporary, &mut at).await {
            Ok(found) => break found,
            Err(End::Failed(error)) => return Err(error),
            Err(End::Broken(error)) => error,
        };
        // Something came of it: a bad line is bounded by the object's length.
        failures = if at > before { 1 } else { failures + 1 };
        if failures >= TRIES {
            return Err(error);
        }
        tracing::debug!(key, at, %error, "a download broke off and goes on");
        sleep(PAUSE * failures).await;
    };
    match temporary.filter(|_| found) {
        Some(file) => finish(key, path, file).map(|()| true),
        None => Ok(false),
    }
}

/// Why a download ended early.
enum End {
    /// It can go on.
    Broken(StoreError),
    /// It cannot.
    Failed(StoreError),
}

struct Download<'a> {
    store: &'a S3Store,
    key: &'a str,
    full: String,
    path: &'a Path,
    /// ETag and length of what is being read.
    version: Option<(Option<String>, u64)>,
}

impl Download<'_> {
    /// Reads from `at` to the end; `false` if there is no object.
    async fn go_on(
        &mut self,
        folder: &Path,
        temporary: &mut Option<NamedTempFile>,
        at: &mut u64,
    ) -> Result<bool, End> {
        let get = self.store.client.get_object().bucket(&self.store.bucket).key(&self.full);
        let get = match &self.version {
            Some((_, length)) if at == length => return Ok(true),
            Some((etag, _)) => get.range(format!("bytes={at}-")).set_if_match(etag.clone()),
            None => get,
        };
        let got = match get.customize().config_override(setup::patient()).send().await {
            Ok(got) => got,
            Err(error) if super::is_absent(&error) && self.version.is_none() => {
                return Ok(false);
            }
            Err(error) if matches!(error.status(), Some(404 | 412)) && self.version.is_some() => {
                // Another one is there now: from its start, as if it had been the first.
                (self.version, *at) = (None, 0);
                let message = "it was changed while it was read";
                return Err(End::Broken(error::unavailable(self.key, message)));
            }
            Err(error) => return Err(End::Failed(self.store.failure(self.key, &error))),
        };
        if self.version.is_none() {
            let length = got.content_length.and_then(|length| u64::try_from(length).ok());
            let message = "the server does not say how long it is";
            let unknown = || End::Failed(error::unavailable(self.key, message));
            self.version = Some((got.e_tag, length.ok_or_else(unknown)?));
            *temporary = None;
        } else if got.content_range.is_none() {
            let message = "the server ignores `Range`, so a broken download cannot go on".into();
            return Err(End::Failed(StoreError::Unsuitable(message)));
        }
        let unwritable = |error: io::Error| End::Failed(unwritable(self.key, self.path, &error));
        let file = match temporary {
            Some(file) => file,
            None => temporary.insert(crate::store::new_file_in(folder).map_err(unwritable)?),
        };
        let handle = file.as_file().try_clone().map_err(unwritable)?;
        self.copy(got.body, File::from_std(handle), at).await
    }

    async fn copy(&self, mut body: ByteStream, mut file: File, at: &mut u64) -> Result<bool, End> {
        let mut broken = None;
        loop {
            match body.next().await {
                Some(Ok(bytes)) => {
                    let written = file.write_all(&bytes).await;
                    written.map_err(|e| End::Failed(unwritable(self.key, self.path, &e)))?;
                    *at += bytes.len() as u64;
                }
                Some(Err(error)) => {
                    broken = Some(error::body(self.key, &error));
                    break;
                }
                None => break,
            }
        }
        let flushed = file.flush().await;
        flushed.map_err(|error| End::Failed(unwritable(self.key, self.path, &error)))?;
        let length = self.version.as_ref().map_or(0, |(_, length)| *length);
        match broken {
            Some(damaged @ StoreError::Damaged { .. }) => Err(End::Failed(damaged)),
            Some(error) => Err(End::Broken(error)),
            None if *at == length => Ok(true),
            None if *at < length => Err(End::Broken(error::unavailable(self.key, "it broke off"))),
            None => {
                let message = format!("{at} bytes came of {length}");
                Err(End::Failed(StoreError::Damaged { key: self.key.to_owned(), message }))
            }
        }
    }
}

fn finish(key: &str, path: &Path, file: NamedTempFile) -> Result<(), StoreError> {
    let synced = file.as_file().sync_all();
    synced.map_err(|error| unwritable(key, path, &error))?;
    file.persist(path).map(drop).map_err(|error| unwritable(key, path, &error.error))
}

fn unreadable(key: &str, path: &Path, error: &io::Error) -> StoreError {
    let message = format!("cannot read `{}`: {error}", path.display());
    StoreError::Damaged { key: key.to_owned(), message }
}

fn unwritable(key: &str, path: &Path, error: &io::Error) -> StoreError {
    let message = format!("cannot write `{}`: {error}", path.display());
    StoreError::Damaged { key: key.to_owned(), message }
}
