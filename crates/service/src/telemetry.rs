//! Logs: one JSON object a line on standard error, or text for people.

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;

/// Section `[log]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `json` or `text`.
    pub format: LogFormat,
    /// What is logged, as `tracing` writes filters: `info`, `excite_worker=debug,warn`.
    pub filter: String,
}

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For machines.
    Json,
    /// For people.
    Text,
}

impl Default for Log {
    fn default() -> Self {
        // The broker's client logs each reconnection itself; the supervisor says it better.
        Self { format: LogFormat::Json, filter: "info,lapin=off".into() }
    }
}

/// Starts logging.
///
/// # Errors
/// If the filter cannot be read, or logging was started before.
pub fn init(log: &Log) -> Result<(), String> {
    let filter = EnvFilter::try_new(&log.filter)
        .map_err(|e| format!("log.filter is `{}`: {e}; try `info`", log.filter))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(SystemTime)
        .with_writer(std::io::stderr);
    match log.format {
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(true).try_init(),
        LogFormat::Text => builder.try_init(),
    }
    .map_err(|e| e.to_string())
}
