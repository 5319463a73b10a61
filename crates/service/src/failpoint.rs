//! Points where tests crash a program or look into it: nothing without the feature `failpoints`,
//! which only tests turn on.
//!
//! `FAILPOINTS="worker_stored_image=return"` ends the process there, as a power cut would;
//! `worker_stored_image=1*off->return` the second time. More in the documents of the crate `fail`.

/// A point that is called `name`.
pub fn reach(name: &str) {
    fail::fail_point!(name, |_| std::process::abort());
    // Without the feature nobody asks.
    let _ = name;
}

/// Whether a program is to behave as it does on another machine: `NAME=return`.
pub fn is_set(name: &str) -> bool {
    fail::fail_point!(name, |_| true);
    // Without the feature nobody asks.
    let _ = name;
    false
}

/// Reads `FAILPOINTS`; it holds as long as what is returned.
#[cfg(feature = "failpoints")]
pub fn listen() -> fail::FailScenario<'static> {
    fail::FailScenario::setup()
}
