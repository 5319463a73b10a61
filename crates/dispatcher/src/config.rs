//! What a dispatcher can be told: section `[dispatcher]` beside the ports' own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use excite_jobs::ModelCard;
use excite_service::ports::{Broker, Progress, Store};
use excite_service::telemetry::Log;
use serde::{Deserialize, Serialize};

/// All sections.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The queue.
    pub broker: Broker,
    /// The store.
    pub store: Store,
    /// The mirror.
    pub progress: Progress,
    /// Logs.
    pub log: Log,
    /// The dispatcher itself.
    pub dispatcher: Dispatcher,
}

/// Section `[dispatcher]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dispatcher {
    /// Its name in logs and for people; the host's name and process if left out.
    pub name: Option<String>,
    /// Where HTTP is served. Other addresses than this machine's own need `tokens_file`.
    pub listen: SocketAddr,
    /// Who may do what: a file that `excite-dispatcher token new` writes.
    pub tokens_file: Option<PathBuf>,
    /// Whether everybody who reaches the address may do everything, because something in front of
    /// it asks who they are.
    pub anyone: bool,
    /// The model of batches that name none.
    pub default_model: String,
    /// Classes whose queues are made at the start; those of batches are added.
    pub classes: Vec<String>,
    /// Groups of workers that are scaled, by name.
    pub pools: BTreeMap<String, Pool>,
    /// Seconds between two canaries; 0 for none.
    pub canary_seconds: u64,
    /// Least jobs of a queue that may wait in the broker.
    pub window_min: u32,
    /// Most jobs of a queue that may wait in the broker.
    pub window_max: u32,
    /// Whether images and the like are answered with an address in the store instead of their bytes:
    /// for buckets that the browsers of people can reach.
    pub redirect: bool,
    /// What an hour of a worker costs; the dashboard and dry runs show costs if it is set.
    pub price_per_gpu_hour: Option<f64>,
    /// Of the price.
    pub currency: String,
    /// How long requests that run may go on after a signal to stop.
    pub stop_seconds: u64,
}

impl Default for Dispatcher {
    fn default() -> Self {
        Self {
            name: None,
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            tokens_file: None,
            anyone: false,
            default_model: "emoji".into(),
            classes: vec!["default".into()],
            pools: BTreeMap::from([("default".into(), Pool::default())]),
            canary_seconds: 0,
            window_min: 16,
            window_max: 5000,
            redirect: false,
            price_per_gpu_hour: None,
            currency: "USD".into(),
            stop_seconds: 20,
        }
    }
}

/// A group of workers that is scaled: `[dispatcher.pools.NAME]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pool {
    /// Whose jobs they run.
    pub class: String,
    /// Least workers.
    pub min: u32,
    /// Most workers.
    pub max: u32,
    /// How many seconds after it was accepted a batch should be done.
    pub drain_seconds: f64,
    /// How many seconds a new worker takes until its first job: node, image and model.
    pub start_seconds: f64,
}

impl Default for Pool {
    fn default() -> Self {
        Self { class: "default".into(), min: 0, max: 10, drain_seconds: 1800., start_seconds: 180. }
    }
}

impl Dispatcher {
    /// Its name.
    pub fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| {
            let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            let host = host.trim();
            let host = if host.is_empty() { "dispatcher" } else { host };
            format!("{host}-{}", std::process::id())
        })
    }

    /// How long requests may go on after a signal to stop.
    pub fn stop(&self) -> Duration {
        Duration::from_secs(self.stop_seconds)
    }

    /// Whether others than this machine reach it, and nobody asks who they are.
    pub fn is_open_to_strangers(&self) -> bool {
        !self.listen.ip().is_loopback() && self.tokens_file.is_none() && !self.anyone
    }

    /// Why nobody should be served like this, with key and remedy, if so.
    pub fn serving_fault(&self) -> Option<String> {
        let fault = || {
            format!(
                "dispatcher.listen: {} can be reached from elsewhere, and nobody is asked who they \
                 are; set dispatcher.tokens_file (`excite-dispatcher token new` writes one), or \
                 dispatcher.anyone if something in front of it asks",
                self.listen
            )
        };
        self.is_open_to_strangers().then(fault)
    }

    /// What is wrong, each with its key and remedy.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if !ModelCard::is_name(&self.default_model) {
            faults.push(format!(
                "dispatcher.default_model: `{}` cannot name a model; use letters, digits, `.`, `_` \
                 and `-`",
                self.default_model
            ));
        }
        for class in self.classes.iter().filter(|class| !ModelCard::is_name(class)) {
            faults.push(format!(
                "dispatcher.classes: `{class}` cannot name a class; use letters, digits, `.`, `_` \
                 and `-`"
            ));
        }
        if self.window_min == 0 || self.window_min > self.window_max {
            faults.push(format!(
                "dispatcher.window_min: it is {}; use 1 to window_max, which is {}",
                self.window_min, self.window_max
            ));
        }
        if let Some(price) = self.price_per_gpu_hour.filter(|p| !(p.is_finite() && *p >= 0.)) {
            faults.push(format!(
                "dispatcher.price_per_gpu_hour: it is {price}; use 0 or more, or leave it out"
            ));
        }
        for (name, pool) in &self.pools {
            if pool.min > pool.max {
                faults.push(format!(
                    "dispatcher.pools.{name}.min: it is {}; use 0 to max, which is {}",
                    pool.min, pool.max
                ));
            }
            if !(pool.drain_seconds.is_finite() && pool.drain_seconds >= 1.) {
                faults.push(format!(
                    "dispatcher.pools.{name}.drain_seconds: it is {}; use 1 or more",
                    pool.drain_seconds
                ));
            }
            if !(pool.start_seconds.is_finite() && pool.start_seconds >= 0.) {
                faults.push(format!(
                    "dispatcher.pools.{name}.start_seconds: it is {}; use 0 or more",
                    pool.start_seconds
                ));
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_well_and_faults_name_their_key() {
        assert_eq!(Dispatcher::default().faults(), Vec::<String>::new());
        let pool =
            Pool { min: 5, max: 2, drain_seconds: f64::NAN, start_seconds: -1., ..Pool::default() };
        let wrong = Dispatcher {
            default_model: "a/b".into(),
            classes: vec!["a b".into()],
            window_min: 0,
            listen: SocketAddr::from(([0, 0, 0, 0], 8080)),
            pools: BTreeMap::from([("spot".into(), pool)]),
            ..Dispatcher::default()
        };
        let faults = wrong.faults();
        for key in [
            "default_model",
            "classes",
            "window_min",
            "pools.spot.min",
            "drain_seconds",
            "start_seconds",
        ] {
            assert!(faults.iter().any(|fault| fault.contains(key)), "{key}: {faults:?}");
        }
        assert_eq!(Dispatcher::default().serving_fault(), None);
        let open = wrong.serving_fault().unwrap();
        assert!(open.contains("dispatcher.listen") && open.contains("tokens_file"), "{open}");
    }

    #[test]
    fn the_page_of_settings_has_them() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operations.md");
        let page = std::fs::read_to_string(page).unwrap();
        let wrong = excite_service::described::wrong_settings::<Config>(&page);
        assert!(wrong.is_empty(), "docs/operations.md {}", wrong.join("\ndocs/operations.md "));
    }
}
