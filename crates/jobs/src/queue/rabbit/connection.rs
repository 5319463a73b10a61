//! One connection and its supervisor, which makes it again after any error.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use lapin::options::ConfirmSelectOptions;
use lapin::{Channel, Connect, Connection, ConnectionProperties, Event};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::options::Address;
use super::refusal;
use crate::queue::QueueError;

/// How long making a connection may take.
const CONNECT: Duration = Duration::from_secs(15);
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A connection that lived so long ends a row of failures.
const SETTLED: Duration = Duration::from_secs(10);

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Publish,
    Consume,
}

impl Purpose {
    fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Consume => "consume",
        }
    }
}

/// A connection that works.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) connection: Arc<Connection>,
    /// With confirms, if it is to publish.
    pub(super) channel: Channel,
    /// Counts the connections of a link.
    pub(super) generation: u64,
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection {}", self.generation)
    }
}

/// How a link is.
#[derive(Debug, Clone, Default)]
pub(super) struct LinkState {
    pub(super) connected: bool,
    pub(super) blocked: Option<String>,
    pub(super) server: Option<String>,
    pub(super) last_error: Option<String>,
}

/// A connection that comes back. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Link {
    shared: Arc<Shared>,
    live: watch::Receiver<Option<Live>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<LinkState>,
    /// The generation that somebody found broken.
    broken: Notify,
    closing: watch::Sender<bool>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, LinkState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    /// Begins to connect.
    pub(super) fn start(address: Address, name: &str, purpose: Purpose) -> Self {
        let (sender, live) = watch::channel(None);
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            broken: Notify::new(),
            closing: watch::channel(false).0,
        });
        let name = format!("{name} ({})", purpose.name());
        let supervisor = Supervisor { address, name, purpose, shared: shared.clone(), sender };
        tokio::spawn(supervisor.run());
        Self { shared, live }
    }

    pub(super) fn state(&self) -> LinkState {
        self.shared.state().clone()
    }

    /// The connection, once there is one. `None`: it was closed for good.
    pub(super) async fn live(&self) -> Option<Live> {
        let mut live = self.live.clone();
        let found = live.wait_for(Option::is_some).await.ok()?;
        found.clone()
    }

    /// The connection, if there is one within `limit`.
    pub(super) async fn live_within(&self, limit: Duration) -> Result<Live, QueueError> {
        let unavailable = || {
            let error = self.state().last_error.unwrap_or_else(|| "not connected yet".into());
            QueueError::Unavailable(error)
        };
        timeout(limit, self.live()).await.ok().flatten().ok_or_else(unavailable)
    }

    /// Somebody found a connection of no more use.
    pub(super) fn broken(&self, generation: u64, why: &str) {
        let current = self.live.borrow().as_ref().map(|live| live.generation);
        if current == Some(generation) {
            debug!(generation, why, "a connection is given up");
            self.shared.state().last_error = Some(why.to_owned());
            self.shared.broken.notify_one();
        }
    }

    /// Remembers what went wrong on a connection that goes on.
    pub(super) fn failed(&self, why: String) {
        self.shared.state().last_error = Some(why);
    }

    /// Ends it for good.
    pub(super) async fn close(&self) {
        self.shared.closing.send_replace(true);
        let mut live = self.live.clone();
        // The supervisor drops its end when it is done.
        let ended = async { while live.changed().await.is_ok() {} };
        let _ = timeout(Duration::from_secs(5), ended).await;
    }
}

struct Supervisor {
    address: Address,
    name: String,
    purpose: Purpose,
    shared: Arc<Shared>,
    sender: watch::Sender<Option<Live>>,
}

impl Supervisor {
    async fn run(self) {
        let mut closing = self.shared.closing.subscribe();
        let mut failures = 0u32;
        for generation in 1.. {
            let mut settled = None;
            let connected = tokio::select! {
                () = closed(&mut closing) => return,
                connected = timeout(CONNECT, self.connect(generation)) => connected,
            };
            let why = match connected {
                Ok(Ok(live)) => {
                    settled = Some(Instant::now());
                    self.serve(live, &mut closing).await
                }
                Ok(Err(error)) => Some(explain(&error)),
                Err(_) => Some(format!("no connection within {} s", CONNECT.as_secs())),
            };
            let Some(why) = why else { return };
            failures = match settled {
                Some(since) if since.elapsed() >= SETTLED => 0,
                _ => failures + 1,
            };
            self.lost(&why, failures);
            tokio::select! {
                () = closed(&mut closing) => return,
                () = sleep(pause(failures, rand::random())) => {}
            }
        }
    }

