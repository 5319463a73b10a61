//! The ports a service stands on, as they are configured: `[broker]`, `[store]`, `[progress]`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use excite_jobs::progress::ProgressError;
use excite_jobs::progress::redis::{RedisMirror, RedisOptions};
use excite_jobs::queue::QueueError;
use excite_jobs::queue::rabbit::{RabbitOptions, RabbitQueue};
use excite_jobs::store::StoreError;
use excite_jobs::store::s3::{S3Options, S3Store};
use serde::{Deserialize, Serialize};

/// Section `[broker]`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Broker {
    /// `amqp://user:password@host:port/vhost`, or `amqps://`.
    pub url: String,
    /// Certificates (PEM) to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// How long a confirm may take.
    pub confirm_timeout_seconds: u64,
}

impl Default for Broker {
    fn default() -> Self {
        Self {
            url: "amqp://guest:guest@127.0.0.1:5672/%2f".into(),
            ca_file: None,
            confirm_timeout_seconds: 10,
        }
    }
}

/// Section `[store]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// `s3://bucket` or `s3://bucket/prefix`.
    pub url: String,
    /// Of a server that is not Amazon's.
    pub endpoint: Option<String>,
    /// The bucket's region, if the environment does not say.
    pub region: Option<String>,
    /// Certificates (PEM) to trust beside the system's.
    pub ca_file: Option<PathBuf>,
}

impl Default for Store {
    fn default() -> Self {
        Self { url: "s3://excite".into(), endpoint: None, region: None, ca_file: None }
    }
}

/// Section `[progress]`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Progress {
    /// `redis://user:password@host:port/db`, or `rediss://`.
    pub url: String,
    /// Certificates (PEM) to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// How long a call may take; nobody waits for it longer.
    pub timeout_milliseconds: u64,
}

impl Default for Progress {
    fn default() -> Self {
        let url = "redis://127.0.0.1:6379/0".into();
        Self { url, ca_file: None, timeout_milliseconds: 250 }
    }
}

macro_rules! redacted_debug {
    ($($section:ident),+) => {$(
        impl std::fmt::Debug for $section {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let url = crate::redacted(&self.url);
                f.debug_struct(stringify!($section)).field("url", &url).finish_non_exhaustive()
            }
        }
    )+};
}
redacted_debug!(Broker, Progress);

/// Why a port cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The broker's address.
    #[error("broker: {0}")]
    Broker(#[from] QueueError),
    /// The store's address or credentials.
    #[error("store: {0}")]
    Store(#[from] StoreError),
    /// The address of the progress store.
    #[error("progress: {0}")]
    Progress(#[from] ProgressError),
    /// A value that means nothing.
    #[error("{key} is `{value}`; {remedy}")]
    Value {
        /// Where it stands.
        key: &'static str,
        /// What it is.
        value: String,
        /// What it should be.
        remedy: &'static str,
    },
    /// Certificates that cannot be read.
    #[error("{key}: cannot read {}: {source}", path.display())]
    Certificates {
        /// Where the file is named.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Begins to connect to the broker; `name` is shown in its list of connections.
///
/// # Errors
/// If the configuration cannot be used. A broker that is away is no error.
pub fn queue(broker: &Broker, name: &str) -> Result<RabbitQueue, PortError> {
    let mut options = RabbitOptions::new(broker.url.clone(), name);
    options.confirm_timeout = Duration::from_secs(broker.confirm_timeout_seconds);
    options.ca_pem = certificates("broker.ca_file", broker.ca_file.as_deref())?;
    Ok(RabbitQueue::connect(options)?)
}

/// Opens the store.
///
/// # Errors
/// If the configuration cannot be used. A store that is away is no error.
pub async fn store(store: &Store) -> Result<S3Store, PortError> {
    let Some(path) = store.url.strip_prefix("s3://") else {
        let remedy = "write `s3://bucket` or `s3://bucket/prefix`";
        return Err(PortError::Value { key: "store.url", value: store.url.clone(), remedy });
    };
    let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
    let options = S3Options {
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
        endpoint: store.endpoint.clone(),
        region: store.region.clone(),
        ca_pem: certificates("store.ca_file", store.ca_file.as_deref())?,
        path_style: store.endpoint.is_some(),
    };
    Ok(S3Store::open(options).await?)
}

/// Begins to connect to the progress store; `name` is shown in its list of clients.
///
/// # Errors
/// If the configuration cannot be used. A server that is away is no error.
pub fn progress(progress: &Progress, name: &str) -> Result<RedisMirror, PortError> {
    let options = RedisOptions {
        url: progress.url.clone(),
        ca_pem: certificates("progress.ca_file", progress.ca_file.as_deref())?,
        timeout: Duration::from_millis(progress.timeout_milliseconds),
        name: name.to_owned(),
    };
    Ok(RedisMirror::connect(options)?)
}

fn certificates(key: &'static str, path: Option<&Path>) -> Result<Option<Vec<u8>>, PortError> {
    let Some(path) = path else { return Ok(None) };
    let read = std::fs::read(path);
    read.map(Some).map_err(|source| PortError::Certificates { key, path: path.into(), source })
}
