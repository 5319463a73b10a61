//! `/v1/events` and `/v1/batches/{id}/events`: what changes, as server-sent events.
//!
//! What is watched is read once, however many watch it: one task a batch, one for the rest; it ends
//! with the last listener. A listener that is too slow misses what is between, never the last. Not
//! here: who may listen (`access`), who writes events (`lead::mirror`).

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use excite_jobs::BatchId;
use excite_jobs::api::BatchProgressed;
use excite_jobs::progress::BatchEvent;
use futures::{Stream, stream};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::debug;

use super::App;
use super::access::Caller;
use super::extract::{OfBatch, text};
use super::openapi::Problems;
use super::problem::Fault;
use super::system::workers_now;

/// Between two looks at a batch: it changes no more than four times a second.
const BATCH_EVERY: Duration = Duration::from_millis(250);
/// Between two looks at a batch's header, which says whether it is paused.
const HEADER_EVERY: Duration = Duration::from_secs(1);
/// Between two looks at everything else.
const WORKERS_EVERY: Duration = Duration::from_secs(1);
/// Of those, how many until the overview's turn.
const OVERVIEW_TURN: u64 = 2;
/// Events of a batch that are read at a time; only the last one counts.
const EVENTS: usize = 1000;
/// Silence that a proxy in between endures.
const COMMENT_EVERY: Duration = Duration::from_secs(15);
/// How soon a listener whose token was taken away is left alone.
const WELCOME_EVERY: Duration = Duration::from_secs(2);

/// What is told last, for whoever begins to listen.
#[derive(Debug, Clone, Default)]
struct Told {
    /// By the name of the event: its id, if it has one, and its data.
    events: Vec<(&'static str, Option<String>, String)>,
    /// Nothing more comes.
    over: bool,
}

type Hub = watch::Receiver<Told>;

/// What is watched now.
#[derive(Default)]
pub(super) struct Hubs {
    hubs: Mutex<HashMap<Option<BatchId>, Weak<HubOwner>>>,
}

/// Keeps the task alive that reads what is watched.
struct HubOwner {
    hub: Hub,
    _reading: tokio_util::task::AbortOnDropHandle<()>,
}

impl Hubs {
    fn of(&self, app: &Arc<App>, batch: Option<BatchId>) -> Arc<HubOwner> {
        let mut hubs = self.hubs.lock().unwrap_or_else(PoisonError::into_inner);
        hubs.retain(|_, hub| hub.strong_count() > 0);
        if let Some(hub) = hubs.get(&batch).and_then(Weak::upgrade) {
            return hub;
        }
        let (tell, hub) = watch::channel(Told::default());
        let app = Arc::downgrade(app);
        let reading = match batch {
            Some(batch) => tokio::spawn(read_batch(app, batch, tell)),
            None => tokio::spawn(read_system(app, tell)),
        };
        let reading = tokio_util::task::AbortOnDropHandle::new(reading);
        let owner = Arc::new(HubOwner { hub, _reading: reading });
        hubs.insert(batch, Arc::downgrade(&owner));
        owner
    }
}

/// Watch a batch: server-sent events.
///
/// `progress` (`BatchProgressed`) at most four times a second, `gone` when it is deleted. With
/// `Last-Event-ID` nothing comes twice.
#[utoipa::path(
    get,
    path = "/v1/batches/{id}/events",
    tag = "batches",
    operation_id = "watchBatch",
    params(OfBatch, ("last-event-id" = Option<String>, Header, nullable = false)),
    responses(
        (status = 200, description = "Events.", body = String, content_type = "text/event-stream"),
        Problems
    )
)]
pub(super) async fn of_batch(
    State(app): State<Arc<App>>,
    OfBatch(id): OfBatch,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Fault> {
    app.batch(id).await?;
    let last = text(&headers, "last-event-id")?.map(str::to_owned);
    Ok(listen(app.hubs.of(&app, Some(id)), caller, last))
}

/// Watch everything: server-sent events `overview` (`Overview`) and `workers` (`Workers`).
#[utoipa::path(
    get,
    path = "/v1/events",
    tag = "system",
    operation_id = "watchSystem",
    responses(
        (status = 200, description = "Events.", body = String, content_type = "text/event-stream"),
        Problems
    )
)]
pub(super) async fn of_system(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    listen(app.hubs.of(&app, None), caller, None)
}

