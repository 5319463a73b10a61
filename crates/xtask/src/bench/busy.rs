//! How much of its time a worker computes when there is always another job.
//!
//! Not the measuring: that is tests/src/bin/excite-bench-busy.rs, on private servers.

use anyhow::{Context, Result};
use serde_json::Value;

use super::rounds::Setting;
use super::table::{Goal, Measured, Row, Unit};
use crate::project;

/// Runs it. Once: it takes many jobs.
pub(super) fn measure(setting: &Setting<'_>) -> Result<Row> {
    eprintln!("busy between the images: excite-worker");
    let bench = setting.project.built("release", "excite-bench-busy")?;
    let text = project::output(&mut setting.project.command(bench)).context("excite-bench-busy")?;
    let report: Value = serde_json::from_str(&text).context("it did not print one JSON object")?;
    row(&report)
}

fn row(report: &Value) -> Result<Row> {
    let busy = report["busy"].as_f64().context("the report lacks `busy`")?;
    Ok(Row {
        name: "busy",
        label: "one worker, empty pipeline: busy between the images",
        unit: Unit::Share,
        ours: Measured { min: busy, median: busy },
        peer: None,
        goal: Some(Goal::AtLeast(0.97)),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn idle_time_misses_the_goal() {
        for (busy, met) in [(0.98, true), (0.96, false)] {
            let row = row(&json!({ "busy": busy })).unwrap();
            assert_eq!(row.verdict().map(|verdict| verdict.met), Some(met));
        }
        assert_eq!(row(&json!({})).unwrap_err().to_string(), "the report lacks `busy`");
    }
}
