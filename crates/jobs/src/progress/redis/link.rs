//! The connection to Redis: made in the background, made again when it is lost, never waited for
//! longer than a call may take.
//!
//! The crate's own connection manager is not used: it gives up for good when a server refuses it
//! once (a wrong password, a server that still loads), and does not notice that a peer is gone
//! without a word.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, RedisResult};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::progress::ProgressError;

/// To connect, with TLS and a password.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// Between two tries to connect, at first and in the end.
const DELAYS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Calls in a row without an answer, after which the connection is given up.
const TIMEOUTS_MAX: u32 = 4;

/// A connection that is kept up.
#[derive(Debug)]
pub(super) struct Link {
    state: watch::Receiver<State>,
    /// Which connection is broken. One place: the first report is as good as the others.
    broken: mpsc::Sender<u64>,
    limit: Duration,
    timeouts: AtomicU32,
    task: AbortHandle,
}

#[derive(Debug, Clone)]
enum State {
    /// Not tried yet.
    Starting,
    Up {
        number: u64,
        connection: MultiplexedConnection,
    },
    Down(String),
}

impl Link {
    /// Begins to connect. The limit is that of every call.
    pub(super) fn new(client: Client, name: String, limit: Duration) -> Self {
        let (sender, state) = watch::channel(State::Starting);
        let (broken, reports) = mpsc::channel(1);
        let keeper = Keeper { client, name, limit, state: sender, reports };
        let task = tokio::spawn(keeper.run()).abort_handle();
        Self { state, broken, limit, timeouts: AtomicU32::new(0), task }
    }

    /// Runs commands within the limit.
    pub(super) async fn call<T, F>(
        &self,
        commands: impl FnOnce(MultiplexedConnection) -> F,
    ) -> Result<T, ProgressError>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let mut number = None;
        let work = async {
            let (current, connection) = self.connection().await?;
            number = Some(current);
            commands(connection).await.map_err(Failure::Redis)
        };
        let failure = match timeout(self.limit, work).await {
            Ok(Ok(value)) => {
                self.timeouts.store(0, Ordering::Relaxed);
                return Ok(value);
            }
            Ok(Err(failure)) => failure,
            Err(_) => Failure::Late,
        };
        let broken = match &failure {
            Failure::Down(_) => false,
            Failure::Redis(error) if !error.is_timeout() => error.is_unrecoverable_error(),
            // Too many of them: whoever is there, if anybody, does not answer.
            _ => self.timeouts.fetch_add(1, Ordering::Relaxed) + 1 >= TIMEOUTS_MAX,
        };
        if let (true, Some(number)) = (broken, number) {
            // Full: it is told already.
            let _ = self.broken.try_send(number);
            self.timeouts.store(0, Ordering::Relaxed);
        }
        Err(ProgressError(match failure {
            Failure::Down(message) => message,
            Failure::Redis(error) if !error.is_timeout() => explained(&error),
            _ => format!("no answer within {} ms", self.limit.as_millis()),
        }))
    }

    /// The current connection; waits only for the first try.
    async fn connection(&self) -> Result<(u64, MultiplexedConnection), Failure> {
        let mut state = self.state.clone();
        let state = state.wait_for(|state| !matches!(state, State::Starting)).await;
        match state.as_deref() {
            Ok(State::Up { number, connection }) => Ok((*number, connection.clone())),
            Ok(State::Down(message)) => Err(Failure::Down(message.clone())),
            Ok(State::Starting) | Err(_) => Err(Failure::Down("there is no connection".into())),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

enum Failure {
    Down(String),
    Redis(RedisError),
    Late,
}

/// Connects, for ever.
struct Keeper {
    client: Client,
    name: String,
    limit: Duration,
    state: watch::Sender<State>,
    reports: mpsc::Receiver<u64>,
}

impl Keeper {
    async fn run(mut self) {
        let mut delay = DELAYS.0;
        for number in 1.. {
            match self.connect().await {
                Ok(connection) => {
                    tracing::debug!(number, "connected to redis");
                    delay = DELAYS.0;
                    self.state.send_replace(State::Up { number, connection });
                    while self.reports.recv().await != Some(number) {
                        if self.reports.is_closed() {
                            return;
                        }
                    }
                    tracing::warn!("the connection to redis was lost");
                    self.state.send_replace(State::Down("the connection was lost".to_owned()));
                }
                Err(error) => {
                    let message = format!("there is no connection: {}", explained(&error));
                    // Each reason once: it is tried again for as long as it takes.
                    if !matches!(&*self.state.borrow(), State::Down(last) if *last == message) {
                        tracing::warn!(error = message, "redis cannot be reached");
                    }
                    self.state.send_replace(State::Down(message));
                }
            }
            // Half of it by chance, so that not all clients of a server come back at once.
            sleep(delay.mul_f64(rand::random_range(0.5..=1.0))).await;
            delay = DELAYS.1.min(delay * 2);
        }
    }

    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_LIMIT))
            .set_response_timeout(Some(self.limit));
        let connecting = self.client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = timeout(CONNECT_LIMIT, connecting)
            .await
            .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
        // For whoever looks at the server. Not every user may, nor does it matter.
        let mut named = redis::cmd("CLIENT");
        let named = named.arg("SETNAME").arg(&self.name).exec_async(&mut connection);
        let _ = timeout(self.limit, named).await;
        Ok(connection)
    }
}

/// What a person can do about it, where the server's words do not say.
fn explained(error: &RedisError) -> String {
    let text = error.to_string();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let remedy = if has(&["WRONGPASS", "NOAUTH", "invalid password", "authentication failed"]) {
        "; check user and password in the URL"
    } else if has(&["NOPERM"]) {
        "; the user needs `~excite:* +@all -@dangerous`"
    } else if has(&["OOM command not allowed"]) {
        "; raise `maxmemory` of the server"
    } else if has(&["READONLY"]) {
        "; this is a replica, use the primary's address"
    } else {
        ""
    };
    text + remedy
}
