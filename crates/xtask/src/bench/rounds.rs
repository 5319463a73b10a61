//! Rounds: ours and diffusers by turns, so that what else the machine does falls on both; and what
//! they report.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::table::{Goal, Measured, Row, Unit};
use crate::project::{self, Project};

/// What every measurement is told.
pub(super) struct Setting<'a> {
    pub(super) project: &'a Project,
    /// With diffusers; without it ours is measured alone.
    pub(super) python: Option<&'a Path>,
    /// Of each side.
    pub(super) threads: u32,
    pub(super) repeats: u32,
}

impl Setting<'_> {
    /// A benchmark of crates/diffusion/benches.
    pub(super) fn ours(&self, bench: &str, args: &[&str]) -> Result<Value> {
        let cargo =
            ["bench", "-p", "excite-diffusion", "--bench", bench, "--quiet", "--", "--json"];
        let mut command = self.project.cargo(&cargo);
        command.args(args);
        // candle and rayon take their number of threads from here.
        command.env("RAYON_NUM_THREADS", self.threads.to_string());
        printed(&mut command).with_context(|| format!("crates/diffusion/benches/{bench}.rs"))
    }

    /// A script of tests/peers.
    pub(super) fn peer(&self, python: &Path, script: &str, args: &[&str]) -> Result<Value> {
        let script = format!("tests/peers/{script}");
        let mut command = self.project.command(python);
        command.args([script.as_str(), "--json", "--threads", &self.threads.to_string()]);
        command.args(args);
        printed(&mut command).context(script)
    }

    /// Runs both sides by turns, a report of each a round. Goes on alone if diffusers fails.
    pub(super) fn rounds(
        &self,
        what: &str,
        repeats: u32,
        ours: impl Fn() -> Result<Value>,
        peer: impl Fn(&Path) -> Result<Value>,
    ) -> Result<Reports> {
        let mut reports = Reports { ours: Vec::new(), peer: self.python.map(|_| Vec::new()) };
        for round in 1..=repeats {
            eprintln!("{what}, round {round} of {repeats}: excite");
            reports.ours.push(ours()?);
            let (Some(python), Some(theirs)) = (self.python, &mut reports.peer) else { continue };
            eprintln!("{what}, round {round} of {repeats}: diffusers");
            match peer(python) {
                Ok(report) => theirs.push(report),
                Err(error) => {
                    eprintln!("note: diffusers cannot be measured, going on without it: {error:#}");
                    reports.peer = None;
                }
            }
        }
        Ok(reports)
    }
}

/// The one JSON object that a program prints.
fn printed(command: &mut Command) -> Result<Value> {
    let text = project::output(command)?;
    serde_json::from_str(&text).context("it did not print one JSON object")
}

/// What both sides printed, one report a round; diffusers' is `None` if it is not there or failed.
#[derive(Debug)]
pub(super) struct Reports {
    pub(super) ours: Vec<Value>,
    pub(super) peer: Option<Vec<Value>>,
}

impl Reports {
    /// A timing that both have.
    pub(super) fn row(
        &self,
        (key, name, label): (&str, &'static str, &'static str),
        goal: Option<Goal>,
    ) -> Result<Row> {
        let peer = self.peer.as_deref().map(|reports| timing(reports, key)).transpose()?;
        let ours = timing(&self.ours, key)?;
        Ok(Row { name, label, unit: Unit::Seconds, ours, peer, goal })
    }

    /// The versions that either side named.
    pub(super) fn versions(&self) -> Vec<Value> {
        let first = [Some(&self.ours), self.peer.as_ref()].into_iter().flatten();
        first.filter_map(|reports| Some(reports.first()?["versions"].clone())).collect()
    }
}

/// The seconds of one timing in one report.
fn times(report: &Value, key: &str) -> Result<Vec<f64>> {
    let times = report[key]["times"].as_array().filter(|times| !times.is_empty());
    let times = times.and_then(|times| times.iter().map(Value::as_f64).collect());
    times.with_context(|| format!("`{key}` has no `times`"))
}

/// A timing over all rounds.
pub(super) fn timing(reports: &[Value], key: &str) -> Result<Measured> {
    let each = reports.iter().map(|report| times(report, key));
    let each = each.collect::<Result<Vec<_>>>()?;
    Measured::of(each.concat()).context("there is no round")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(seconds: f64) -> Value {
        json!({ "versions": { "tool": "1" }, "step": { "times": [seconds, seconds + 1.] } })
    }

    #[test]
    fn rounds_are_put_together() {
        let ours = vec![report(1.), report(2.)];
        let reports = Reports { ours, peer: Some(vec![report(4.), report(3.)]) };
        let row = reports.row(("step", "a_step", "a step"), None).unwrap();
        // 1, 2, 2, 3 and 3, 4, 4, 5
        assert_eq!(row.ours, Measured { min: 1., median: 2. });
        assert_eq!(row.peer, Some(Measured { min: 3., median: 4. }));
        assert_eq!((row.name, row.label, row.ratio()), ("a_step", "a step", Some(1. / 3.)));
        assert_eq!(reports.versions().len(), 2);
    }

    #[test]
    fn without_diffusers_ours_stands_alone() {
        let reports = Reports { ours: vec![report(1.)], peer: None };
        let row = reports.row(("step", "a_step", "a step"), None).unwrap();
        assert!(row.peer.is_none() && row.ratio().is_none());
        assert_eq!(reports.versions().len(), 1);
    }

    #[test]
    fn a_report_must_be_whole() {
        for bad in [json!(null), json!({ "times": [] }), json!({ "times": ["1"] })] {
            let mut broken = report(1.);
            broken["step"] = bad;
            let error = timing(&[report(1.), broken], "step").unwrap_err().to_string();
            assert_eq!(error, "`step` has no `times`");
        }
        assert!(timing(&[], "step").is_err());
        let error = printed(Command::new("echo").arg("Traceback")).unwrap_err().to_string();
        assert!(error.contains("JSON"), "{error}");
    }
}
