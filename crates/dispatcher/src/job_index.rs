//! The jobs of a batch, found by state, score, label and name.
//!
//! Of each concluded job some twenty bytes are kept: where it is, its score, and where its record
//! lies in `done/`. The index of a batch is made when somebody looks, and follows what is recorded
//! while they do; a few are kept. Not here: what a job is shown as (`http::jobs`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use excite_jobs::store::{Store, StoreError};
use excite_jobs::{Batch, BatchId, Done, JobState, State, keys};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;
use tracing::warn;

/// Batches whose index is kept.
const KEPT_MAX: usize = 4;
/// Jobs of a batch that can be indexed: some 100 MB.
const JOBS_MAX: u32 = 2_000_000;
/// How soon what was recorded is found.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Parts that are read at a time.
const READ_AHEAD: usize = 8;

/// Why there is no index of a batch.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// It would take too much memory.
    #[error("batch {batch} has {jobs} jobs, and those of at most {JOBS_MAX} are looked up")]
    TooLarge {
        /// The batch.
        batch: BatchId,
        /// How many it has.
        jobs: u32,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// Among the parts that were read.
    part: u32,
    line: u32,
}

/// A concluded job.
#[derive(Debug, Clone, Copy)]
struct Entry {
    job: JobState,
    /// The least score; none without subjects.
    score: Option<f32>,
    /// Of the record that counts.
    place: Place,
}

/// The concluded jobs of a batch.
#[derive(Debug, Default)]
pub struct Index {
    parts: Vec<String>,
    read: BTreeSet<String>,
    jobs: HashMap<u32, Entry>,
    /// Records of jobs that have more than one, in the order in which they were read.
    others: HashMap<u32, Vec<Place>>,
    looked: Option<Instant>,
}

/// Indexes of batches.
pub struct JobIndexes {
    store: Arc<dyn Store>,
    /// Used last at the end.
    kept: Mutex<Vec<(BatchId, Arc<tokio::sync::Mutex<Index>>)>>,
}

/// A job as the index knows it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found {
    /// Its place in the batch.
    pub index: u32,
    /// Where it is.
    pub state: State,
    /// Its least score.
    pub score: Option<f32>,
    /// Grows with the order in which jobs were concluded; none if it was not.
    pub concluded: Option<u64>,
}

impl JobIndexes {
    /// Over a store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, kept: Mutex::default() }
    }

    /// The index of a batch, as new as the store a moment ago. Whoever holds it holds up others
    /// that look at the same batch.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub async fn of(
        &self,
        batch: &Batch,
    ) -> Result<tokio::sync::OwnedMutexGuard<Index>, IndexError> {
        if batch.jobs > JOBS_MAX {
            return Err(IndexError::TooLarge { batch: batch.id, jobs: batch.jobs });
        }
        let index = self.kept(batch.id);
        let mut index = index.lock_owned().await;
        if index.looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
            index.refresh(&*self.store, batch.id).await?;
            index.looked = Some(Instant::now());
        }
        Ok(index)
    }

    /// The records of these jobs that count, by place.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn records(
        &self,
        index: &Index,
        jobs: &[u32],
    ) -> Result<BTreeMap<u32, Done>, StoreError> {
        let places = jobs.iter().filter_map(|job| Some(index.jobs.get(job)?.place));
        let records = self.read(index, places.collect()).await?;
        Ok(records.into_iter().map(|done| (done.index, done)).collect())
    }

    /// All records of a job, in order.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn history(&self, index: &Index, job: u32) -> Result<Vec<Done>, StoreError> {
        let places = match (index.others.get(&job), index.jobs.get(&job)) {
            (Some(places), _) => places.clone(),
            (None, Some(entry)) => vec![entry.place],
            (None, None) => Vec::new(),
        };
        let mut records = self.read(index, places).await?;
        records.sort_by_key(|done| (done.at, done.lease));
        Ok(records)
    }

    async fn read(&self, index: &Index, places: Vec<Place>) -> Result<Vec<Done>, StoreError> {
        let mut lines: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        places.iter().for_each(|place| lines.entry(place.part).or_default().push(place.line));
        let get = |(part, lines): (u32, Vec<u32>)| async move {
            let Some(key) = index.parts.get(part as usize) else { return Ok(Vec::new()) };
            // Taken away meanwhile: the batch is being deleted.
            let Some(object) = self.store.get(key).await? else { return Ok(Vec::new()) };
            let all: Vec<&[u8]> = object.body.split(|byte| *byte == b'\n').collect();
            let found = lines.iter().filter_map(|line| all.get(*line as usize));
            Ok::<_, StoreError>(
                found.filter_map(|line| serde_json::from_slice(line).ok()).collect(),
            )
        };
        let read: Vec<Vec<Done>> =
            stream::iter(lines).map(get).buffered(READ_AHEAD).try_collect().await?;
        Ok(read.into_iter().flatten().collect())
    }

    fn kept(&self, batch: BatchId) -> Arc<tokio::sync::Mutex<Index>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(id, _)| *id == batch);
        let entry = at.map(|at| kept.remove(at)).unwrap_or_else(|| (batch, Arc::default()));
        let index = entry.1.clone();
        if kept.len() >= KEPT_MAX {
            kept.remove(0);
        }
        kept.push(entry);
        index
    }
}