    async fn connect(&self, generation: u64) -> Result<Live, lapin::Error> {
        let properties =
            ConnectionProperties::default().with_connection_name(self.name.as_str().into());
        let Address { uri, tls } = self.address.clone();
        let runtime = lapin::runtime::default_runtime()?;
        let connection = uri.connect_with_config(properties, tls, runtime).await?;
        let channel = connection.create_channel().await?;
        if self.purpose == Purpose::Publish {
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
        }
        Ok(Live { connection: Arc::new(connection), channel, generation })
    }

    /// Offers the connection until it is lost, and says why; `None` if it was closed on purpose.
    async fn serve(&self, live: Live, closing: &mut watch::Receiver<bool>) -> Option<String> {
        let connection = live.connection.clone();
        let mut events = connection.events_listener();
        {
            let mut state = self.shared.state();
            state.connected = true;
            state.blocked = None;
            state.last_error = None;
        }
        info!(connection = self.name, generation = live.generation, "connected to the broker");
        self.sender.send_replace(Some(live));
        loop {
            let event = tokio::select! {
                () = closed(closing) => {
                    self.sender.send_replace(None);
                    self.shared.state().connected = false;
                    let goodbye = connection.close(200, "closing".into());
                    let _ = timeout(Duration::from_secs(3), goodbye).await;
                    return None;
                }
                () = self.shared.broken.notified() => {
                    let why = self.shared.state().last_error.clone();
                    return Some(why.unwrap_or_else(|| "it broke".into()));
                }
                event = events.next() => event,
            };
            match event {
                Some(Event::ConnectionBlocked(reason)) => {
                    warn!(connection = self.name, reason, "the broker takes no publications");
                    self.shared.state().blocked = Some(reason);
                }
                Some(Event::ConnectionUnblocked) => {
                    info!(connection = self.name, "the broker takes publications again");
                    self.shared.state().blocked = None;
                }
                Some(Event::Error(error)) => return Some(explain(&error)),
                Some(_) => {}
                None => return Some("the connection ended".into()),
            }
        }
    }

    fn lost(&self, why: &str, failures: u32) {
        let last = self.sender.send_replace(None);
        {
            let mut state = self.shared.state();
            state.connected = false;
            state.blocked = None;
            state.last_error = Some(why.to_owned());
        }
        // An outage is told once and then now and then, not five times a second.
        if failures <= 1 || failures.is_power_of_two() {
            warn!(connection = self.name, failures, why, "no connection to the broker");
        }
        if let Some(live) = last {
            // Whoever still has it must find it closed.
            tokio::spawn(async move {
                let goodbye = live.connection.close(200, "rebuilding".into());
                let _ = timeout(Duration::from_secs(3), goodbye).await;
            });
        }
    }
}

/// Waits until the link is closed for good, also by being dropped.
async fn closed(closing: &mut watch::Receiver<bool>) {
    // What it gives is a lock, which must not be held across a wait.
    let _ = closing.wait_for(|closing| *closing).await.map(|_| ());
}

/// Why there is no connection, with what to do about it where that is known.
fn explain(error: &lapin::Error) -> String {
    match refusal(error) {
        Some((403, text)) => {
            format!(
                "the broker refuses the user: {text}; check user, password and vhost of broker.url"
            )
        }
        Some((530, text)) => format!("{text}; make the vhost, or name another one in broker.url"),
        _ => error.to_string(),
    }
}

/// Doubles from 200 ms to 5 s; half of it is chance, so that a thousand workers do not come back at
/// once. `random` is in 0..1.
fn pause(failures: u32, random: f64) -> Duration {
    let whole = PAUSE_MIN.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(PAUSE_MAX);
    whole.mul_f64(0.5 + random / 2.)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_differ() {
        assert_eq!(pause(1, 1.), PAUSE_MIN);
        assert_eq!(pause(1, 0.), PAUSE_MIN / 2);
        assert!(pause(3, 0.) > pause(1, 1.));
        assert_eq!(pause(u32::MAX, 1.), PAUSE_MAX);
    }
}
