//! A connection that is made again whenever it is lost.
//!
//! lapin's own recovery stays off: it hides that leases were lost, and does not see every fault.
//! Channels belong to who uses them (`publish`, `consume`): these open new ones by themselves.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use lapin::{Connection, Event};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::options::Target;
use crate::queue::{Health, QueueError};

const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often a connection is looked at, should no event tell that it is gone.
const LOOK: Duration = Duration::from_secs(1);
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// What both connections of a queue share.
pub(super) struct Common {
    pub(super) target: Target,
    said: Mutex<Said>,
    /// Why the broker takes no publications.
    pub(super) blocked: watch::Sender<Option<String>>,
    pub(super) closed: watch::Sender<bool>,
}

#[derive(Default)]
struct Said {
    server: Option<String>,
    last_error: Option<String>,
}

impl Common {
    pub(super) fn new(target: Target) -> Self {
        let (blocked, closed) = (watch::Sender::new(None), watch::Sender::new(false));
        Self { target, said: Mutex::default(), blocked, closed }
    }

    /// Keeps and logs what went wrong; the same again only once.
    pub(super) fn went_wrong(&self, what: &str, error: &str) {
        let text = format!("{what}: {error}");
        let mut said = self.said();
        if said.last_error.as_deref() != Some(&text) {
            warn!(error = %text, "the broker");
            said.last_error = Some(text);
        }
    }

    pub(super) fn health(&self, connected: bool) -> Health {
        let said = self.said();
        Health {
            connected,
            blocked: self.blocked.borrow().is_some(),
            server: said.server.clone(),
            last_error: said.last_error.clone(),
        }
    }

    pub(super) fn server(&self) -> Option<String> {
        self.said().server.clone()
    }

    /// Why there is no connection.
    pub(super) fn unavailable(&self) -> QueueError {
        let last = self.said().last_error.clone();
        let why = if *self.closed.borrow() { "it was closed" } else { "not connected yet" };
        QueueError::Unavailable(last.unwrap_or_else(|| why.to_owned()))
    }

    /// Waits for the end; also that of everybody who could say it.
    pub(super) async fn until_closed(&self) {
        // The sender is ours, so this cannot fail.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection as those who use it see it: there, or not at the moment.
#[derive(Clone)]
pub(super) struct Link(watch::Receiver<Option<Arc<Connection>>>);

impl Link {
    /// Starts to connect. `what` names the connection; `publishes` makes it tell of blocking.
    pub(super) fn start(common: Arc<Common>, what: &'static str, publishes: bool) -> Self {
        let (sender, receiver) = watch::channel(None);
        tokio::spawn(async move {
            tokio::select! {
                () = supervise(&common, what, publishes, &sender) => {}
                () = common.until_closed() => {}
            }
            let last = sender.send_replace(None);
            if let Some(connection) = last {
                // It may be gone already.
                let _ = timeout(CLOSE_LIMIT, connection.close(200, "OK".into())).await;
            }
        });
        Self(receiver)
    }

    pub(super) fn now(&self) -> Option<Arc<Connection>> {
        self.0.borrow().clone().filter(|connection| connection.status().connected())
    }

    /// Waits for a connection; for ever after the end.
    pub(super) async fn wait(&mut self) -> Arc<Connection> {
        loop {
            if let Some(connection) = self.now() {
                return connection;
            }
            // It is looked at now and then, for a connection ends before its supervisor knows.
            if let Ok(Err(_)) = timeout(LOOK, self.0.changed()).await {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until the supervisor has stopped and closed the connection.
    pub(super) async fn ended(mut self) {
        let ended = async { while self.0.changed().await.is_ok() {} };
        let _ = timeout(CLOSE_LIMIT, ended).await;
    }
}

/// Connects for ever.
async fn supervise(
    common: &Common,
    what: &'static str,
    publishes: bool,
    sender: &watch::Sender<Option<Arc<Connection>>>,
) {
    let mut pause = Pause::new();
    loop {
        match common.target.connect(what).await {
            Ok(connection) => {
                if !publishes {
                    learn_server(common).await;
                }
                info!(what, broker = common.target.place(), "connected to the broker");
                let connection = Arc::new(connection);
                let begin = tokio::time::Instant::now();
                sender.send_replace(Some(connection.clone()));
                let error = watch_over(common, &connection, publishes).await;
                sender.send_replace(None);
                common.blocked.send_if_modified(|blocked| publishes && blocked.take().is_some());
                common.went_wrong(what, &error);
                // A broker that takes connections and drops them at once is no reason to hurry.
                if begin.elapsed() > PAUSE_MAX {
                    pause = Pause::new();
                }
            }
            Err(error) => common.went_wrong(what, &error),
        }
        pause.wait().await;
    }
}

/// Looks after a connection until it is lost, and says why it is.
async fn watch_over(common: &Common, connection: &Connection, publishes: bool) -> String {
    let mut events = connection.events_listener();
    let mut why = None;
    loop {
        let event = timeout(LOOK, events.next()).await;
        if publishes {
            match &event {
                Ok(Some(Event::ConnectionBlocked(reason))) => {
                    warn!(reason, "the broker takes no publications");
                    common.blocked.send_replace(Some(reason.clone()));
                }
                Ok(Some(Event::ConnectionUnblocked)) => {
                    info!("the broker takes publications again");
                    common.blocked.send_replace(None);
                }
                _ => {}
            }
        }
        if let Ok(Some(Event::Error(error))) = &event {
            why = Some(error.to_string());
        }
        if !connection.status().connected() {
            return why.unwrap_or_else(|| "the connection was lost".to_owned());
        }
    }
}

async fn learn_server(common: &Common) {
    if common.server().is_none() {
        let server = common.target.server().await;
        common.said().server = server;
    }
}

/// Ever longer pauses, each somewhat random, so that a whole pool does not come at once.
pub(super) struct Pause(Duration);

impl Pause {
    pub(super) fn new() -> Self {
        Self(PAUSE_MIN)
    }

    pub(super) async fn wait(&mut self) {
        let next = self.0;
        self.0 = (next * 2).min(PAUSE_MAX);
        sleep(next.mul_f64(rand::random_range(0.5..1.0))).await;
    }
}