impl Index {
    /// The jobs that are concluded, by place.
    pub fn concluded(&self) -> impl Iterator<Item = Found> {
        self.jobs.iter().map(|(index, entry)| Found {
            index: *index,
            state: entry.job.state,
            score: entry.score,
            concluded: Some(u64::from(entry.place.part) << 32 | u64::from(entry.place.line)),
        })
    }

    /// Where a job is, if anything was concluded of it.
    pub fn state(&self, index: u32) -> Option<State> {
        self.jobs.get(&index).map(|entry| entry.job.state)
    }

    async fn refresh(&mut self, store: &dyn Store, batch: BatchId) -> Result<(), StoreError> {
        let prefix = keys::done_prefix(batch);
        let mut after: Option<String> = None;
        loop {
            let page = store.list(&prefix, after.as_deref(), false).await?;
            // Parts of another leader may lie in front of some that were read.
            let new: Vec<String> =
                page.keys.iter().filter(|key| !self.read.contains(*key)).cloned().collect();
            let get = |key: String| async move {
                let object = store.get(&key).await?;
                Ok::<_, StoreError>((key, object))
            };
            let mut parts = stream::iter(new).map(get).buffered(READ_AHEAD);
            while let Some(part) = parts.next().await {
                let (key, object) = part?;
                if let Some(object) = object {
                    self.take(key, &object.body);
                }
            }
            drop(parts);
            match page.keys.last() {
                Some(last) if page.more => after = Some(last.clone()),
                _ => return Ok(()),
            }
        }
    }

    fn take(&mut self, key: String, body: &[u8]) {
        let part = u32::try_from(self.parts.len()).unwrap_or(u32::MAX);
        for (line, text) in (0..).zip(body.split(|byte| *byte == b'\n')) {
            if text.is_empty() {
                continue;
            }
            match serde_json::from_slice::<Done>(text) {
                Ok(done) => self.note(&done, Place { part, line }),
                Err(error) => warn!(key, %error, "a conclusion cannot be read, skipped"),
            }
        }
        self.read.insert(key.clone());
        self.parts.push(key);
    }

    fn note(&mut self, done: &Done, place: Place) {
        let score = done
            .success
            .as_ref()
            .and_then(|success| success.scores.iter().flatten().copied().reduce(f32::min));
        let Some(known) = self.jobs.get_mut(&done.index) else {
            let job = done.absorbed_by(JobState::QUEUED);
            self.jobs.insert(done.index, Entry { job, score, place });
            return;
        };
        self.others.entry(done.index).or_insert_with(|| vec![known.place]).push(place);
        let after = done.absorbed_by(known.job);
        if after != known.job {
            *known = Entry { job: after, score, place };
        }
    }
}

