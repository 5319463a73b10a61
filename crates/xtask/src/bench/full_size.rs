//! A model of the size of SD 1.4: its passes, what they make of an image, and the memory of one.
//!
//! Not the measuring: that is crates/diffusion/benches/full_size.rs and
//! tests/peers/bench_full_size.py. Not the weights either: `cargo xtask full-size` writes them.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::rounds::{Reports, Setting, timing};
use super::table::{Goal, Measured, Row, Unit};

/// Of the benchmark in crates/diffusion/benches, and of diffusers' script.
pub(super) const BENCH: &str = "full_size";
const SCRIPT: &str = "bench_full_size.py";

/// Steps that PNDM makes of 50, and updates of an image.
const STEPS: f64 = 51.;
const UPDATES: f64 = 25.;

/// Name, label, refinement iterations of an image, and its goal: the multiply-adds of a guided
/// image's passes, in units of a plain one's.
const COMPOSED: [(&str, &str, f64, f64); 3] = [
    ("guided_to_plain_0", "... guided image / plain image, composed, R = 0", 0., 1.26),
    ("guided_to_plain_20", "... R = 20", 20., 1.46),
    ("guided_to_plain_60", "... R = 60", 60., 1.87),
];

/// Times the passes by turns.
pub(super) fn measure(setting: &Setting<'_>, folder: &str) -> Result<Reports> {
    let args = ["--model", folder, "--repeats", "1"];
    setting.rounds(
        "SD 1.4 size",
        setting.repeats,
        || setting.ours(BENCH, &args),
        |python| setting.peer(python, SCRIPT, &args),
    )
}

/// What came of it.
pub(super) fn rows(reports: &Reports) -> Result<Vec<Row>> {
    let forward = ("forward", "full_forward", "SD 1.4 size: forward");
    let of_two = ("forward_of_two", "full_forward_of_two", "... forward, batch 2");
    let gradient = ("gradient", "full_gradient", "... gradient pass");
    let mut rows = vec![
        reports.row(forward, Some(Goal::OfDiffusers(0.95)))?,
        reports.row(of_two, None)?,
        reports.row(gradient, Some(Goal::OfDiffusers(0.55)))?,
    ];
    let passes = [timing(&reports.ours, "forward_of_two")?, timing(&reports.ours, "gradient")?];
    rows.extend(COMPOSED.map(|(name, label, refinements, goal)| Row {
        name,
        label,
        unit: Unit::Factor,
        ours: guided_to_plain(passes, refinements),
        peer: None,
        goal: Some(Goal::Near(goal)),
    }));
    Ok(rows)
}

/// How many times the passes of a plain image those of a guided one take, by what a pass of two
/// (`of_two`) and a gradient pass take: decoding and the like, the same for both, are left out.
fn guided_to_plain([of_two, gradient]: [Measured; 2], refinements: f64) -> Measured {
    let ratio = |of_two: f64, gradient: f64| {
        let plain = STEPS * of_two;
        (plain + (UPDATES + refinements) * gradient) / plain
    };
    Measured { min: ratio(of_two.min, gradient.min), median: ratio(of_two.median, gradient.median) }
}

/// Sees how much memory an image takes. Once: it is the same each time.
pub(super) fn measure_memory(setting: &Setting<'_>, folder: &str) -> Result<Reports> {
    let args = ["--model", folder, "--memory"];
    setting.rounds(
        "memory, SD 1.4 size",
        1,
        || setting.ours(BENCH, &args),
        |python| setting.peer(python, SCRIPT, &args),
    )
}

/// What came of it.
pub(super) fn memory_row(reports: &Reports) -> Result<Row> {
    let peer = reports.peer.as_deref().map(|reports| peak("diffusers", reports));
    Ok(Row {
        name: "full_memory",
        label: "SD 1.4 size: peak memory of a guided image",
        unit: Unit::Bytes,
        ours: peak("excite", &reports.ours)?,
        peer: peer.transpose()?,
        goal: Some(Goal::OfDiffusers(0.8)),
    })
}

fn peak(side: &str, reports: &[Value]) -> Result<Measured> {
    let each = reports.iter().map(|report| {
        let refined = report["refinements"].as_u64().is_some_and(|count| count > 0);
        ensure!(refined, "{side} did not refine, so its peak is not that of a guided image");
        report["peak_bytes"].as_f64().with_context(|| format!("{side} has no `peak_bytes`"))
    });
    Measured::of(each.collect::<Result<_>>()?).context("there is no round")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(forward: f64) -> Value {
        let times = |seconds: f64| json!({ "times": [seconds] });
        json!({
            "forward": times(forward), "forward_of_two": times(2. * forward),
            "gradient": times(forward),
        })
    }

    #[test]
    fn an_image_is_composed_of_its_passes() {
        let reports = Reports { ours: vec![report(10.), report(12.)], peer: None };
        let rows = rows(&reports).unwrap();
        let found: Vec<(&str, f64)> = rows.iter().map(|row| (row.name, row.ours.min)).collect();
        let composed = |refinements: f64| 1. + (25. + refinements) / (51. * 2.);
        let want = [
            ("full_forward", 10.),
            ("full_forward_of_two", 20.),
            ("full_gradient", 10.),
            ("guided_to_plain_0", composed(0.)),
            ("guided_to_plain_20", composed(20.)),
            ("guided_to_plain_60", composed(60.)),
        ];
        for ((name, value), (want_name, want_value)) in found.into_iter().zip(want) {
            assert_eq!(name, want_name);
            assert!((value - want_value).abs() < 1e-12, "{name}: {value}, not {want_value}");
        }
        assert!(rows[3..].iter().all(|row| row.verdict().is_some_and(|verdict| verdict.met)));
    }

    #[test]
    fn memory_counts_if_the_image_was_refined() {
        let report =
            |bytes: u64, refinements| json!({ "peak_bytes": bytes, "refinements": refinements });
        let both = |ours, peer| Reports { ours: vec![ours], peer: Some(vec![peer]) };
        let row = memory_row(&both(report(7 << 30, 1), report(10 << 30, 1))).unwrap();
        assert_eq!(row.ratio(), Some(0.7));
        let error = memory_row(&both(report(1, 1), report(1, 0))).unwrap_err().to_string();
        assert!(error.contains("diffusers did not refine"), "{error}");
        let error = memory_row(&both(json!({ "refinements": 1 }), report(1, 1))).unwrap_err();
        assert_eq!(error.to_string(), "excite has no `peak_bytes`");
    }
}
