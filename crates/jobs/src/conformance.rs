//! What every back end of a port must do, as suites that the tests of each back end run.
//!
//! They panic where a back end differs. Not here: how servers are started.

#![expect(clippy::unwrap_used, reason = "these are tests that several crates run")]

pub mod progress;
pub mod queue;
pub mod store;