#[cfg(test)]
mod tests {
    use excite_jobs::store::Condition;
    use excite_jobs::store::directory::DirectoryStore;

    use super::*;

    fn line(index: u32, state: &str, lease: u32, score: Option<f32>) -> String {
        let success = score.map(|score| {
            serde_json::json!({"key": "", "sha256": "", "seconds": 1., "steps": 2, "loss": null,
                "scores": [0.9, score]})
        });
        let done = serde_json::json!({"v": 1, "index": index, "state": state, "reason": "reported",
            "lease": lease, "attempt": lease, "at": format!("2026-01-02T03:04:0{lease}Z"),
            "success": success});
        format!("{done}\n")
    }

    fn found(index: u32, state: State, score: Option<f32>, place: (u64, u64)) -> Found {
        Found { index, state, score, concluded: Some(place.0 << 32 | place.1) }
    }

    fn batch() -> Batch {
        let header = serde_json::json!({"v": 1, "id": BatchId::new(), "revision": 1,
            "tenant": "default", "created_at": "2026-01-02T03:04:05Z", "jobs": 9, "lines": 9,
            "parts": [], "model": "emoji@0", "class": "default", "lane": "bulk",
            "max_attempts": 8, "weight": 1, "work": {"plain": 1., "guided": 0.},
            "body_sha256": ""});
        serde_json::from_value(header).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn jobs_are_found_as_they_are_recorded() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(DirectoryStore::open(folder.path()).unwrap());
        let batch = batch();
        let put = async |epoch, n, lines: &[String]| {
            let body = lines.concat().into_bytes().into();
            store.put(&keys::done(batch.id, epoch, n), body, Condition::Always).await.unwrap();
        };
        put(2, 0, &[line(0, "retrying", 2, None), line(1, "succeeded", 1, Some(0.5))]).await;
        let indexes = JobIndexes::new(store.clone());
        let index = indexes.of(&batch).await.unwrap();
        assert_eq!(index.state(0), Some(State::Retrying));
        drop(index);

        // Of an earlier leader, whose part comes late; and a torn line.
        put(1, 7, &[line(2, "dead", 1, None), "{\"v\":1,\n".to_owned()]).await;
        put(2, 1, &[line(0, "succeeded", 2, Some(0.25)), line(1, "dead", 1, None)]).await;
        assert_eq!(indexes.of(&batch).await.unwrap().state(2), None, "looked a moment ago");
        let larger = Batch { jobs: JOBS_MAX + 1, ..batch.clone() };
        assert!(matches!(indexes.of(&larger).await, Err(IndexError::TooLarge { .. })));
        tokio::time::advance(LOOK_EVERY).await;
        let index = indexes.of(&batch).await.unwrap();
        let mut all: Vec<Found> = index.concluded().collect();
        all.sort_by_key(|found| found.index);
        let want = [
            found(0, State::Succeeded, Some(0.25), (2, 0)),
            found(1, State::Succeeded, Some(0.5), (0, 1)),
            found(2, State::Dead, None, (1, 0)),
        ];
        assert_eq!(all, want);
        let records = indexes.records(&index, &[0, 1, 5]).await.unwrap();
        let states: Vec<_> = records.values().map(|done| (done.index, done.state)).collect();
        assert_eq!(states, [(0, State::Succeeded), (1, State::Succeeded)]);
        let history = indexes.history(&index, 0).await.unwrap();
        let states: Vec<State> = history.iter().map(|done| done.state).collect();
        assert_eq!(states, [State::Retrying, State::Succeeded]);
        assert_eq!(indexes.history(&index, 5).await.unwrap(), []);
    }
}
