//! The ports a service stands on, as they are configured: `[broker]`, `[store]`, `[progress]`.

#[cfg(feature = "cluster")]
mod open;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

#[cfg(feature = "cluster")]
pub use self::open::{PortError, progress, queue, store};

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
