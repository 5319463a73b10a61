//! Names of batches, jobs and uploads.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};
use uuid::Uuid;

use crate::limits::JOBS_MAX;

/// A batch: a UUID of version 7, so that names sort by the time of their making.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BatchId(Uuid);

impl BatchId {
    /// A new name.
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
}

impl Default for BatchId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// A text that names no batch, job or upload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no {1}")]
pub struct IdError(String, &'static str);

impl FromStr for BatchId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        uuid(text, "batch id").map(Self)
    }
}

/// Only the hyphenated form: the name is part of keys, and there is one spelling of each.
fn uuid(text: &str, what: &'static str) -> Result<Uuid, IdError> {
    let uuid = Uuid::try_parse(text).ok().filter(|uuid| uuid.hyphenated().to_string() == text);
    uuid.ok_or_else(|| IdError(text.chars().take(80).collect(), what))
}

/// An upload in parts: a UUID of version 7, so that names sort by the time of their making.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UploadId(Uuid);

impl UploadId {
    /// A new name.
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
}

impl Default for UploadId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for UploadId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        uuid(text, "upload id").map(Self)
    }
}

/// A job: `<batch>-<index as 8 digits>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId {
    /// The batch.
    pub batch: BatchId,
    /// Place in the batch, from 0.
    pub index: u32,
}

impl JobId {
    /// A job of a batch.
    pub fn new(batch: BatchId, index: u32) -> Self {
        Self { batch, index }
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:08}", self.batch, self.index)
    }
}

impl FromStr for JobId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let parsed = || {
            let (batch, index) = text.rsplit_once('-')?;
            let digits = index.len() == 8 && index.bytes().all(|b| b.is_ascii_digit());
            let index = index.parse().ok().filter(|index| digits && *index < JOBS_MAX)?;
            Some(Self { batch: batch.parse().ok()?, index })
        };
        parsed().ok_or_else(|| IdError(text.chars().take(80).collect(), "job id"))
    }
}

impl Serialize for JobId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl PartialSchema for BatchId {
    fn schema() -> RefOr<Schema> {
        let uuid = ObjectBuilder::new().schema_type(Type::String);
        uuid.format(Some(SchemaFormat::Custom("uuid".into())))
            .description(Some("A batch: a UUID of version 7."))
            .examples(["0192d7a0-0000-7000-8000-000000000001"])
            .into()
    }
}

impl ToSchema for BatchId {
    fn name() -> Cow<'static, str> {
        "BatchId".into()
    }
}

impl PartialSchema for UploadId {
    fn schema() -> RefOr<Schema> {
        let uuid = ObjectBuilder::new().schema_type(Type::String);
        uuid.format(Some(SchemaFormat::Custom("uuid".into())))
            .description(Some("An upload in parts: a UUID of version 7."))
            .examples(["0192d7a0-0000-7000-8000-000000000002"])
            .into()
    }
}

impl ToSchema for UploadId {
    fn name() -> Cow<'static, str> {
        "UploadId".into()
    }
}

impl PartialSchema for JobId {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new().schema_type(Type::String);
        text.pattern(Some("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}-[0-9]{8}$"))
            .description(Some("A job: its batch and its place there, as eight digits."))
            .examples(["0192d7a0-0000-7000-8000-000000000001-00000007"])
            .into()
    }
}

impl ToSchema for JobId {
    fn name() -> Cow<'static, str> {
        "JobId".into()
    }
}

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back() {
        let batch = BatchId::new();
        assert_eq!(batch.to_string().parse(), Ok(batch));
        let job = JobId::new(batch, 917_334);
        assert!(job.to_string().ends_with("-00917334"), "{job}");
        assert_eq!(job.to_string().parse(), Ok(job));
        let json = serde_json::to_string(&job).unwrap();
        assert_eq!(serde_json::from_str::<JobId>(&json).unwrap(), job);
        assert!(BatchId::new() > batch, "names sort by time");
        let upload = UploadId::new();
        assert_eq!(upload.to_string().parse(), Ok(upload));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let batch = BatchId::new().to_string();
        for text in ["", "x", "../x", &batch.to_uppercase(), &batch.replace('-', "")] {
            assert!(text.parse::<BatchId>().is_err(), "{text}");
            assert!(text.parse::<UploadId>().is_err(), "{text}");
        }
        for tail in ["", "-", "-1", "-0000000x", "-+0000001", "-100000000"] {
            assert!(format!("{batch}{tail}").parse::<JobId>().is_err(), "{tail}");
        }
    }
}
