//! What both services share: configuration, logs, signals, health, and the ports they stand on.
//!
//! Not here: what a service does.

#[cfg(feature = "cluster")]
pub mod config;
pub mod described;
pub mod failpoint;
pub mod health;
pub mod memory;
mod pauses;
pub mod ports;
pub mod process;
mod redact;
pub mod signals;
pub mod telemetry;
mod usable;

pub use pauses::Pauses;
pub use redact::redacted;
pub use usable::usable;
