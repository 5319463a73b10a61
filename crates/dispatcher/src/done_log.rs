//! What was concluded of a batch: the `done/` parts, read in order, appended, and folded into
//! where every job is now.
//!
//! A part is one object: it is there whole or not at all. Parts of two dispatchers that led at
//! once may overlap; folding counts each conclusion once. Not here: what is concluded (`lead`).

use std::collections::HashMap;

use excite_jobs::store::{Condition, Store, StoreError};
use excite_jobs::{Batch, BatchId, Cursor, DeadReason, Done, JobState, State, Tally, keys};
use futures::{StreamExt, stream};
use tracing::warn;

use crate::job_states::JobStates;
use crate::pause::persistently;

/// Parts that are read at a time: each has at most a thousand conclusions, some 500 KB.
const READ_AHEAD: usize = 8;

/// Reads all conclusions of a batch in the order of their parts' keys, behind the part `after`.
/// `visit` is given the part's key and a conclusion. A line that cannot be read is skipped with a
/// warning: a newer version wrote it, and what it says comes again with the next report.
///
/// # Errors
/// If the store fails several times in a row.
pub async fn read(
    store: &dyn Store,
    batch: BatchId,
    after: Option<&str>,
    visit: &mut (dyn FnMut(&str, Done) + Send),
) -> Result<bool, StoreError> {
    let mut whole = true;
    let prefix = keys::done_prefix(batch);
    let mut after = after.map(str::to_owned);
    loop {
        let list = || store.list(&prefix, after.as_deref(), false);
        let page = persistently(list, StoreError::is_transient).await?;
        let get = |key: String| async move {
            let object = persistently(|| store.get(&key), StoreError::is_transient).await;
            (key, object)
        };
        let mut parts = stream::iter(page.keys.clone()).map(get).buffered(READ_AHEAD);
        while let Some((key, object)) = parts.next().await {
            let object = match object {
                Ok(Some(object)) => object,
                // Taken away meanwhile: the batch is being deleted.
                Ok(None) => continue,
                Err(error @ StoreError::Damaged { .. }) => {
                    warn!(key, %error, "conclusions cannot be read, skipped");
                    whole = false;
                    continue;
                }
                Err(error) => return Err(error),
            };
            for line in object.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                match serde_json::from_slice(line) {
                    Ok(done) => visit(&key, done),
                    Err(error) => {
                        warn!(key, %error, "a conclusion cannot be read, skipped");
                        whole = false;
                    }
                }
            }
        }
        drop(parts);
        match page.keys.last() {
            Some(last) if page.more => after = Some(last.clone()),
            _ => return Ok(whole),
        }
    }
}

/// Appends conclusions as the `n`th part of an epoch. Doing it again with the same is no error.
///
/// # Errors
/// [`StoreError::Conflict`] if another dispatcher of the same epoch wrote something else there.
pub async fn append(
    store: &dyn Store,
    batch: BatchId,
    epoch: u64,
    n: u64,
    conclusions: &[Done],
) -> Result<(), StoreError> {
    let key = keys::done(batch, epoch, n);
    let mut body = Vec::with_capacity(conclusions.len() * 512);
    for done in conclusions {
        body.extend_from_slice(&crate::header::json(done));
        body.push(b'\n');
    }
    let body = bytes::Bytes::from(body);
    match store.put(&key, body.clone(), Condition::Absent).await {
        Ok(_) => Ok(()),
        // Our own put, whose answer was lost.
        Err(StoreError::Conflict(key)) => match store.get(&key).await? {
            Some(object) if object.body == body => Ok(()),
            _ => Err(StoreError::Conflict(key)),
        },
        Err(error) => Err(error),
    }
}

/// Where the jobs of a batch are, as far as the store knows.
#[derive(Debug, Clone, PartialEq)]
pub struct Folded {
    /// Each job.
    pub states: JobStates,
    /// Sums over them.
    pub tally: Tally,
    /// Why the dead ones are.
    pub dead: HashMap<u32, DeadReason>,
    /// All that was concluded could be read.
    pub whole: bool,
}

impl Folded {
    /// A batch of which nothing happened.
    pub fn new(jobs: u32) -> Self {
        let states = JobStates::waiting(jobs);
        let tally = Tally {
            states: [(State::Waiting, u64::from(jobs))].into_iter().collect(),
            ..Tally::default()
        };
        Self { states, tally, dead: HashMap::new(), whole: true }
    }

    /// Takes a conclusion in. `false` if it changes nothing.
    pub fn take(&mut self, done: &Done) -> bool {
        if done.index >= self.states.jobs() {
            return false;
        }
        let known = self.states.get(done.index);
        let after = done.absorbed_by(known);
        if after == known {
            return false;
        }
        self.moved(done.index, known, after);
        self.conclude(done, known);
        true
    }

    /// A job goes where no conclusion was written for: fed, or started.
    pub fn moved(&mut self, index: u32, from: JobState, to: JobState) {
        self.states.set(index, to);
        if from.state != to.state {
            self.tally.moved(from.state, to.state);
        }
    }

