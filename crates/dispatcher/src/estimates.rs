//! What images cost: measured compute seconds per step and pixel, by model.
//!
//! The leading dispatcher learns them from outcomes and writes `estimates.json`; every replica
//! reads it. They are for planning only: nothing is refused or given up because of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use excite_jobs::store::{Condition, Store};
use excite_jobs::{VERSION, Work, keys};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::warn;

use crate::header::{HeaderError, document, json};

/// Share of a new measurement: some fifty images decide.
const SHARE: f64 = 0.02;
/// The first images count more, so that one slow first image is forgotten soon.
const SHARE_FIRST: f64 = 0.25;
/// Images until [`SHARE`] is reached.
const FIRST: u32 = 12;
/// Models that are remembered: each digest is one.
const MODELS_MAX: usize = 500;
/// How long [`EstimatesCache`] keeps what it read.
const KEPT: Duration = Duration::from_secs(10);

/// What images cost.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Estimates {
    /// [`VERSION`].
    #[serde(default)]
    pub v: u32,
    /// By `name@digest`.
    #[serde(default)]
    models: BTreeMap<String, Model>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Model {
    plain: Option<Rate>,
    guided: Option<Rate>,
}

/// Compute seconds per step and pixel.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Rate {
    seconds: f64,
    images: u32,
}

/// An image that was made: compute seconds, and what was asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Compute seconds.
    pub seconds: f64,
    /// Steps times pixels.
    pub work: f64,
    /// Whether it was guided.
    pub guided: bool,
}

impl Estimates {
    /// What the store has; nothing if nothing was measured yet.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn load(store: &dyn Store) -> Result<Self, HeaderError> {
        let found = document(store, keys::ESTIMATES).await?;
        Ok(found.map_or_else(Self::default, |(estimates, _)| estimates))
    }

    /// Writes it. The last writer wins: it is only an estimate.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn save(&self, store: &dyn Store) -> Result<(), HeaderError> {
        let body = json(&Self { v: VERSION, models: self.models.clone() });
        store.put(keys::ESTIMATES, body, Condition::Always).await?;
        Ok(())
    }

    /// An image was made.
    pub fn learn(&mut self, model: &str, measured: Measured) {
        let rate = measured.seconds / measured.work;
        if !(rate.is_finite() && rate > 0.) {
            return;
        }
        if !self.models.contains_key(model) && self.models.len() >= MODELS_MAX {
            self.models.pop_first();
        }
        let model = self.models.entry(model.to_owned()).or_default();
        let slot = if measured.guided { &mut model.guided } else { &mut model.plain };
        *slot = Some(match *slot {
            None => Rate { seconds: rate, images: 1 },
            Some(Rate { seconds, images }) => {
                let share = if images < FIRST { SHARE_FIRST } else { SHARE };
                let seconds = seconds + share * (rate - seconds);
                Rate { seconds, images: images.saturating_add(1) }
            }
        });
    }

    /// Compute seconds of some work with `name@digest`; `None` if what it needs was not measured.
    pub fn seconds(&self, model: &str, work: &Work) -> Option<f64> {
        let model = self.models.get(model)?;
        let part = |work: f64, rate: Option<Rate>| {
            if work > 0. { rate.map(|rate| work * rate.seconds) } else { Some(0.) }
        };
        Some(part(work.plain, model.plain)? + part(work.guided, model.guided)?)
    }
}

/// Estimates for those who only read them: read again when they are ten seconds old.
pub struct EstimatesCache {
    store: Arc<dyn Store>,
    /// One caller reads, the others wait for it.
    kept: Mutex<Option<(Instant, Arc<Estimates>)>>,
}

impl EstimatesCache {
    /// Reads from `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, kept: Mutex::new(None) }
    }

    /// The estimates; the old ones while the store fails.
    pub async fn get(&self) -> Arc<Estimates> {
        let mut kept = self.kept.lock().await;
        if let Some((at, estimates)) = &*kept
            && at.elapsed() < KEPT
        {
            return estimates.clone();
        }
        let estimates = match Estimates::load(&*self.store).await {
            Ok(estimates) => Arc::new(estimates),
            Err(error) => {
                warn!(%error, "estimates cannot be read");
                kept.as_ref().map(|(_, old)| old.clone()).unwrap_or_default()
            }
        };
        *kept = Some((Instant::now(), estimates.clone()));
        estimates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_follow_what_was_measured() {
        let mut estimates = Estimates::default();
        let work = Work { plain: 0., guided: 3e6 };
        assert_eq!(estimates.seconds("m@1", &work), None);
        let image = |seconds| Measured { seconds, work: 1e6, guided: true };
        estimates.learn("m@1", image(60.)); // the first one waited for the disk
        for _ in 0..100 {
            estimates.learn("m@1", image(2.));
        }
        let seconds = estimates.seconds("m@1", &work).unwrap();
        assert!((6. ..8.).contains(&seconds), "{seconds}");
        let mixed = Work { plain: 1., guided: 1. };
        assert_eq!(estimates.seconds("m@1", &mixed), None, "plain was never measured");
        estimates.learn("m@1", Measured { seconds: 1., work: 0., guided: false });
        assert_eq!(estimates.seconds("m@1", &mixed), None, "nothing can be learnt of no work");
        assert_eq!(estimates.seconds("m@1", &Work::default()), Some(0.));
        let again: Estimates = serde_json::from_slice(&json(&estimates)).unwrap();
        assert_eq!(again, estimates);
    }
}
