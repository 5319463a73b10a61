//! Accepts batches, feeds the queue, concludes outcomes, serves the HTTP API.

pub mod accept;
pub mod config;
pub mod delete;
pub mod doctor;
pub mod done_log;
pub mod estimates;
pub mod header;
pub mod http;
pub mod job_index;
pub mod job_states;
pub mod lead;
pub mod manifest;
pub mod metrics;
pub mod models;
mod objects;
mod pause;
mod ports;
pub mod scale;
pub mod tokens;
#[cfg(feature = "cluster")]
pub mod topology;
pub mod uploads;

pub use ports::Ports;
