//! The HTTP API as a client sees it: through a real server on a free port, on the ports' back ends
//! for one process.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod accept;
mod access;
mod batches;
mod idempotency;
mod jobs;
mod models;
mod openapi;
mod server;
mod system;
mod uploads;
mod watch;
