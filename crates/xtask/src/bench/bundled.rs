//! Steps, images and a batch of the bundled model.
//!
//! Not the measuring: that is crates/diffusion/benches/pipeline.rs and
//! tests/peers/bench_diffusers.py, which time the same things in the same number.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::rounds::{Reports, Setting};
use super::table::{Goal, Row, Unit};

/// Of the benchmark in crates/diffusion/benches, and of diffusers' script.
pub(super) const BENCH: &str = "pipeline";
const SCRIPT: &str = "bench_diffusers.py";
/// Images that the batch has for each one that is refined.
const IMAGES_FOR_A_REFINED_ONE: usize = 4;

/// Measures by turns.
pub(super) fn measure(setting: &Setting<'_>) -> Result<Reports> {
    let args = ["--repeats", "1"];
    let reports = setting.rounds(
        "bundled model",
        setting.repeats,
        || setting.ours(BENCH, &args),
        |python| setting.peer(python, SCRIPT, &args),
    )?;
    require_a_quarter_refined(&reports)?;
    Ok(reports)
}

/// What came of it.
pub(super) fn rows(reports: &Reports) -> Result<Vec<Row>> {
    let row = |key, label, goal| reports.row((key, key, label), goal);
    let batch =
        row("guided_batch", "... 8 guided images, 2 refined", Some(Goal::OfDiffusers(0.7)))?;
    let images = refinements(&reports.ours[0])?.len() as f64;
    let rate = Row {
        name: "guided_batch_rate",
        label: "... of them a second",
        unit: Unit::ImagesPerSecond,
        ours: batch.ours.map(|seconds| images / seconds),
        peer: batch.peer.map(|peer| peer.map(|seconds| images / seconds)),
        goal: None,
    };
    Ok(vec![
        row("plain_step", "bundled model: plain step", None)?,
        row("guided_step", "... guided step", None)?,
        row("plain_image", "... plain image", Some(Goal::OfDiffusers(1.)))?,
        row("guided_image", "... guided image", Some(Goal::OfDiffusers(0.8)))?,
        batch,
        rate,
    ])
}

/// Refinement takes as many passes as the values need: seconds compare if the same images are
/// refined on both sides, and only then is the row what its label says.
fn require_a_quarter_refined(reports: &Reports) -> Result<()> {
    let sides = [("excite", Some(&reports.ours)), ("diffusers", reports.peer.as_ref())];
    let mut first: Option<(&str, Vec<bool>)> = None;
    for (side, reports) in sides {
        for report in reports.into_iter().flatten() {
            let iterations = refinements(report).with_context(|| side.to_owned())?;
            let refined: Vec<bool> = iterations.iter().map(|&count| count > 0).collect();
            let (images, count) = (refined.len(), refined.iter().filter(|&&is| is).count());
            ensure!(
                images == count * IMAGES_FOR_A_REFINED_ONE,
                "{side} refined {count} of the {images} images, not a quarter ({iterations:?} \
                 iterations): {REMEDY}"
            );
            match &first {
                None => first = Some((side, refined)),
                Some((_, expected)) if *expected == refined => {}
                Some((other, expected)) => bail!(
                    "{other} and {side} refined other images ({expected:?} and {refined:?}): \
                     {REMEDY}"
                ),
            }
        }
    }
    Ok(())
}

const REMEDY: &str = "choose other prompts or seeds in crates/diffusion/benches/batch.json";

/// Iterations for each image of the batch.
fn refinements(report: &Value) -> Result<Vec<u64>> {
    let iterations = report["guided_batch"]["refinements"].as_array();
    let iterations = iterations.filter(|each| !each.is_empty());
    let iterations = iterations.and_then(|each| each.iter().map(Value::as_u64).collect());
    iterations.context("`guided_batch` has no `refinements`")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(seconds: f64, refinements: &[u64]) -> Value {
        let times = json!({ "times": [seconds] });
        let mut report = json!({ "guided_batch": { "times": [8. * seconds] } });
        for name in ["plain_step", "guided_step", "plain_image", "guided_image"] {
            report[name] = times.clone();
        }
        report["guided_batch"]["refinements"] = json!(refinements);
        report
    }

    const QUARTER: [u64; 8] = [0, 0, 20, 0, 0, 7, 0, 0];

    #[test]
    fn there_is_a_row_for_everything() {
        let reports = Reports {
            ours: vec![report(1., &QUARTER)],
            peer: Some(vec![report(2., &QUARTER.map(|count| 2 * count))]),
        };
        require_a_quarter_refined(&reports).unwrap();
        let rows = rows(&reports).unwrap();
        let named: Vec<(&str, f64)> = rows.iter().map(|row| (row.name, row.ours.min)).collect();
        let want = [
            ("plain_step", 1.),
            ("guided_step", 1.),
            ("plain_image", 1.),
            ("guided_image", 1.),
            ("guided_batch", 8.),
            ("guided_batch_rate", 1.),
        ];
        assert_eq!(named, want);
        assert_eq!(rows[5].peer.map(|peer| peer.min), Some(0.5));
        let met = rows.iter().filter_map(Row::verdict).filter(|verdict| verdict.met).count();
        assert_eq!(met, 3);
    }

    #[test]
    fn exactly_a_quarter_is_refined_and_the_same_on_both_sides() {
        let other = [0, 0, 0, 20, 0, 7, 0, 0];
        let (three, none) = ([0, 1, 20, 0, 0, 7, 0, 0], [0; 8]);
        for (ours, peer, want) in [
            (three, QUARTER, "excite refined 3 of the 8 images"),
            (QUARTER, none, "diffusers refined 0 of the 8 images"),
            (QUARTER, other, "excite and diffusers refined other images"),
        ] {
            let (ours, peer) = (vec![report(1., &ours)], Some(vec![report(1., &peer)]));
            let error = require_a_quarter_refined(&Reports { ours, peer }).unwrap_err().to_string();
            assert!(error.contains(want) && error.ends_with(REMEDY), "{error}");
        }
        let silent = Reports { ours: vec![json!({})], peer: None };
        let error = format!("{:#}", require_a_quarter_refined(&silent).unwrap_err());
        assert!(error.contains("`refinements`"), "{error}");
    }
}
