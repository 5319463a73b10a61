//! What is kept in memory within a budget of bytes: loaded once however many ask, never taken from
//! whoever uses it, the longest unused given up first.
//!
//! Not here: what is loaded (`models`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::metrics::Metrics;

/// Things by name.
#[derive(Debug)]
pub(crate) struct Cache<T> {
    budget: u64,
    pinned: BTreeSet<String>,
    metrics: Metrics,
    state: Mutex<State<T>>,
    /// Told when a load ends.
    loaded: Condvar,
}

#[derive(Debug)]
struct State<T> {
    entries: BTreeMap<String, Entry<T>>,
    loading: BTreeSet<String>,
    /// Counts uses.
    clock: u64,
}

#[derive(Debug)]
struct Entry<T> {
    value: Arc<T>,
    bytes: u64,
    used: u64,
}

impl<T> Entry<T> {
    /// Whoever holds an `Arc` of it uses it.
    fn in_use(&self) -> bool {
        Arc::strong_count(&self.value) > 1
    }
}

impl<T> State<T> {
    fn bytes(&self) -> u64 {
        self.entries.values().map(|entry| entry.bytes).sum()
    }
}

impl<T> Cache<T> {
    /// An empty cache. What is `pinned` is never given up.
    pub(crate) fn new(
        budget: u64,
        pinned: impl IntoIterator<Item = String>,
        metrics: Metrics,
    ) -> Self {
        let state = State { entries: BTreeMap::new(), loading: BTreeSet::new(), clock: 0 };
        Self {
            budget,
            pinned: pinned.into_iter().collect(),
            metrics,
            state: Mutex::new(state),
            loaded: Condvar::new(),
        }
    }

    /// The thing of that name. `load` makes it and says how many bytes it has; if another thread
    /// loads it already, this one waits for it. Blocks.
    ///
    /// # Errors
    /// What `load` says. Whoever waited tries to load it then.
    pub(crate) fn get<E>(
        &self,
        name: &str,
        load: impl FnOnce() -> Result<(T, u64), E>,
    ) -> Result<Arc<T>, E> {
        let mut state = self.lock();
        loop {
            state.clock += 1;
            let now = state.clock;
            if let Some(entry) = state.entries.get_mut(name) {
                entry.used = now;
                self.metrics.cache_hits.inc();
                return Ok(Arc::clone(&entry.value));
            }
            if state.loading.insert(name.to_owned()) {
                break;
            }
            state = self.loaded.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        self.metrics.cache_misses.inc();
        // Also if `load` panics, the others must not wait for ever.
        let _ended = Ended { cache: self, name };
        let (value, bytes) = load()?;
        let value = Arc::new(value);
        let mut state = self.lock();
        self.shrink(&mut state, self.budget.saturating_sub(bytes));
        let used = state.clock;
        state.entries.insert(name.to_owned(), Entry { value: Arc::clone(&value), bytes, used });
        self.gauge(&state);
        Ok(value)
    }

    /// Gives up what is not used until `bytes` more fit. Loading needs the room before it is known
    /// how much exactly.
    pub(crate) fn make_room(&self, bytes: u64) {
        let mut state = self.lock();
        self.shrink(&mut state, self.budget.saturating_sub(bytes));
        self.gauge(&state);
    }

    /// Gives up all that is not used; whether there was any.
    pub(crate) fn evict_unused(&self, but: &str) -> bool {
        let mut state = self.lock();
        let names: Vec<String> = state
            .entries
            .iter()
            .filter(|(name, entry)| *name != but && self.may_go(name, entry))
            .map(|(name, _)| name.clone())
            .collect();
        for name in &names {
            state.entries.remove(name);
            self.metrics.cache_evictions.inc();
        }
        self.gauge(&state);
        !names.is_empty()
    }

    /// Names of what is there, and its bytes.
    pub(crate) fn contents(&self) -> (Vec<String>, u64) {
        let state = self.lock();
        (state.entries.keys().cloned().collect(), state.bytes())
    }

    fn may_go(&self, name: &str, entry: &Entry<T>) -> bool {
        !entry.in_use() && !self.pinned.contains(name)
    }

    /// What is used or pinned stays, even if it is more than the budget.
    fn shrink(&self, state: &mut State<T>, budget: u64) {
        while state.bytes() > budget {
            let unused = state.entries.iter().filter(|(name, entry)| self.may_go(name, entry));
            let oldest = unused.min_by_key(|(_, entry)| entry.used).map(|(name, _)| name.clone());
            let Some(oldest) = oldest else { return };
            state.entries.remove(&oldest);
            self.metrics.cache_evictions.inc();
        }
    }

    fn gauge(&self, state: &State<T>) {
        self.metrics.cache_bytes.set(i64::try_from(state.bytes()).unwrap_or(i64::MAX));
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing panics while it holds the lock; a load runs without it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Ended<'a, T> {
    cache: &'a Cache<T>,
    name: &'a str,
}

impl<T> Drop for Ended<'_, T> {
    fn drop(&mut self) {
        self.cache.lock().loading.remove(self.name);
        self.cache.loaded.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn cache(budget: u64, pinned: &[&str]) -> Cache<String> {
        let pinned = pinned.iter().map(|name| (*name).to_owned());
        Cache::new(budget, pinned, Metrics::new("test").unwrap())
    }

    fn get(cache: &Cache<String>, name: &str, bytes: u64) -> Arc<String> {
        cache.get(name, || Ok::<_, Infallible>((name.to_owned(), bytes))).unwrap()
    }

    #[test]
    fn the_longest_unused_goes_first_and_the_used_and_the_pinned_stay() {
        let cache = cache(10, &["pinned"]);
        get(&cache, "pinned", 4);
        get(&cache, "a", 3);
        get(&cache, "b", 3);
        get(&cache, "a", 3);
        get(&cache, "c", 3);
        assert_eq!(cache.contents(), (vec!["a".into(), "c".into(), "pinned".into()], 10));
        let used = get(&cache, "a", 3);
        get(&cache, "d", 9);
        assert_eq!(cache.contents().0, ["a", "d", "pinned"], "over the budget, but in use");
        drop(used);
        cache.make_room(1);
        assert_eq!(cache.contents().0, ["d", "pinned"].map(str::to_owned)[1..]);
        get(&cache, "e", 1);
        assert!(cache.evict_unused("pinned") && !cache.evict_unused("pinned"));
    }

    #[test]
    fn many_that_ask_at_once_load_once() {
        let (cache, loads, start) = (cache(10, &[]), AtomicU32::new(0), Barrier::new(8));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    start.wait();
                    let load = || {
                        loads.fetch_add(1, Ordering::SeqCst);
                        Ok::<_, Infallible>(("a".to_owned(), 1))
                    };
                    assert_eq!(*cache.get("a", load).unwrap(), "a");
                });
            }
        });
        assert_eq!(loads.into_inner(), 1);
    }

    #[test]
    fn a_load_that_fails_leaves_the_next_one_free() {
        let cache = cache(10, &[]);
        assert_eq!(cache.get("a", || Err::<(String, u64), _>("no")).unwrap_err(), "no");
        assert_eq!(*get(&cache, "a", 1), "a");
    }
}
