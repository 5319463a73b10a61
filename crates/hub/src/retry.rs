//! How long to wait for an answer, and how long before asking again.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// How often a wait looks whether someone asked to stop.
pub(crate) const POLL: Duration = Duration::from_millis(100);

/// Waits and attempts of a [`Hub`](crate::Hub).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waits {
    /// Requests for the same bytes before giving up, at least 1.
    pub attempts: u32,
    /// Before the second attempt; doubles with each further one, and chance takes up to half away.
    pub backoff: Duration,
    /// The longest of these waits.
    pub backoff_max: Duration,
    /// The longest wait a server may ask for; if it asks for more, the request has failed.
    pub retry_after_max: Duration,
    /// For looking up the host's name, and again for connecting.
    pub connect: Duration,
    /// For the head of an answer, and for each piece of its body. A whole body has no limit.
    pub idle: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            attempts: 6,
            backoff: Duration::from_millis(500),
            backoff_max: Duration::from_secs(20),
            retry_after_max: Duration::from_secs(120),
            connect: Duration::from_secs(15),
            idle: Duration::from_secs(30),
        }
    }
}

impl Waits {
    /// Waits before the attempt after `failed` ones, or as long as the server asks.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub(crate) fn pause(
        &self,
        failed: u32,
        asked: Option<Duration>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<()> {
        let until = Instant::now() + asked.unwrap_or_else(|| self.backoff_after(failed));
        loop {
            if cancelled() {
                return Err(Error::Cancelled);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(POLL));
        }
    }

    fn backoff_after(&self, failed: u32) -> Duration {
        let doublings = failed.saturating_sub(1).min(16);
        let full = self.backoff.saturating_mul(1 << doublings).min(self.backoff_max);
        // Clients that were cut off together must not all come back together.
        let chance = RandomState::new().hash_one(failed) % 1000;
        full.mul_f64(1.0 - 0.0005 * chance as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound() {
        let waits = Waits::default();
        for (failed, full) in [(1, 500), (2, 1000), (3, 2000), (7, 20_000), (u32::MAX, 20_000)] {
            let wait = waits.backoff_after(failed).as_millis();
            assert!(wait <= full && wait >= full / 2, "{failed}: {wait}");
        }
    }

    #[test]
    fn a_wait_ends_when_someone_asks_to_stop() {
        let started = Instant::now();
        let stopped = Waits::default().pause(1, Some(Duration::from_secs(3600)), &|| true);
        assert!(matches!(stopped, Err(Error::Cancelled)));
        assert!(started.elapsed() < Duration::from_secs(60));
    }
}
