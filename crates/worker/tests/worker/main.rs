//! A whole worker on the embedded back ends: what it stores, reports and acknowledges, also when a
//! job comes twice, the store fails or it is told to stop.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod again;
mod flaky;
mod gate;
mod images;
mod jobs;
mod setting;
mod trouble;
