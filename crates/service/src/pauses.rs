//! How long to wait before something that failed is tried again.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(10);

/// Growing pauses with jitter, so that many processes do not come back together.
#[derive(Debug)]
pub struct Pauses {
    next: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Pauses {
    /// Waits; the next time about twice as long.
    pub async fn pause(&mut self) {
        let part = rand::random_range(0.5..1.);
        tokio::time::sleep(self.next.mul_f64(part)).await;
        self.next = (self.next * 2).min(LONGEST);
    }
}
