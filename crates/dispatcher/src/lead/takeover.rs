//! Taking over: a new epoch, then every unfinished batch rebuilt from the store.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use excite_jobs::store::{Condition, StoreError};
use excite_jobs::{BatchId, Cursor, Leader as Lead, VERSION, keys};
use futures::{StreamExt, stream};
use time::OffsetDateTime;
use tokio::time::{Duration, Instant};
use tracing::{info, warn};

use super::activity::Activity;
use super::canary::Canary;
use super::leader::Leader;
use super::running::Running;
use super::status::Flow;
use super::uploads::UploadSweep;
use super::{LeadConfig, Metrics, Pause};
use crate::done_log;
use crate::estimates::Estimates;
use crate::header::{self, HeaderError, document, json};
use crate::manifest::Manifests;
use crate::pause::persistently;
use crate::ports::Ports;

/// Batches that are rebuilt at a time: each holds a few `done/` parts in memory.
const REBUILDS: usize = 8;
/// Tries to raise the epoch: as many replicas may want to at once.
const TRIES_MAX: u32 = 20;
/// Between two looks for batches whose announcement was lost.
const LIST_EVERY: Duration = Duration::from_secs(60);

impl Leader {
    /// Raises the epoch and rebuilds what is unfinished.
    pub(super) async fn take_over(
        ports: &Ports,
        config: &LeadConfig,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, HeaderError> {
        let started = Instant::now();
        let raise = || raise_epoch(ports, &config.name);
        let epoch = persistently(raise, HeaderError::is_transient).await?;
        metrics.epoch.set(i64::try_from(epoch).unwrap_or(i64::MAX));
        let estimates = Estimates::load(&*ports.store).await.unwrap_or_else(|error| {
            warn!(%error, "estimates cannot be read; they are measured again");
            Estimates::default()
        });
        let mut leader = Self {
            ports: ports.clone(),
            config: config.clone(),
            metrics: metrics.clone(),
            manifests: Manifests::new(ports.store.clone()),
            epoch,
            parts: 0,
            revisions: 0,
            batches: BTreeMap::new(),
            shares: BTreeMap::new(),
            unfed: VecDeque::new(),
            deferred: Vec::new(),
            cancelled: BTreeMap::new(),
            canary: Canary::default(),
            estimates,
            estimates_saved: (false, started),
            workers: Vec::new(),
            flows: BTreeMap::new(),
            images: Flow::default(),
            activity: Activity::new(),
            uploads: UploadSweep::new(),
            publishing: Pause::default(),
            storing: Pause::default(),
            mirroring: Pause::default(),
            feed_now: true,
            heard: started,
            checked: started,
            status_at: None,
            listed_at: started,
            looked_at: None,
        };
        leader.rebuild().await?;
        leader.remember_cancelled().await;
        metrics.leader.set(1);
        // Rebuilding may take longer than silence may last; messages wait meanwhile.
        leader.heard = Instant::now();
        let batches = leader.batches.len();
        info!(epoch, batches, seconds = started.elapsed().as_secs_f64(), "this dispatcher leads");
        Ok(leader)
    }

    /// The epoch of whoever leads now; 0 if nobody ever did.
    pub(super) async fn current_epoch(&self) -> Result<u64, HeaderError> {
        let lead = document::<Lead>(&*self.ports.store, keys::LEADER).await?;
        Ok(lead.map_or(0, |(lead, _)| lead.epoch))
    }

    async fn rebuild(&mut self) -> Result<(), HeaderError> {
        let ids = self.active().await?;
        let ports = self.ports.clone();
        let load = |id| {
            let ports = ports.clone();
            async move { load_named(&ports, id).await }
        };
        let mut rebuilt = stream::iter(ids).map(load).buffer_unordered(REBUILDS);
        while let Some((id, loaded)) = rebuilt.next().await {
            match loaded {
                // No header: it is being accepted, or was given up; it is announced if it comes.
                Ok(None) => {}
                Ok(Some(mut running)) => {
                    if self.config.queue_is_new {
                        running.give_back_all();
                    }
                    self.insert(id, running);
                }
                // One batch that nobody can read must not stop all others.
                Err(error @ HeaderError::Unreadable { .. }) => warn!(%id, %error, "left out"),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Batches that are marked as unfinished.
    async fn active(&self) -> Result<Vec<BatchId>, StoreError> {
        let mut ids = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let store = &self.ports.store;
            let list = || store.list(keys::ACTIVE_PREFIX, after.as_deref(), false);
            let page = persistently(list, StoreError::is_transient).await?;
            let names = page.keys.iter().filter_map(|key| key.strip_prefix(keys::ACTIVE_PREFIX));
            ids.extend(names.filter_map(|name| name.parse::<BatchId>().ok()));
            match page.keys.last() {
                Some(last) if page.more => after = Some(last.clone()),
                _ => return Ok(ids),
            }
        }
    }

    /// Finds batches whose announcement was lost: their dispatcher died between storing and
    /// announcing them.
    pub(super) async fn look_for_batches(&mut self) {
        if self.listed_at.elapsed() < LIST_EVERY || !self.storing.is_over() {
            return;
        }
        self.listed_at = Instant::now();
        match self.active().await {
            Ok(ids) => {
                let known = |id: &BatchId| self.batches.contains_key(id);
                let lost: Vec<_> = ids.into_iter().filter(|id| !known(id)).collect();
                for id in lost {
                    // What fails is found again in a minute.
                    let _ = self.ensure(id).await;
                }
            }
            Err(error) => {
                warn!(%error, "unfinished batches cannot be listed");
                self.storing.failed();
            }
        }
    }

    /// Makes sure that a batch is in memory. `Ok(false)`: there is no such batch.
    ///
    /// # Errors
    /// `()` if the store fails, which was reported: try again later.
    pub(super) async fn ensure(&mut self, id: BatchId) -> Result<bool, ()> {
        if self.batches.contains_key(&id) {
            return Ok(true);
        }
        if !self.storing.is_over() {
            return Err(());
        }
        match load_named(&self.ports, id).await.1 {
            Ok(None) => Ok(false),
            Ok(Some(running)) => {
                self.storing.worked();
                self.insert(id, running);
                self.feed_now = true;
                Ok(true)
            }
            Err(error @ HeaderError::Unreadable { .. }) => {
                warn!(%id, %error, "a batch cannot be read; what is said of it is dropped");
                Ok(false)
            }
            Err(error) => {
                warn!(%id, %error, "a batch cannot be read yet");
                self.storing.failed();
                Err(())
            }
        }
    }

    fn insert(&mut self, id: BatchId, running: Running) {
        let header = &running.header;
        if header.cancelled {
            self.cancelled.insert(id, Instant::now());
        } else {
            let key = (header.class.clone(), header.lane);
            self.shares.entry(key).or_default().join(id);
            self.unfed.extend(running.last_claim().into_iter().map(|index| (id, index)));
        }
        self.batches.insert(id, running);
    }
}

async fn load_named(ports: &Ports, id: BatchId) -> (BatchId, Result<Option<Running>, HeaderError>) {
    (id, load(ports, id).await)
}

/// A batch as the store has it; `None` if there is none.
async fn load(ports: &Ports, id: BatchId) -> Result<Option<Running>, HeaderError> {
    let store = &*ports.store;
    let header = || header::load(store, id);
    let header = persistently(header, HeaderError::is_transient).await?;
    let Some((header, _)) = header else { return Ok(None) };
    let key = keys::cursor(id);
    let cursor = || document::<Cursor>(store, &key);
    let mut cursor = persistently(cursor, HeaderError::is_transient).await?;
    let mut folded =
        done_log::fold(store, &header, cursor.as_ref().map(|(cursor, _)| *cursor)).await?;
    if let (false, Some((cursor, _))) = (folded.whole, &mut cursor) {
        // Nobody would report again what was lost: jobs of which nothing is known are fed once
        // more, and whoever gets one that was made finds its image.
        warn!(%id, "conclusions are lost; the batch is fed again from its beginning");
        (cursor.from, cursor.to) = (0, 0);
        folded = done_log::fold(store, &header, Some(*cursor)).await?;
    }
    Ok(Some(Running::new(header, folded, cursor)))
}

async fn raise_epoch(ports: &Ports, name: &str) -> Result<u64, HeaderError> {
    for _ in 0..TRIES_MAX {
        let found = document::<Lead>(&*ports.store, keys::LEADER).await?;
        let (last, condition) = match found {
            Some((lead, etag)) => (lead.epoch, Condition::Unchanged(etag)),
            None => (0, Condition::Absent),
        };
        let lead = Lead {
            v: VERSION,
            epoch: last + 1,
            dispatcher: name.to_owned(),
            since: OffsetDateTime::now_utc(),
        };
        match ports.store.put(keys::LEADER, json(&lead), condition).await {
            Ok(_) => return Ok(lead.epoch),
            Err(StoreError::Conflict(_)) => header::pause().await,
            Err(error) => return Err(error.into()),
        }
    }
    Err(HeaderError::Contended { key: keys::LEADER.to_owned() })
}
