//! What the JSON beside an image says of its run (`excite_jobs::Sidecar`), from what was recorded.
//!
//! Not here: where it is stored.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use excite_jobs::{AttendAndExcite, Attention, HeatMap, Number, Sidecar, Spec, StepLine, VERSION};

use crate::run::Rendered;
use crate::trace::{Observed, Record, Step};

/// The sidecar of a finished image. `sha256` is the PNG file's; `seconds` is wall time: the image's
/// share of the micro-batch's.
pub fn sidecar(
    rendered: &Rendered,
    sha256: String,
    seconds: f64,
    custom_id: Option<String>,
    labels: BTreeMap<String, String>,
) -> Sidecar {
    Sidecar {
        v: VERSION,
        sha256,
        kind: rendered.kind.clone(),
        seconds,
        custom_id,
        labels,
        spec: rendered.spec.clone(),
        tries: rendered.tries.clone(),
        adopted: false,
        attention: attention(&rendered.spec, &rendered.record),
        steps: step_lines(&rendered.record),
    }
}

/// What the record says at the last step that guidance may change.
pub fn attention(spec: &Spec, record: &Record) -> Attention {
    let step = measured_step(spec, record.observed().len());
    let scores = record.observed().get(step).map_or(&[][..], |seen| &seen.scores);
    let weakest = weakest(scores);
    Attention {
        measured_at_step: step,
        loss: weakest.map(|s| (1. - scores[s]).max(0.)),
        scores: scores.iter().map(|&s| number(s)).collect(),
        weakest: weakest.and_then(|s| spec.subjects.get(s)).map(|s| s.word.clone()),
        maps: record.observed().get(step).map(heat_maps).unwrap_or_default(),
    }
}

fn heat_maps(seen: &Observed) -> Vec<HeatMap> {
    let (height, width) = seen.size;
    let map = |map: &Vec<f32>| {
        let positive = |value: &f32| if value.is_finite() { value.max(0.) } else { 0. };
        let high = map.iter().map(positive).fold(0., f32::max);
        let share = |value: &f32| if high > 0. { positive(value) / high } else { 0. };
        let bytes: Vec<u8> = map.iter().map(|value| (share(value) * 255.).round() as u8).collect();
        HeatMap { height, width, values: STANDARD.encode(bytes) }
    };
    seen.maps.iter().filter(|map| map.len() == height * width).map(map).collect()
}

/// The last of `steps` steps that guidance may change, from 0.
pub(crate) fn measured_step(spec: &Spec, steps: usize) -> usize {
    let usual = AttendAndExcite::official().max_iter_to_alter;
    let alter = spec.method.max_iter_to_alter().unwrap_or(usual);
    (alter as usize).min(steps).saturating_sub(1)
}

/// The least score at that step.
pub(crate) fn weakest_score(spec: &Spec, record: &Record) -> Number {
    let seen = record.observed().get(measured_step(spec, record.observed().len()))?;
    weakest(&seen.scores).and_then(|s| number(seen.scores[s]))
}

/// The steps of a record.
pub fn step_lines(record: &Record) -> Vec<StepLine> {
    let line = |(i, step): (usize, &Step)| StepLine {
        timestep: record.timesteps().get(i).copied().unwrap_or_default(),
        step_size: record.step_sizes().get(i).and_then(|&a| number(a as f32)),
        loss: number(step.loss),
        scores: record.scores(i).unwrap_or_default().iter().map(|&s| number(s)).collect(),
        refinements: step.refinements,
    };
    record.steps().iter().enumerate().map(line).collect()
}

/// Position of the least score, the first of equals.
pub fn weakest(scores: &[f32]) -> Option<usize> {
    (0..scores.len()).min_by(|&a, &b| scores[a].total_cmp(&scores[b]))
}

fn number(value: f32) -> Number {
    value.is_finite().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weakest_is_the_first_of_the_least() {
        assert_eq!(weakest(&[0.5, 0.2, 0.2]), Some(1));
        assert_eq!(weakest(&[]), None);
        assert_eq!((number(f32::NAN), number(0.5)), (None, Some(0.5)));
    }
}
