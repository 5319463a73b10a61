//! Uploads in parts: begun, shown, committed.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::BatchOptions;
use crate::id::{BatchId, UploadId};

/// Answer of `POST /v1/uploads` and `GET /v1/uploads/{id}`: what has arrived.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UploadView {
    /// Its name.
    pub id: UploadId,
    /// When it was begun.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it is taken away if nobody commits it; none once it is committed.
    #[serde(with = "time::serde::rfc3339::option", default)]
    pub expires_at: Option<OffsetDateTime>,
    /// Of the batch that it is to become.
    pub options: BatchOptions,
    /// Media type of the parts in a row.
    pub content_type: String,
    /// The parts in a row are gzip.
    pub gzip: bool,
    /// Parts that have arrived, by their number. Once it is committed: what it was made of.
    pub parts: Vec<UploadPart>,
    /// The batch, once it is committed.
    #[serde(default)]
    pub batch: Option<BatchId>,
    /// Most bytes of a part.
    pub part_bytes_max: u64,
    /// Most parts.
    pub parts_max: u32,
}

/// Answer of `PUT /v1/uploads/{id}/parts/{n}`: a part as it was stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UploadPart {
    /// Its number, from 1.
    pub n: u32,
    /// Its length in bytes.
    pub bytes: u64,
    /// Of its bytes, in hexadecimal.
    pub sha256: String,
}

/// Body of `POST /v1/uploads/{id}/commit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UploadCommit {
    /// How many parts there are: 1 up to this number, in this order.
    #[schema(minimum = 1, maximum = 1000)]
    pub parts: u32,
}
