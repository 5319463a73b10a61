//! What a ledger found, for people and for machines.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

use super::Options;

/// What a ledger found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The seed of its faults.
    pub seed: u64,
    /// How long faults came, in seconds.
    pub faults_for_seconds: f64,
    /// How long all of it took, in seconds.
    pub seconds: f64,
    /// Faults by name.
    pub faults: BTreeMap<String, u64>,
    /// Batches.
    pub batches: u64,
    /// Jobs.
    pub jobs: u64,
    /// Jobs by the state they ended in.
    pub states: BTreeMap<String, u64>,
    /// Retries, preemptions and the like, as the records say.
    pub events: BTreeMap<String, u64>,
    /// Images whose bytes were compared with those of an undisturbed run.
    pub compared: u64,
    /// Steps that the images need which were not made of one pixel.
    pub steps_needed: u64,
    /// Steps that were made for them.
    pub steps_made: u64,
    /// Most steps that may have been made: see `docs/reliability.md`.
    pub steps_bound: u64,
    /// What must not be. Empty, if everything is as it should be.
    pub violations: Vec<String>,
}

impl Report {
    pub(super) fn new(options: Options) -> Self {
        Self {
            seed: options.seed,
            faults_for_seconds: options.faults_for.as_secs_f64(),
            ..Self::default()
        }
    }

    /// Whether everything is as it should be.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }

    /// Faults of all kinds.
    pub fn fault_count(&self) -> u64 {
        self.faults.values().sum()
    }

    /// One JSON object.
    pub fn json(&self) -> Value {
        json!({
            "seed": self.seed,
            "faults_for_seconds": self.faults_for_seconds,
            "seconds": (self.seconds * 10.).round() / 10.,
            "faults": self.faults,
            "batches": self.batches,
            "jobs": self.jobs,
            "states": self.states,
            "events": self.events,
            "compared": self.compared,
            "steps": {
                "needed": self.steps_needed,
                "made": self.steps_made,
                "bound": self.steps_bound,
            },
            "violations": self.violations,
        })
    }

    /// A table for people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let mut row = |name: &str, value: String| {
            // Writing into a string cannot fail.
            let _ = writeln!(text, "{name:<44} {value:>12}");
        };
        row("seed", self.seed.to_string());
        row("seconds with faults / in all", {
            format!("{:.0} / {:.0}", self.faults_for_seconds, self.seconds)
        });
        for (name, count) in &self.faults {
            row(&format!("fault: {name}"), count.to_string());
        }
        row("faults in all", self.fault_count().to_string());
        row("batches", self.batches.to_string());
        row("jobs", self.jobs.to_string());
        for (name, count) in &self.states {
            row(&format!("jobs {name}"), count.to_string());
        }
        for (name, count) in &self.events {
            row(name, count.to_string());
        }
        row("images equal to those of an undisturbed run", self.compared.to_string());
        row("steps needed", self.steps_needed.to_string());
        row("steps made", format!("{} <= {}", self.steps_made, self.steps_bound));
        row("lost, doubled or wrong", self.violations.len().to_string());
        for violation in &self.violations {
            let _ = writeln!(text, "  {violation}");
        }
        text
    }
}
