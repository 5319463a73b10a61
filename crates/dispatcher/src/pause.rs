//! When something that failed may be tried again: later each time, up to a bound.

use std::time::Duration;

use tokio::time::Instant;

/// First pause.
const FIRST: Duration = Duration::from_millis(200);
/// Longest pause.
const LAST: Duration = Duration::from_secs(5);

/// Calls of [`persistently`] in all: some three seconds.
const TRIES: u32 = 5;

/// Calls again after a pause as long as it fails and `may_help` says that this can help, so that
/// one failure among many calls does not undo the others. The last failure is the caller's.
pub(crate) async fn persistently<T, E, F>(
    mut call: impl FnMut() -> F,
    may_help: impl Fn(&E) -> bool,
) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let mut pause = Pause::default();
    for _ in 1..TRIES {
        match call().await {
            Err(error) if may_help(&error) => pause.failed(),
            answered => return answered,
        }
        pause.wait().await;
    }
    call().await
}

/// A pause after failures in a row.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    until: Option<Instant>,
    failures: u32,
}

impl Pause {
    /// Whether it is over.
    pub(crate) fn is_over(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() >= until)
    }

    /// It failed (again).
    pub(crate) fn failed(&mut self) {
        let pause = FIRST.saturating_mul(1 << self.failures.min(10)).min(LAST);
        self.failures += 1;
        self.until = Some(Instant::now() + pause.mul_f64(rand::random_range(0.5..1.0)));
    }

    /// It works.
    pub(crate) fn worked(&mut self) {
        *self = Self::default();
    }

    /// Waits until it is over.
    pub(crate) async fn wait(&self) {
        if let Some(until) = self.until {
            tokio::time::sleep_until(until).await;
        }
    }
}
