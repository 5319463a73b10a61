//! The port to the store: S3, or a directory.
//!
//! Both run `conformance::store`. What holds of both: an object is there whole or not at all; a
//! conditional put is decided by the store, so of many that race exactly one wins; keys list in the
//! order of their bytes.

pub mod directory;
mod probe;
#[cfg(feature = "s3")]
pub mod s3;

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

/// Names a version of an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Etag(pub String);

/// When a put may happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Always.
    Always,
    /// Only if there is no such object.
    Absent,
    /// Only if the object is still this version.
    Unchanged(Etag),
}

/// An object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// What is in it.
    pub body: Bytes,
    /// Its version.
    pub etag: Etag,
}

/// What is known of an object without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Its length.
    pub bytes: u64,
    /// Its version.
    pub etag: Etag,
}

/// A page of keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// Keys, or with a delimiter common prefixes (ending in `/`), in the order of their bytes.
    pub keys: Vec<String>,
    /// There may be more behind the last one.
    pub more: bool,
}

/// A failure of the store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The condition did not hold.
    #[error("`{0}` is there already, or was changed meanwhile")]
    Conflict(String),
    /// The store may not be written to or read from with these credentials.
    #[error("access to `{key}` is denied: {message}")]
    Denied {
        /// The key.
        key: String,
        /// What the store said.
        message: String,
    },
    /// There is no such bucket or directory.
    #[error("there is no {0}")]
    NoBucket(String),
    /// The bytes are not those that were sent or promised.
    #[error("`{key}` is damaged: {message}")]
    Damaged {
        /// The key.
        key: String,
        /// What differs.
        message: String,
    },
    /// The store cannot be used as it is, or as it is configured; trying again does not help.
    #[error("the store cannot be used: {0}")]
    Unsuitable(String),
    /// The key cannot be one.
    #[error("`{0}` is no key")]
    Key(String),
    /// Anything that may be over later: no connection, time-out, 5xx, slow down.
    #[error("the store failed at `{key}`: {message}")]
    Unavailable {
        /// The key.
        key: String,
        /// What happened.
        message: String,
    },
}

impl StoreError {
    /// Whether trying again later can help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

/// Keys of a page.
pub const PAGE_KEYS: usize = 1000;
/// UTF-8 bytes of a key together with the store's prefix: S3's limit.
pub const KEY_BYTES_MAX: usize = 1024;
/// UTF-8 bytes between two `/` of a key: a file system's limit.
pub const KEY_PART_BYTES_MAX: usize = 255;
/// The first part of keys that nobody can use: a directory keeps its own files there.
const RESERVED: &str = ".store";
/// Sorts behind all that a key can go on with.
const LAST_CHAR: char = '\u{10ffff}';

/// Refuses what cannot be a key in every back end: empty parts, `.`, `..`, backslashes, control
/// characters, what is too long, and what begins with `.store/`.
fn check_key(key: &str) -> Result<(), StoreError> {
    let part = |part: &str| {
        !matches!(part, "" | "." | "..")
            && part.len() <= KEY_PART_BYTES_MAX
            && !part.contains(|c: char| c.is_control() || c == '\\' || c == LAST_CHAR)
    };
    let reserved = key.split('/').next() == Some(RESERVED);
    if key.len() <= KEY_BYTES_MAX && !reserved && key.split('/').all(part) {
        return Ok(());
    }
    Err(StoreError::Key(key.chars().take(200).flat_map(char::escape_default).collect()))
}

/// With the rights of any other new file, not only its owner's.
fn new_file_in(folder: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder)
}

/// The store. Every call is bounded in time and retried within that bound.
#[async_trait]
pub trait Store: Send + Sync {
    /// Stores an object whole and says which version it is.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the condition does not hold.
    async fn put(&self, key: &str, body: Bytes, condition: Condition) -> Result<Etag, StoreError>;

    /// Reads an object; `None` if there is none.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn get(&self, key: &str) -> Result<Option<Object>, StoreError>;

    /// Looks at an object; `None` if there is none.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn head(&self, key: &str) -> Result<Option<Head>, StoreError>;

    /// Up to 1,000 keys that begin with `prefix`, behind `after`. With `folders`, what lies behind
    /// the next `/` is folded into one entry.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        folders: bool,
    ) -> Result<Page, StoreError>;

    /// Takes objects away; those that are not there are no error.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn delete(&self, keys: &[String]) -> Result<(), StoreError>;

    /// Stores a file, whatever its size, without holding it in memory.
    ///
    /// # Errors
    /// See [`StoreError`]; [`StoreError::Damaged`] if it cannot be read.
    async fn put_file(&self, key: &str, path: &Path) -> Result<(), StoreError>;

    /// Reads an object into a file, whatever its size, without holding it in memory; `false` if
    /// there is none. The file is there whole or not at all.
    ///
    /// # Errors
    /// See [`StoreError`]; [`StoreError::Damaged`] if the file cannot be written.
    async fn get_file(&self, key: &str, path: &Path) -> Result<bool, StoreError>;

    /// An address under which whoever has it can read an object for a while; `None` if this store
    /// has none. Nobody looks whether there is such an object.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn link(&self, _key: &str, _time: Duration) -> Result<Option<String>, StoreError> {
        Ok(None)
    }

    /// Finds out whether the store can be used: puts, reads, takes away a probe, and puts twice on
    /// condition, because some servers ignore it.
    ///
    /// # Errors
    /// What does not work; [`StoreError::Denied`] for a store that is read-only.
    async fn probe(&self, name: &str) -> Result<(), StoreError>;
}
