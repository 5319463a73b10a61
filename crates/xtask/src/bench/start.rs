//! From the start of `excite generate` to the end of its first step, with the bundled model.

use anyhow::{Context, Result};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::rounds::Setting;
use super::table::{Goal, Measured, Row, Unit};
use crate::project;

/// Starts in each round.
const STARTS: u32 = 5;
/// Where the pictures go, from the root.
const OUT: &str = "target/bench-start";

/// Builds it as a user does; the program that is measured.
pub(super) fn build(setting: &Setting<'_>) -> Result<()> {
    let build = ["build", "--release", "--quiet", "-p", "excite"];
    project::run(&mut setting.project.cargo(&build)).context("excite does not build")
}

/// Starts it again and again.
pub(super) fn measure(setting: &Setting<'_>) -> Result<Row> {
    eprintln!("process start: excite");
    // The first one finds the program on disk.
    start(setting)?;
    let seconds = (0..STARTS * setting.repeats).map(|_| start(setting));
    let ours = Measured::of(seconds.collect::<Result<_>>()?).context("there is no start")?;
    Ok(Row {
        name: "start",
        label: "bundled model: process start to first step",
        unit: Unit::Seconds,
        ours,
        peer: None,
        goal: Some(Goal::Below(0.3)),
    })
}

/// Seconds of one start.
fn start(setting: &Setting<'_>) -> Result<f64> {
    let program = setting.project.built("release", "excite")?;
    let mut command = setting.project.command(program);
    // All 50 steps, although one is timed: in a run of few steps the first one is refined as often
    // as the later ones would be.
    command.args(["generate", "a cat and a frog", "--out", OUT]);
    command.args(["--overwrite", "--json"]).env("RAYON_NUM_THREADS", setting.threads.to_string());
    let started = OffsetDateTime::now_utc();
    let printed = project::output(&mut command)?;
    let first_step = first_step(&printed).context("excite generate")?;
    Ok((first_step - started).as_seconds_f64())
}

/// When the first step was done, as the summary says.
fn first_step(printed: &str) -> Result<OffsetDateTime> {
    let summary = printed.lines().last().context("it printed nothing")?;
    let summary: Value = serde_json::from_str(summary).context("its last line is no JSON")?;
    let at = summary["summary"]["first_step_at"].as_str();
    let at = at.context("its summary has no `first_step_at`")?;
    OffsetDateTime::parse(at, &Rfc3339).with_context(|| format!("`first_step_at` is {at}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_says_when_the_first_step_was_done() {
        let printed = "{\"v\":1}\n{\"summary\":{\"first_step_at\":\"1970-01-01T00:00:01.5Z\"}}\n";
        let at = first_step(printed).unwrap();
        assert_eq!((at - OffsetDateTime::UNIX_EPOCH).as_seconds_f64(), 1.5);
        for (printed, want) in [
            ("", "nothing"),
            ("an image", "JSON"),
            ("{\"summary\":{\"first_step_at\":null}}", "no `first_step_at`"),
            ("{\"summary\":{\"first_step_at\":\"now\"}}", "`first_step_at` is now"),
        ] {
            let error = first_step(printed).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }
}
