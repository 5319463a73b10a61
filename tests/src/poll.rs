//! Waiting for what happens, never for time: ask again until it is so, or say what did not come.

use std::fmt::Display;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep, timeout_at};

/// How long to leave a server alone between two questions.
const PAUSE: Duration = Duration::from_millis(20);

/// What came of asking once.
#[derive(Debug)]
pub enum Try<T> {
    /// It is so.
    Done(T),
    /// Not yet, and what there is instead.
    Again(String),
    /// It will never be so.
    Never(anyhow::Error),
}

/// What a question to [`eventually`] may answer.
pub trait Attempt {
    /// What is there in the end.
    type Value;

    /// What came of it.
    fn outcome(self) -> Try<Self::Value>;
}

impl<T> Attempt for Try<T> {
    type Value = T;

    fn outcome(self) -> Try<T> {
        self
    }
}

impl<T> Attempt for Option<T> {
    type Value = T;

    fn outcome(self) -> Try<T> {
        self.map_or_else(|| Try::Again("nothing".to_owned()), Try::Done)
    }
}

/// The error is what there is instead: `Err(format!("{count} messages"))`.
impl<T, E: Display> Attempt for Result<T, E> {
    type Value = T;

    fn outcome(self) -> Try<T> {
        // `#`, for the causes of what anyhow carries.
        self.map_or_else(|error| Try::Again(format!("{error:#}")), Try::Done)
    }
}

impl Attempt for bool {
    type Value = ();

    fn outcome(self) -> Try<()> {
        if self { Try::Done(()) } else { Try::Again("not so".to_owned()) }
    }
}

/// Asks every 20 ms until the answer is there; after the limit, fails with what was waited for and
/// the last answer.
///
/// ```
/// # tokio_test(async {
/// use std::time::Duration;
/// let mut count = 0;
/// let five = excite_tests::eventually(Duration::from_secs(1), "five", async || {
///     count += 1;
///     if count == 5 { Ok(count) } else { Err(format!("{count}")) }
/// });
/// assert_eq!(five.await.unwrap(), 5);
/// # });
/// # fn tokio_test(f: impl Future<Output = ()>) {
/// #     tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(f)
/// # }
/// ```
pub async fn eventually<A: Attempt>(
    limit: Duration,
    what: &str,
    mut ask: impl AsyncFnMut() -> A,
) -> Result<A::Value> {
    let end = Instant::now() + limit;
    let mut last = None;
    loop {
        // A question that hangs must not outlast the limit either.
        match timeout_at(end, ask()).await.map(Attempt::outcome) {
            Ok(Try::Done(value)) => return Ok(value),
            Ok(Try::Never(error)) => return Err(error.context(format!("waiting for {what}"))),
            Ok(Try::Again(instead)) => last = Some(instead),
            Err(_) => {}
        }
        if Instant::now() >= end {
            let last = last.unwrap_or_else(|| "no answer at all".to_owned());
            bail!("waited {:.1} s for {what}; last: {last}", limit.as_secs_f64());
        }
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn the_failure_says_what_was_waited_for_and_the_last_answer() {
        let mut count = 0;
        let error = eventually(SOON, "a hundred", async || {
            count += 1;
            if count == 100 { Ok(()) } else { Err("fewer") }
        });
        let error = error.await.unwrap_err().to_string();
        assert_eq!(error, "waited 0.1 s for a hundred; last: fewer");
    }

    #[tokio::test]
    async fn a_question_that_hangs_ends_at_the_limit() {
        let error = eventually(SOON, "an end", async || std::future::pending::<bool>().await);
        let error = error.await.unwrap_err().to_string();
        assert_eq!(error, "waited 0.1 s for an end; last: no answer at all");
    }

    #[tokio::test]
    async fn what_can_never_be_ends_the_wait() {
        let limit = Duration::from_secs(60);
        let ask = async || Try::<()>::Never(anyhow::anyhow!("it ended"));
        let error = eventually(limit, "a server", ask).await.unwrap_err();
        assert_eq!(format!("{error:#}"), "waiting for a server: it ended");
    }
}
