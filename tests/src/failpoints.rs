//! The points between two writes at which tests crash our programs, in the order in which they come:
//! see `docs/reliability.md`. Whoever adds one to a program adds it here, and all tests crash there.

/// Of a worker; the last one only when it stops.
pub const WORKER: [&str; 6] = [
    "worker_pass",
    "worker_made_image",
    "worker_stored_image",
    "worker_stored_sidecar",
    "worker_reported",
    "worker_saved_state",
];

/// Of a dispatcher that accepts a batch.
pub const ACCEPT: [&str; 3] =
    ["dispatcher_took_key", "dispatcher_marked_batch", "dispatcher_committed_batch"];

/// Of a dispatcher that leads.
pub const LEAD: [&str; 7] = [
    "dispatcher_claimed",
    "dispatcher_fed",
    "dispatcher_followed",
    "dispatcher_recorded_run",
    "dispatcher_recorded",
    "dispatcher_acknowledged",
    "dispatcher_summarized",
];
