//! The worker: takes jobs from the queue, makes their images, stores them, reports, acknowledges.
//!
//! [`Worker`] is the loop; [`pipeline::Pipeline`] what makes images, on a thread of its own.
//! Invariants: a result is stored before it is reported and reported before it is acknowledged; a
//! job runs once here however often it is delivered; the compute thread never waits for progress.
//! Not here: which job comes next (the dispatcher), what an image is (`excite_diffusion`).

pub mod batch_size;
mod beat;
mod breaker;
mod cache;
mod checkpoints;
mod config;
mod execute;
mod fetch;
mod finish;
mod held;
mod ladder;
mod lease;
mod metrics;
mod micro_batch;
mod models;
mod patience;
pub mod pipeline;
mod preempt;
mod prepare;
mod reuse;
mod self_test;
mod status;
mod task;
mod watch;
mod worker;

#[cfg(test)]
mod examples;

pub use batch_size::BatchSize;
pub use config::{Config, Sections};
pub use metrics::Metrics;
pub use models::{ModelError, Models, ModelsOptions};
pub use task::Task;
pub use watch::{Stop, Watch};
pub use worker::{Ports, Worker, WorkerError};
