//! A worker that cannot paint must not take jobs: one small guided image whose pixels are known.
//!
//! The pixels may differ a little between kinds of machines, so means of blocks are compared, within
//! a tolerance; whether the image is equal to the bit on its kind is logged.

use std::collections::BTreeMap;

use excite_diffusion::{Model, Outputs, Run};
use excite_jobs::{Line, Spec};
use serde::{Deserialize, Serialize};
use tracing::info;

use crate::pipeline::{chain, sha256};

/// Guided and refined, so that the gradient is tested too.
const LINE: &str = r#"{"prompt": "a cat and a frog", "subjects": ["cat", "frog"], "seed": 8,
    "steps": 2, "method_params": {"thresholds": {"0": 0.9}, "max_refinement_steps": 1}}"#;
/// Pixels along a side of a block.
const BLOCK: u32 = 16;
/// Of 255, of a block's mean: kinds of machines differ by less than 1, a broken one by tens.
const TOLERANCE: f32 = 2.;
const EXPECTED: &str = include_str!("self_test/expected.json");

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Expected {
    /// Of the raw pixels, by kind of machine.
    sha256: BTreeMap<String, String>,
    /// Mean red, green and blue of each block, row by row.
    blocks: Vec<[f32; 3]>,
}

/// Makes the image on the bundled model and compares.
///
/// # Errors
/// What differs, or why there is no image.
pub(crate) fn run(model: &Model) -> Result<(), String> {
    let expected: Expected = serde_json::from_str(EXPECTED).map_err(|e| e.to_string())?;
    let found = make(model)?;
    if found.blocks.len() != expected.blocks.len() {
        return Err(format!("the image has {} blocks", found.blocks.len()));
    }
    let channels = found.blocks.iter().flatten().zip(expected.blocks.iter().flatten());
    let worst = channels.map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    if worst.is_nan() || worst > TOLERANCE {
        return Err(format!("the image differs by {worst} of 255, more than {TOLERANCE}"));
    }
    let kind = model.compute().kind();
    let equal = expected.sha256.get(kind).map(|sha256| found.sha256.get(kind) == Some(sha256));
    info!(kind, worst, bit_equal = ?equal, "the image of the self-test is as it should be");
    Ok(())
}

fn make(model: &Model) -> Result<Expected, String> {
    let line = Line::parse(LINE).map_err(|e| e.to_string())?;
    let resolved = line.resolve(&model.facts(), model.tokenizer()).map_err(|e| e.to_string())?;
    let specs: Vec<Spec> = resolved.specs().collect();
    let rendered = Run::start(model, &specs, Outputs::default())
        .and_then(|run| run.complete(&|| false, |_| ()))
        .map_err(|e| chain(&e))?;
    let picture = &rendered.first().ok_or("there is no image")?.picture;
    let (width, height) = (picture.width() / BLOCK, picture.height() / BLOCK);
    let mut blocks = Vec::new();
    for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
        let mut sums = [0u32; 3];
        for (dy, dx) in (0..BLOCK).flat_map(|dy| (0..BLOCK).map(move |dx| (dy, dx))) {
            let pixel = picture.get(x * BLOCK + dx, y * BLOCK + dy);
            sums.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += u32::from(value));
        }
        blocks.push(sums.map(|sum| sum as f32 / (BLOCK * BLOCK) as f32));
    }
    let sha256 = BTreeMap::from([(model.compute().kind().into(), sha256(picture.pixels()))]);
    Ok(Expected { sha256, blocks })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the engine's numbers change on purpose, what is printed here goes into
    /// `self_test/expected.json`.
    #[test]
    fn this_machine_passes_and_a_wrong_image_does_not() {
        let model = Model::load(&excite_diffusion::bundled()).unwrap();
        let found = make(&model).unwrap();
        let json = serde_json::to_string(&found).unwrap();
        assert_eq!(run(&model), Ok(()), "{json}");
        let expected: Expected = serde_json::from_str(EXPECTED).unwrap();
        let other = expected.blocks.iter().flatten().any(|value| (value - 128.).abs() > 20.);
        assert!(other, "a grey image would pass");
        if let Some(sha256) = expected.sha256.get(excite_diffusion::kind()) {
            assert_eq!(found.sha256.get(excite_diffusion::kind()), Some(sha256), "{json}");
        }
    }
}
