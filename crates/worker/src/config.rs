//! What can be set: section `[worker]`, beside the sections of the ports and of the logs.
//!
//! Not here: where values come from (`excite_service::config`).

use std::net::SocketAddr;
use std::path::PathBuf;

use excite_diffusion::{Compute, DeviceChoice, Precision};
use excite_jobs::ModelCard;
use excite_service::memory;
use excite_service::ports::{Broker, Progress, Store};
use excite_service::telemetry::Log;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::batch_size::BatchSize;

/// Everything this program reads of a configuration.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Sections {
    /// `[broker]`
    pub broker: Broker,
    /// `[store]`
    pub store: Store,
    /// `[progress]`
    pub progress: Progress,
    /// `[log]`
    pub log: Log,
    /// `[worker]`
    pub worker: Config,
}

/// Section `[worker]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Its name in outcomes, logs and progress; made of the host's name and a random part if empty.
    pub name: String,
    /// Which group of workers it belongs to, for people and dashboards.
    pub pool: String,
    /// Whose jobs it takes: the queue's name.
    pub class: String,
    /// Jobs it has at a time: those that run, and those that wait to run next.
    pub slots: u16,
    /// The most jobs of one micro-batch, `slots` at most: a number, or `auto` for what is fast
    /// and fits into memory.
    pub batch_size: BatchSize,
    /// How long a job waits for others to share its run.
    pub micro_batch_wait_milliseconds: u64,
    /// What models compute on: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:N`.
    pub device: DeviceChoice,
    /// Number format of the weights: `f16`, `bf16` or `f32`; left out, f16 on a GPU.
    pub precision: Option<Precision>,
    /// A directory of model folders, each with its model's name.
    pub models_dir: Option<PathBuf>,
    /// Where models from the store are kept.
    pub cache_dir: PathBuf,
    /// Memory for models, the GPU's where they are on one; 0 for 60 % of what is free at the start.
    pub model_cache_bytes: u64,
    /// Models (`name@digest`) that are never given up for others.
    pub pinned_models: Vec<String>,
    /// Where `/healthz`, `/readyz` and `/metrics` are.
    pub listen: SocketAddr,
    /// How long handing over and finishing what is being stored may take when the worker is told to
    /// stop; then the broker gives the rest to others.
    pub drain_seconds: u64,
    /// How often the state of a running job is saved, in case the worker dies; 0 for never.
    pub checkpoint_seconds: u64,
    /// Whether results of equal jobs of a tenant are looked up and copied.
    pub reuse: bool,
    /// A job may take this many times what its like took, and a minute more.
    pub deadline_factor: f64,
    /// A run that makes no pass for so long is stuck; longer if its steps are long.
    pub stuck_seconds: u64,
    /// So many failures in a row that are not the jobs' make the worker test itself.
    pub breaker_failures: u32,
    /// How long a result waits for a store that fails.
    pub store_patience_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: String::new(),
            pool: "default".into(),
            class: "default".into(),
            // On two to eight cores more than this gains nothing, and each costs memory.
            slots: 4,
            batch_size: BatchSize::Auto,
            micro_batch_wait_milliseconds: 5,
            device: DeviceChoice::Auto,
            precision: None,
            models_dir: None,
            cache_dir: std::env::temp_dir().join("excite-models"),
            model_cache_bytes: 0,
            pinned_models: Vec::new(),
            listen: SocketAddr::from(([127, 0, 0, 1], 9464)),
            // Kubernetes grants thirty by default, some machines that can be taken away less.
            drain_seconds: 15,
            // A save is a put of some 100 KB; what runs is seldom worth less than ten seconds.
            checkpoint_seconds: 10,
            reuse: true,
            deadline_factor: 4.,
            stuck_seconds: 120,
            breaker_failures: 5,
            store_patience_seconds: 600,
        }
    }
}

/// Most slots: no machine gains from more, and a message each is held.
pub(crate) const SLOTS_MAX: u16 = 256;
/// Without knowledge of the machine.
const MODEL_CACHE_BYTES: u64 = 8 << 30;

