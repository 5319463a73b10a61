//! The document of an upload in the store: what it is to become and which parts it has.

use std::collections::BTreeMap;

use excite_jobs::api::{BatchOptions, UploadPart, UploadView};
use excite_jobs::{BatchId, UploadId, VERSION, limits};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use time::{Duration, OffsetDateTime};

use super::UploadError;
use crate::accept::{Format, Submission};
use crate::header;

/// Missing parts that are named.
const NAMED: usize = 10;

/// An upload: `uploads/<id>/upload.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Upload {
    /// [`VERSION`].
    v: u32,
    /// Its name.
    pub(crate) id: UploadId,
    /// When it was begun.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// Of the batch.
    options: BatchOptions,
    /// As [`Format::media_type`] has it.
    content_type: String,
    /// The parts in a row are gzip.
    gzip: bool,
    /// Trace context of whoever began it.
    traceparent: Option<String>,
    /// What has arrived, by number.
    parts: BTreeMap<u32, StoredPart>,
    /// Once it is committed.
    pub(crate) batch: Option<BatchId>,
}

/// A part that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredPart {
    /// Of its object.
    pub(crate) key: String,
    /// Its length.
    pub(crate) bytes: u64,
    /// Of its bytes, in hexadecimal.
    pub(crate) sha256: String,
}

impl Upload {
    /// A new one for what a submission says of its body.
    pub(crate) fn new(submission: Submission) -> Self {
        Self {
            v: VERSION,
            id: UploadId::new(),
            created_at: OffsetDateTime::now_utc(),
            options: submission.options,
            content_type: submission.format.media_type().into(),
            gzip: submission.gzip,
            traceparent: submission.traceparent,
            parts: BTreeMap::new(),
            batch: None,
        }
    }

    /// What it is committed as; always under the same key, so that it makes one batch.
    pub(crate) fn submission(&self) -> Option<Submission> {
        Some(Submission {
            options: self.options.clone(),
            format: Format::of(&self.content_type)?,
            gzip: self.gzip,
            // No header has such a character, so nobody else has this key.
            key: Some(format!("upload\0{}", self.id)),
            traceparent: self.traceparent.clone(),
        })
    }

    /// Over all that was said when it was begun.
    pub(super) fn options_sha256(&self) -> String {
        let said = header::json(&(&self.options, &self.content_type, self.gzip));
        format!("{:x}", Sha256::digest(said))
    }

    /// As it is shown.
    pub(crate) fn view(self) -> UploadView {
        let expires_at = self.created_at + Duration::seconds(limits::UPLOAD_SECONDS_MAX);
        let part = |(n, part): (u32, StoredPart)| {
            let StoredPart { bytes, sha256, .. } = part;
            UploadPart { n, bytes, sha256 }
        };
        UploadView {
            id: self.id,
            created_at: self.created_at,
            expires_at: self.batch.is_none().then_some(expires_at),
            options: self.options,
            content_type: self.content_type,
            gzip: self.gzip,
            parts: self.parts.into_iter().map(part).collect(),
            batch: self.batch,
            part_bytes_max: limits::UPLOAD_PART_BYTES_MAX,
            parts_max: limits::UPLOAD_PARTS_MAX,
        }
    }

    /// Whether part `n` may come with so many bytes.
    pub(crate) fn check(&self, n: u32, bytes: u64) -> Result<(), UploadError> {
        if let Some(batch) = self.batch {
            return Err(UploadError::Committed { upload: self.id, batch });
        }
        if bytes > limits::UPLOAD_PART_BYTES_MAX {
            return Err(UploadError::PartTooLarge);
        }
        let others = self.parts.iter().filter(|(other, _)| **other != n);
        let others: u64 = others.map(|(_, part)| part.bytes).sum();
        if others + bytes > limits::BATCH_BYTES_MAX {
            return Err(UploadError::TooLarge);
        }
        Ok(())
    }

    /// Takes a part in; the one that it replaces.
    pub(super) fn insert(
        &mut self,
        n: u32,
        part: StoredPart,
    ) -> Result<Option<StoredPart>, UploadError> {
        self.check(n, part.bytes)?;
        let key = part.key.clone();
        // A put whose answer was lost may have named it already.
        Ok(self.parts.insert(n, part).filter(|before| before.key != key))
    }

    /// The first `count` parts, all of them.
    pub(crate) fn first_parts(&self, count: u32) -> Result<Vec<(u32, StoredPart)>, UploadError> {
        let missing: Vec<u32> = (1..=count).filter(|n| !self.parts.contains_key(n)).collect();
        if missing.is_empty() {
            let parts = self.parts.range(1..=count);
            return Ok(parts.map(|(n, part)| (*n, part.clone())).collect());
        }
        let mut first: Vec<String> = missing.iter().take(NAMED).map(u32::to_string).collect();
        if missing.len() > NAMED {
            first.push("...".into());
        }
        let first = first.join(", ");
        Err(UploadError::PartsMissing { count: missing.len(), parts: count, first })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upload() -> Upload {
        let (options, format) = (BatchOptions::default(), Format::Text);
        let key = Some("a key".into());
        Upload::new(Submission { options, format, gzip: false, key, traceparent: None })
    }

    fn part(key: &str, bytes: u64) -> StoredPart {
        StoredPart { key: key.into(), bytes, sha256: String::new() }
    }

    #[test]
    fn parts_together_are_no_longer_than_a_batch() {
        let mut upload = upload();
        let (most, all) = (limits::UPLOAD_PART_BYTES_MAX, limits::BATCH_BYTES_MAX);
        let count = u32::try_from(all / most).unwrap();
        for n in 1..=count {
            assert_eq!(upload.insert(n, part("a", most)).unwrap(), None);
        }
        let more = upload.insert(count + 1, part("a", 1));
        assert!(matches!(more, Err(UploadError::TooLarge)), "{more:?}");
        let long = upload.check(1, most + 1);
        assert!(matches!(long, Err(UploadError::PartTooLarge)), "{long:?}");
        // In its own place a part is counted once.
        assert_eq!(upload.insert(1, part("b", most)).unwrap(), Some(part("a", most)));
        assert_eq!(upload.insert(1, part("b", most)).unwrap(), None);
        upload.batch = Some(BatchId::new());
        assert!(matches!(upload.check(1, 1), Err(UploadError::Committed { .. })));
    }

    #[test]
    fn missing_parts_are_counted_and_the_first_named() {
        let mut upload = upload();
        for n in [10, 2, 3] {
            upload.insert(n, part(&n.to_string(), 1)).unwrap();
        }
        let missing = upload.first_parts(3).unwrap_err().to_string();
        assert_eq!(missing, "1 of 3 parts are missing: 1");
        let missing = upload.first_parts(1000).unwrap_err().to_string();
        assert_eq!(missing, "997 of 1000 parts are missing: 1, 4, 5, 6, 7, 8, 9, 11, 12, 13, ...");
        upload.insert(1, part("1", 1)).unwrap();
        let first: Vec<u32> = upload.first_parts(2).unwrap().iter().map(|(n, _)| *n).collect();
        assert_eq!(first, [1, 2]);
    }

    #[test]
    fn what_is_stored_reads_back_and_has_a_key_of_its_own() {
        let mut upload = upload();
        upload.insert(7, part("a", 1)).unwrap();
        let stored: Upload = serde_json::from_slice(&header::json(&upload)).unwrap();
        assert_eq!(stored, upload);
        let key = stored.submission().unwrap().key.unwrap();
        assert!(key.contains(&upload.id.to_string()) && key.contains('\0'), "{key:?}");
        assert_eq!(stored.view().parts[0].n, 7);
    }
}