/// The stream of a listener. `last` is the id of the event that it has seen.
fn listen(
    owner: Arc<HubOwner>,
    caller: Caller,
    last: Option<String>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let mut hub = owner.hub.clone();
    // What was told last is told to whoever comes.
    hub.mark_changed();
    let listener = Listener { owner, hub, caller, last, ready: Vec::new(), told: HashMap::new() };
    let events = stream::unfold(listener, async |mut listener| {
        let event = listener.next().await?;
        Some((Ok(event), listener))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(COMMENT_EVERY))
}

struct Listener {
    /// As long as somebody has it, the hub is read.
    #[expect(dead_code, reason = "held")]
    owner: Arc<HubOwner>,
    hub: Hub,
    caller: Caller,
    last: Option<String>,
    ready: Vec<Event>,
    /// The data that was sent last, by event.
    told: HashMap<&'static str, String>,
}

impl Listener {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop() {
                return Some(event);
            }
            if !self.caller.is_welcome() || self.hub.borrow().over {
                return None;
            }
            let changed = tokio::time::timeout(WELCOME_EVERY, self.hub.changed()).await;
            match changed {
                Ok(Ok(())) => self.take(),
                // Nobody tells any more.
                Ok(Err(_)) => return None,
                Err(_) => {}
            }
        }
    }

    fn take(&mut self) {
        let told = self.hub.borrow_and_update().clone();
        for (name, id, data) in told.events.into_iter().rev() {
            let seen = id.is_some() && id == self.last || self.told.get(name) == Some(&data);
            if seen {
                continue;
            }
            let event = Event::default().event(name).data(&data);
            self.ready.push(match &id {
                Some(id) => event.id(id),
                None => event,
            });
            self.told.insert(name, data);
        }
    }
}

async fn read_batch(app: Weak<App>, id: BatchId, tell: watch::Sender<Told>) {
    let mut ticks = interval(BATCH_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last: Option<(String, BatchEvent)> = None;
    let mut header_at: Option<Instant> = None;
    let mut state = None;
    loop {
        ticks.tick().await;
        let Some(app) = app.upgrade() else { return };
        let after = last.as_ref().map(|(id, _)| id.clone());
        let new = match app.ports.progress.events(id, after.as_deref(), EVENTS).await {
            Ok(events) => events.into_iter().next_back(),
            Err(error) => {
                debug!(batch = %id, %error, "events cannot be read");
                None
            }
        };
        let changed = new.is_some();
        if let Some(new) = new {
            last = Some(new);
        }
        if header_at.is_none_or(|at| at.elapsed() >= HEADER_EVERY) {
            header_at = Some(Instant::now());
            // Fills what is kept, too: who asks while others listen waits for no store.
            match app.looks.read(id).await {
                Ok(Some(look)) => {
                    let view = app.with_sums(&look).await;
                    let now = Some((view.state, view.revision, view.tally));
                    if now == state && !changed {
                        continue;
                    }
                    state = now;
                }
                Ok(None) => {
                    let events = vec![("gone", None, "{}".to_owned())];
                    tell.send_replace(Told { events, over: false });
                    tokio::time::sleep(HEADER_EVERY).await;
                    tell.send_modify(|told| told.over = true);
                    return;
                }
                Err(error) => debug!(batch = %id, %error, "a batch cannot be read"),
            }
        } else if !changed {
            continue;
        }
        let Some((batch_state, revision, tally)) = state.clone() else { continue };
        let (event_id, at, tally) = match (&last, tally) {
            (Some((id, event)), _) => (Some(id.clone()), event.at, event.tally.clone()),
            // The mirror of a batch that finished long ago is gone.
            (None, Some(tally)) => (None, time::OffsetDateTime::now_utc(), tally),
            (None, None) => continue,
        };
        // A change of the header alone has the id of the event before, and is told all the same.
        let event_id = event_id.filter(|_| changed);
        let progressed = BatchProgressed { at, tally, state: batch_state, revision };
        let data = serde_json::to_string(&progressed).unwrap_or_default();
        tell.send_replace(Told { events: vec![("progress", event_id, data)], over: false });
    }
}

async fn read_system(app: Weak<App>, tell: watch::Sender<Told>) {
    let mut ticks = interval(WORKERS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut overview = String::new();
    for turn in 0_u64.. {
        ticks.tick().await;
        let Some(app) = app.upgrade() else { return };
        if turn.is_multiple_of(OVERVIEW_TURN) {
            overview = serde_json::to_string(&app.overview().await).unwrap_or_default();
        }
        let workers = serde_json::to_string(&workers_now(&app).await).unwrap_or_default();
        let events = vec![("overview", None, overview.clone()), ("workers", None, workers)];
        tell.send_replace(Told { events, over: false });
    }
}