impl Config {
    /// Fills in what depends on the machine.
    ///
    /// # Errors
    /// All faults at once, each with its key and the remedy.
    pub fn settle(mut self) -> Result<Self, Vec<String>> {
        if self.name.is_empty() {
            self.name = format!("{}-{}", host(), &Uuid::new_v4().simple().to_string()[..8]);
        }
        let mut faults = Vec::new();
        for (key, name) in [("name", &self.name), ("pool", &self.pool), ("class", &self.class)] {
            if !ModelCard::is_name(name) {
                faults
                    .push(format!("worker.{key} is `{name}`; use letters, digits, `.`, `_`, `-`"));
            }
        }
        if !(1..=SLOTS_MAX).contains(&self.slots) {
            faults.push(format!("worker.slots is {}; set it to 1..={SLOTS_MAX}", self.slots));
        }
        if let BatchSize::Jobs(jobs) = self.batch_size
            && jobs > self.slots
        {
            let slots = self.slots;
            faults.push(format!(
                "worker.batch_size is {jobs}, but worker.slots only {slots}; raise worker.slots"
            ));
        }
        if !(1. ..=1000.).contains(&self.deadline_factor) {
            let factor = self.deadline_factor;
            faults.push(format!("worker.deadline_factor is {factor}; set it to 1..=1000"));
        }
        let missing = self.models_dir.as_ref().filter(|path| !path.is_dir());
        if let Some(path) = missing {
            faults.push(format!("worker.models_dir is {}, which is no directory", path.display()));
        }
        for (key, value) in [
            ("stuck_seconds", self.stuck_seconds),
            ("breaker_failures", u64::from(self.breaker_failures)),
        ] {
            if value == 0 {
                faults.push(format!("worker.{key} is 0; set it to 1 or more"));
            }
        }
        if faults.is_empty() { Ok(self) } else { Err(faults) }
    }

    /// Memory for models on what they compute on.
    pub fn model_bytes(&self, compute: &Compute) -> u64 {
        if self.model_cache_bytes > 0 {
            return self.model_cache_bytes;
        }
        let free = compute.free_bytes().ok().flatten().or_else(memory::available_bytes);
        free.map_or(MODEL_CACHE_BYTES, |free| free / 10 * 6)
    }
}

fn host() -> String {
    let name = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty());
    let name = name.or_else(|| std::fs::read_to_string("/etc/hostname").ok()).unwrap_or_default();
    let letter = |c: &char| c.is_ascii_alphanumeric() || *c == '-';
    let name: String = name.trim().chars().filter(letter).take(60).collect();
    if name.is_empty() { "worker".into() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_open_is_filled_in() {
        let config = Config::default().settle().unwrap();
        assert!(ModelCard::is_name(&config.name), "{}", config.name);
        assert!(config.model_bytes(&Compute::cpu()) > 1 << 20);
        let set = Config { model_cache_bytes: 7, ..config.clone() };
        assert_eq!(set.model_bytes(&Compute::cpu()), 7);
        assert_ne!(config.name, Config::default().settle().unwrap().name, "two on one host");
    }

    #[test]
    fn all_faults_are_told() {
        let config = Config {
            class: "a b".into(),
            slots: 0,
            batch_size: BatchSize::Jobs(8),
            stuck_seconds: 0,
            models_dir: Some("/no such directory".into()),
            ..Config::default()
        };
        let faults = config.settle().unwrap_err();
        let told = faults.join("\n");
        let keys = ["class", "slots", "batch_size", "stuck_seconds", "models_dir"];
        for key in keys {
            assert!(told.contains(&format!("worker.{key} is ")), "{told}");
        }
    }

    #[test]
    fn the_page_of_settings_has_them() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operations.md");
        let page = std::fs::read_to_string(page).unwrap();
        let wrong = excite_service::described::wrong_settings::<Sections>(&page);
        assert!(wrong.is_empty(), "docs/operations.md {}", wrong.join("\ndocs/operations.md "));
    }
}
