//! Opens the ports of a cluster: RabbitMQ, S3, Redis.

use std::path::{Path, PathBuf};
use std::time::Duration;

use excite_jobs::progress::ProgressError;
use excite_jobs::progress::redis::{RedisMirror, RedisOptions};
use excite_jobs::queue::QueueError;
use excite_jobs::queue::rabbit::{RabbitOptions, RabbitQueue};
use excite_jobs::store::StoreError;
use excite_jobs::store::s3::{S3Options, S3Store};

use super::{Broker, Progress, Store};

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