    /// What a conclusion adds to the sums, beside the states.
    pub fn conclude(&mut self, done: &Done, from: JobState) {
        self.tally.add(done);
        if from.state == State::Dead
            && let Some(reason) = self.dead.remove(&done.index)
            && let Some(count) = self.tally.dead.get_mut(&reason)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.tally.dead.remove(&reason);
            }
        }
        if done.state == State::Dead {
            let reason = done.dead.unwrap_or(DeadReason::Attempts);
            self.dead.insert(done.index, reason);
            *self.tally.dead.entry(reason).or_default() += 1;
        }
    }

    /// Every job that is not terminal becomes cancelled; says which.
    pub fn cancel_all(&mut self) -> Vec<u32> {
        let were = self.states.cancel_all();
        for (_, state) in &were {
            self.tally.moved(*state, State::Cancelled);
        }
        were.into_iter().map(|(index, _)| index).collect()
    }

    /// Jobs that are not terminal.
    pub fn open(&self) -> u64 {
        u64::from(self.states.jobs()).saturating_sub(self.tally.terminal())
    }
}

/// Rebuilds where the jobs of a batch are from its header, the feeder's cursor and `done/`.
///
/// # Errors
/// If the store fails.
pub async fn fold(
    store: &dyn Store,
    batch: &Batch,
    cursor: Option<Cursor>,
) -> Result<Folded, StoreError> {
    let mut folded = Folded::new(batch.jobs);
    for index in 0..cursor.map_or(0, |cursor| cursor.to.min(batch.jobs)) {
        folded.moved(index, JobState::WAITING, JobState::QUEUED);
    }
    let mut take = |_: &str, done: Done| {
        folded.take(&done);
    };
    folded.whole = read(store, batch.id, None, &mut take).await?;
    if batch.cancelled {
        folded.cancel_all();
    }
    Ok(folded)
}

#[cfg(test)]
mod tests {
    use excite_jobs::store::directory::DirectoryStore;
    use excite_jobs::{Reason, VERSION};
    use time::OffsetDateTime;

    use super::*;

    fn done(index: u32, state: State, lease: u32) -> Done {
        Done {
            v: VERSION,
            index,
            state,
            reason: Reason::Reported,
            lease,
            attempt: lease,
            worker: None,
            at: OffsetDateTime::UNIX_EPOCH,
            success: None,
            failure: None,
            dead: (state == State::Dead).then_some(DeadReason::Timeout),
            checkpoint: None,
            run: None,
        }
    }

    #[tokio::test]
    async fn parts_are_read_in_order_and_written_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = DirectoryStore::open(folder.path()).unwrap();
        let batch = BatchId::new();
        // More parts than are read at a time, and two epochs.
        for n in 0..20 {
            let part = [done(n, State::Succeeded, 1)];
            append(&store, batch, 2, n.into(), &part).await.unwrap();
            append(&store, batch, 2, n.into(), &part).await.unwrap();
        }
        append(&store, batch, 1, 7, &[done(99, State::Dead, 3)]).await.unwrap();
        let other = append(&store, batch, 2, 0, &[done(1, State::Dead, 1)]).await;
        assert!(matches!(other, Err(StoreError::Conflict(_))), "{other:?}");
        let torn = keys::done(batch, 3, 0);
        let line = crate::header::json(&done(50, State::Succeeded, 1));
        let body = [&line[..], b"\n{\"v\":1,\"ind"].concat();
        store.put(&torn, body.into(), Condition::Always).await.unwrap();

        let mut seen = Vec::new();
        let whole = read(&store, batch, None, &mut |_, done| seen.push(done.index)).await.unwrap();
        assert!(!whole, "a line is torn");
        let want: Vec<u32> = [99].into_iter().chain(0..20).chain([50]).collect();
        assert_eq!(seen, want);
        let mut last = String::new();
        seen.clear();
        let after = keys::done(batch, 2, 18);
        let mut visit = |key: &str, done: Done| {
            last = key.to_owned();
            seen.push(done.index);
        };
        read(&store, batch, Some(&after), &mut visit).await.unwrap();
        assert_eq!((seen, last), (vec![19, 50], torn));
    }

    #[test]
    fn folding_counts_each_conclusion_once_in_any_order() {
        let all = [
            done(0, State::Retrying, 2),
            done(0, State::Dead, 2),
            done(0, State::Queued, 3),
            done(0, State::Succeeded, 3),
            done(1, State::Dead, 1),
            done(1, State::Dead, 1),
            done(7, State::Dead, 1),
        ];
        let mut folded = Folded::new(3);
        all.iter().for_each(|done| {
            folded.take(done);
        });
        let tally = &folded.tally;
        assert_eq!((tally.of(State::Succeeded), tally.of(State::Dead), tally.retries), (1, 1, 1));
        assert_eq!(tally.dead, [(DeadReason::Timeout, 1)].into_iter().collect());
        assert_eq!((folded.open(), tally.of(State::Waiting)), (1, 1));
        let mut backwards = Folded::new(3);
        all.iter().rev().for_each(|done| {
            backwards.take(done);
        });
        assert_eq!(backwards.states.packed(), folded.states.packed());
        assert_eq!(folded.cancel_all(), [2]);
        assert_eq!(folded.open(), 0);
    }
}
