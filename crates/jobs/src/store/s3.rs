//! The store in S3, or a server that speaks its language.
//!
//! One client a process: its connections and its budget of retries are shared. Conditions are the
//! server's own (`If-None-Match`, `If-Match`). The client itself tries again after a lost answer,
//! so a conditional put may be refused for its own success: each carries a mark of its own, and
//! whoever is refused looks whose mark is there. Bodies go with their SHA-256, which the server
//! checks, and in one piece: many servers know no trailers.

mod error;
mod file;
mod setup;

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::put_object::PutObjectError;
use aws_sdk_s3::presigning::{PresigningConfig, PresigningConfigError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use self::error::{Answer, failure};
use super::{
    Condition, Etag, Head, LAST_CHAR, Object, PAGE_KEYS, Page, Store, StoreError, check_key,
};

pub use self::setup::S3Options;

/// Metadata of conditional puts: which call wrote the object.
const MARK: &str = "excite-put";
/// Tries of what the client does not try again itself: a conflict of two writers at one moment, a
/// body that broke off.
const TRIES: u32 = 4;
/// Before the second of them; the next ones wait longer.
const PAUSE: Duration = Duration::from_millis(100);
/// To read a body. A stalled one is found earlier.
const BODY_LIMIT: Duration = Duration::from_secs(120);

/// A store in a bucket.
#[derive(Debug, Clone)]
pub struct S3Store {
    client: Client,
    bucket: String,
    /// Empty, or with a `/` at its end.
    prefix: String,
}

impl S3Store {
    /// Prepares a client with credentials of the standard chain: environment, profile, web
    /// identity, the machine's role. Nothing is asked of the server yet, see [`Store::probe`].
    ///
    /// # Errors
    /// [`StoreError::Unsuitable`] if no region is known or the options make no sense.
    pub async fn open(options: S3Options) -> Result<Self, StoreError> {
        setup::open(options, None).await
    }

    /// As [`S3Store::open`], with an access key and its secret.
    ///
    /// # Errors
    /// As [`S3Store::open`].
    pub async fn open_with_keys(
        options: S3Options,
        access_key: &str,
        secret_key: &str,
    ) -> Result<Self, StoreError> {
        setup::open(options, Some((access_key, secret_key))).await
    }

    fn key(&self, key: &str) -> Result<String, StoreError> {
        check_key(key)?;
        let full = format!("{}{key}", self.prefix);
        // The prefix is checked: only its length can be too much.
        check_key(&full).map_err(|_| StoreError::Key(key.to_owned())).map(|()| full)
    }

    fn failure<E: Answer>(&self, key: &str, error: &E) -> StoreError {
        failure(&self.bucket, key, error)
    }

    async fn try_put(
        &self,
        full: &str,
        body: &Bytes,
        condition: &Condition,
        mark: &str,
    ) -> Result<Option<String>, SdkError<PutObjectError>> {
        let put = self.client.put_object().bucket(&self.bucket).key(full);
        let put = put.checksum_sha256(checksum(body)).body(ByteStream::from(body.clone()));
        let put = match condition {
            Condition::Always => put,
            Condition::Absent => put.if_none_match("*").metadata(MARK, mark),
            Condition::Unchanged(etag) => put.if_match(&etag.0).metadata(MARK, mark),
        };
        put.send().await.map(|put| put.e_tag)
    }

    /// The version of the object if the put with this mark wrote it.
    async fn written_by(&self, key: &str, mark: &str) -> Result<Option<Etag>, StoreError> {
        let head = self.client.head_object().bucket(&self.bucket).key(self.key(key)?);
        match head.send().await {
            Ok(head) => {
                let metadata = head.metadata.unwrap_or_default();
                let ours = metadata.get(MARK).is_some_and(|found| found == mark);
                Ok(head.e_tag.filter(|_| ours).map(Etag))
            }
            Err(error) if error.status() == Some(404) => Ok(None),
            Err(error) => Err(self.failure(key, &error)),
        }
    }

    /// One try to read an object; none if there is none. The inner error is a body that broke off.
    async fn try_get(&self, key: &str) -> Result<Result<Option<Object>, StoreError>, StoreError> {
        let get = self.client.get_object().bucket(&self.bucket).key(self.key(key)?);
        let get = match get.send().await {
            Ok(get) => get,
            Err(error) if is_absent(&error) => return Ok(Ok(None)),
            Err(error) => return Err(self.failure(key, &error)),
        };
        let (length, etag) = (get.content_length, etag(key, get.e_tag)?);
        let body = match timeout(BODY_LIMIT, get.body.collect()).await {
            Ok(Ok(body)) => body.into_bytes(),
            Ok(Err(error)) => return Ok(Err(error::body(key, &error))),
            Err(_) => return Ok(Err(error::unavailable(key, "the body took too long"))),
        };
        if length.is_some_and(|length| length != body.len() as i64) {
            let message = format!("{} bytes came of {}", body.len(), length.unwrap_or(0));
            return Ok(Err(StoreError::Damaged { key: key.to_owned(), message }));
        }
        Ok(Ok(Some(Object { body, etag })))
    }
}

/// There is a bucket, but no such object.
fn is_absent(error: &impl Answer) -> bool {
    error.status() == Some(404) && error.code() != Some("NoSuchBucket")
}

/// The SHA-256 as S3 wants it.
fn checksum(body: &[u8]) -> String {
    BASE64_STANDARD.encode(Sha256::digest(body))
}

fn etag(key: &str, etag: Option<String>) -> Result<Etag, StoreError> {
    let message = || format!("the server sends no ETag of `{key}`");
    etag.map(Etag).ok_or_else(|| StoreError::Unsuitable(message()))
}

#[async_trait]
impl Store for S3Store {
    async fn put(&self, key: &str, body: Bytes, condition: Condition) -> Result<Etag, StoreError> {
        let (full, mark) = (self.key(key)?, Uuid::new_v4().simple().to_string());
        let conditional = condition != Condition::Always;
        let mut tries = 1;
        loop {
            let error = match self.try_put(&full, &body, &condition, &mark).await {
                Ok(put) => return etag(key, put),
                Err(error) => error,
            };
            match error.status() {
                // Two writers at one moment. Which of them won is known a moment later.
                Some(409) if conditional && tries < TRIES => sleep(PAUSE * tries).await,
                Some(409 | 412) if conditional => break,
                // Nothing to be unchanged.
                Some(404) if conditional && is_absent(&error) => break,
                _ => return Err(self.failure(key, &error)),
            }
            tries += 1;
        }
        match self.written_by(key, &mark).await? {
            Some(etag) => Ok(etag),
            None => Err(StoreError::Conflict(key.to_owned())),
        }
    }

    async fn get(&self, key: &str) -> Result<Option<Object>, StoreError> {
        let mut tries = 1;
        loop {
            match self.try_get(key).await? {
                Err(_) if tries < TRIES => sleep(PAUSE * tries).await,
                done => return done,
            }
            tries += 1;
        }
    }

    async fn link(&self, key: &str, time: Duration) -> Result<Option<String>, StoreError> {
        let unusable = |error: PresigningConfigError| {
            StoreError::Unsuitable(format!("no address can be good for so long: {error}"))
        };
        let config = PresigningConfig::expires_in(time).map_err(unusable)?;
        let get = self.client.get_object().bucket(&self.bucket).key(self.key(key)?);
        let request = get.presigned(config).await.map_err(|error| self.failure(key, &error))?;
        Ok(Some(request.uri().to_owned()))
    }

    async fn head(&self, key: &str) -> Result<Option<Head>, StoreError> {
        let head = self.client.head_object().bucket(&self.bucket).key(self.key(key)?);
        match head.send().await {
            Ok(head) => {
                let bytes = head.content_length.and_then(|length| u64::try_from(length).ok());
                Ok(Some(Head { bytes: bytes.unwrap_or(0), etag: etag(key, head.e_tag)? }))
            }
            Err(error) if error.status() == Some(404) => Ok(None),
            Err(error) => Err(self.failure(key, &error)),
        }
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        folders: bool,
    ) -> Result<Page, StoreError> {
        let list = self.client.list_objects_v2().bucket(&self.bucket);
        let list = list.prefix(format!("{}{prefix}", self.prefix)).max_keys(PAGE_KEYS as i32);
        let list = list.set_delimiter(folders.then(|| "/".to_owned()));
        let start =
            after.map(|after| format!("{}{}", self.prefix, start_after(prefix, after, folders)));
        let listed = list.set_start_after(start).send().await;
        let listed = listed.map_err(|error| self.failure(prefix, &error))?;
        let objects = listed.contents.unwrap_or_default().into_iter().filter_map(|it| it.key);
        let common = listed.common_prefixes.unwrap_or_default();
        let found = objects.chain(common.into_iter().filter_map(|it| it.prefix));
        let mut keys: Vec<String> = found
            .filter_map(|full| full.strip_prefix(&self.prefix).map(str::to_owned))
            .filter(|key| after.is_none_or(|after| key.as_str() > after))
            .collect();
        keys.sort_unstable();
        Ok(Page { keys, more: listed.is_truncated.unwrap_or(false) })
    }

    async fn delete(&self, keys: &[String]) -> Result<(), StoreError> {
        let mut objects = Vec::new();
        for key in keys {
            let object = ObjectIdentifier::builder().key(self.key(key)?).build();
            objects.push(object.map_err(|error| StoreError::Unsuitable(error.to_string()))?);
        }
        for (objects, keys) in objects.chunks(PAGE_KEYS).zip(keys.chunks(PAGE_KEYS)) {
            let delete = Delete::builder().set_objects(Some(objects.to_vec())).quiet(true).build();
            let delete = delete.map_err(|error| StoreError::Unsuitable(error.to_string()))?;
            let delete = self.client.delete_objects().bucket(&self.bucket).delete(delete);
            let deleted = delete.send().await;
            let deleted = deleted.map_err(|error| self.failure(&keys[0], &error))?;
            // What was not there is none of them.
            if let Some(error) = deleted.errors.unwrap_or_default().into_iter().next() {
                let full = error.key.clone().unwrap_or_default();
                let key = full.strip_prefix(&self.prefix).unwrap_or(&full);
                return Err(failure(&self.bucket, key, &error));
            }
        }
        Ok(())
    }

    async fn put_file(&self, key: &str, path: &Path) -> Result<(), StoreError> {
        file::put(self, key, path).await
    }

    async fn get_file(&self, key: &str, path: &Path) -> Result<bool, StoreError> {
        file::get(self, key, path).await
    }

    async fn probe(&self, name: &str) -> Result<(), StoreError> {
        super::probe::probe(self, name).await
    }
}

/// Where the server goes on. It would fold what is left of a folder into its name once more, so
/// with folders it goes on behind the last key that the folder can have.
fn start_after(prefix: &str, after: &str, folders: bool) -> String {
    let rest = after.strip_prefix(prefix).filter(|_| folders);
    match rest.and_then(|rest| rest.split_once('/')) {
        Some((folder, _)) => format!("{prefix}{folder}/{LAST_CHAR}"),
        None => after.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_that_were_listed_are_skipped_whole() {
        for (prefix, after, folders, want) in [
            ("b/", "b/x/", true, "b/x/\u{10ffff}"),
            ("b/", "b/x/y", true, "b/x/\u{10ffff}"),
            ("b/", "b/x", true, "b/x"),
            ("b/", "b/x/", false, "b/x/"),
            ("b/", "a/x/", true, "a/x/"),
        ] {
            assert_eq!(start_after(prefix, after, folders), want, "{prefix} {after}");
        }
    }
}
