//! SynGen (Rassin et al., *Linguistic Binding in Diffusion Models*, NeurIPS 2023): a noun and its
//! modifiers are to be looked for at the same places, and at others than the rest of the words.
//!
//! Each token's column of the mean map becomes a distribution over the pixels. The distance of two
//! is the mean of both Kullback-Leibler divergences. For each modifier of a noun the loss is their
//! distance (section 3.2 of the paper), less half of the sum of their mean distances to the words
//! outside the set. Of a word in several pieces the farthest counts, as in the authors' code. The
//! latents are moved once a step by a constant factor, without refinement.

use std::collections::BTreeMap;

use candle_core::{D, Result, Tensor};
use excite_jobs::{NounSet, Refinement, SynGen};

use super::attend_and_excite::{Evaluation, argmax};
use super::{Objective, Schedule};
use crate::error::Error;

/// Probabilities below this have its logarithm, as in the authors' library: f32's epsilon.
const LEAST: f64 = f32::EPSILON as f64;

/// The sets of one prompt.
#[derive(Clone)]
pub(crate) struct Binding {
    params: SynGen,
    /// Positions of the prompt's own tokens end before this one.
    eot: usize,
}

impl Binding {
    /// # Errors
    /// If a position lies outside the prompt.
    pub(crate) fn new(params: &SynGen, eot: usize) -> crate::Result<Self> {
        let mut all = params.sets.iter().flat_map(words).flatten();
        let outside = |index: &&u32| !(1..eot).contains(&(**index as usize));
        if let Some(index) = all.find(outside) {
            return Err(Error::Spec(format!(
                "`method_params.sets` must name tokens 1..{eot} of the prompt, not {index}"
            )));
        }
        if params.sets.iter().flat_map(words).any(<[u32]>::is_empty) {
            return Err(Error::Spec("`method_params.sets` names a word without a token".into()));
        }
        Ok(Self { params: params.clone(), eot })
    }

    /// The loss of a map `[h * w, 77]`.
    fn loss(&self, map: &Tensor) -> Result<Option<Tensor>> {
        let maps = Distributions::new(map)?;
        let mut total: Option<Tensor> = None;
        let mut add = |loss: Tensor| -> Result<()> {
            total = Some(match total.take() {
                Some(total) => (total + loss)?,
                None => loss,
            });
            Ok(())
        };
        for set in &self.params.sets {
            let inside: Vec<u32> = words(set).flatten().copied().collect();
            let outside: Vec<u32> =
                (1..self.eot as u32).filter(|index| !inside.contains(index)).collect();
            let far = |word: &[u32]| maps.mean_distance(word, &outside);
            let noun = far(&set.noun.indices)?;
            for modifier in &set.modifiers {
                add(maps.distance(&modifier.indices, &set.noun.indices)?)?;
                for far in [noun.clone(), far(&modifier.indices)?].into_iter().flatten() {
                    add((far * -0.5)?)?;
                }
            }
            if set.modifiers.is_empty()
                && let Some(noun) = noun
            {
                add(noun.neg()?)?;
            }
        }
        Ok(total)
    }
}

/// Positions of the noun, then of each modifier.
fn words(set: &NounSet) -> impl Iterator<Item = &[u32]> {
    let modifiers = set.modifiers.iter().map(|modifier| modifier.indices.as_slice());
    std::iter::once(set.noun.indices.as_slice()).chain(modifiers)
}

impl Objective for Binding {
    fn evaluate(&mut self, map: &Tensor, _size: (usize, usize)) -> crate::Result<Evaluation> {
        let tensor = self.loss(map)?;
        let loss = tensor.as_ref().map_or(Ok(0.), Tensor::to_scalar::<f32>)?;
        Ok(Evaluation { loss, scores: Vec::new(), tensor })
    }

    fn schedule(&self, _asked: u32, count: usize) -> Schedule {
        Schedule {
            updates_before: self.params.max_iter_to_alter as usize,
            step_sizes: vec![self.params.scale_factor; count],
            thresholds: BTreeMap::new(),
            rule: Refinement::Official,
            max: 0,
        }
    }

    fn boxed(&self) -> Box<dyn Objective> {
        Box::new(self.clone())
    }
}

/// Every token's map as a distribution over the pixels: `[77, pixels]`.
struct Distributions {
    p: Tensor,
    log: Tensor,
}

impl Distributions {
    fn new(map: &Tensor) -> Result<Self> {
        let maps = map.t()?.contiguous()?;
        let p = maps.broadcast_div(&maps.sum_keepdim(D::Minus1)?)?;
        let log = p.maximum(LEAST)?.log()?;
        Ok(Self { p, log })
    }

    /// From one token to each of `others`, `[others]`.
    fn from(&self, token: u32, others: &[u32]) -> Result<Tensor> {
        let others = Tensor::new(others, self.p.device())?;
        let difference = |all: &Tensor| {
            let one = all.narrow(0, token as usize, 1)?;
            all.index_select(&others, 0)?.broadcast_sub(&one)
        };
        (difference(&self.p)? * difference(&self.log)?)?.sum(1)? * 0.5
    }

    /// Between two words: that of their farthest pieces.
    fn distance(&self, word: &[u32], other: &[u32]) -> Result<Tensor> {
        let each = word.iter().map(|&piece| self.from(piece, other)).collect::<Result<Vec<_>>>()?;
        farthest(&Tensor::cat(&each, 0)?)
    }

    /// From a word to others, the mean; `None` if there are none.
    fn mean_distance(&self, word: &[u32], others: &[u32]) -> Result<Option<Tensor>> {
        if others.is_empty() {
            return Ok(None);
        }
        let each =
            word.iter().map(|&piece| self.from(piece, others)).collect::<Result<Vec<_>>>()?;
        let all = Tensor::stack(&each, 1)?;
        let each = (0..others.len()).map(|other| farthest(&all.get(other)?));
        Ok(Some(Tensor::stack(&each.collect::<Result<Vec<_>>>()?, 0)?.mean(0)?))
    }
}

/// The largest of some distances, the first of equals.
fn farthest(distances: &Tensor) -> Result<Tensor> {
    distances.get(argmax(&distances.to_vec1::<f32>()?))
}

#[cfg(test)]
mod tests {
    use candle_core::Var;
    use excite_prompt::Subject;

    use super::*;
    use crate::guidance::attend_and_excite::tests::{SIDE, map};

    const EOT: usize = 8;

    fn binding(sets: &[(&[u32], &[&[u32]])], eot: usize) -> crate::Result<Binding> {
        let word = |indices: &[u32]| Subject { word: "x".into(), indices: indices.to_vec() };
        let set = |(noun, modifiers): &(&[u32], &[&[u32]])| NounSet {
            noun: word(noun),
            modifiers: modifiers.iter().map(|modifier| word(modifier)).collect(),
        };
        let sets = sets.iter().map(set).collect();
        Binding::new(&SynGen { sets, ..SynGen::default() }, eot)
    }

    /// Losses and entries of their gradients at (pixel, token) (0, 2), (100, 3), (255, 7), of
    /// `tests/peers/syngen.py`.
    #[test]
    fn loss_and_gradient_are_those_of_the_reference() {
        type Row = (&'static [(&'static [u32], &'static [&'static [u32]])], f32, [f32; 3]);
        #[rustfmt::skip]
        let table: [Row; 5] = [
            (&[(&[3], &[&[2]])],                     -0.654_624_5, [-0.032_235, -0.205_035, -0.030_541]),
            (&[(&[3], &[&[2]]), (&[7], &[&[6]])],    -1.473_981_1, [-0.092_697, -0.208_338, -0.269_102]),
            (&[(&[5], &[&[2], &[4]])],                0.047_644_3, [ 0.173_912, -0.022_169,  0.077_268]),
            (&[(&[3, 4], &[&[1, 2]])],               -0.192_723_7, [ 0.,        -0.029_088, -0.075_966]),
            (&[(&[3], &[])],                         -0.548_800_7, [-0.011_997,  0.077_114, -0.007_616]),
        ];
        for (sets, loss, gradient) in table {
            let map = Var::from_tensor(&map()).unwrap();
            let mut binding = binding(sets, EOT).unwrap();
            let got = binding.evaluate(map.as_tensor(), (SIDE, SIDE)).unwrap();
            assert!((got.loss - loss).abs() < 2e-6, "{sets:?}: {}, not {loss}", got.loss);
            let store = got.tensor.unwrap().backward().unwrap();
            let got = store.get(map.as_tensor()).unwrap().to_vec2::<f32>().unwrap();
            let got = [got[0][2], got[100][3], got[255][7]];
            for (got, want) in got.into_iter().zip(gradient) {
                assert!((got - want).abs() < 2e-5, "{sets:?}: {got}, not {want}");
            }
        }
    }

    /// Along a direction of all pixels and tokens, so that no part of the formula stands aside.
    #[test]
    fn the_gradient_is_that_of_central_differences() {
        let base = map();
        let sets: &[(&[u32], &[&[u32]])] = &[(&[3, 4], &[&[2]]), (&[7], &[&[5], &[6]])];
        let values = base.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let direction: Vec<f32> =
            values.iter().enumerate().map(|(i, p)| p * ((i as f32) * 0.7).sin()).collect();
        let loss = |step: f32| {
            let moved = values.iter().zip(&direction).map(|(p, d)| p + step * d).collect();
            let moved = Tensor::from_vec(moved, base.shape(), base.device()).unwrap();
            f64::from(binding(sets, EOT).unwrap().evaluate(&moved, (SIDE, SIDE)).unwrap().loss)
        };
        let (step, half) = (2e-2, 1e-2);
        // Two steps, so that the third order falls out.
        let wide = (loss(step) - loss(-step)) / f64::from(2. * step);
        let narrow = (loss(half) - loss(-half)) / f64::from(2. * half);
        let want = (4. * narrow - wide) / 3.;
        let leaf = Var::from_tensor(&base).unwrap();
        let got = binding(sets, EOT).unwrap().evaluate(leaf.as_tensor(), (SIDE, SIDE)).unwrap();
        let store = got.tensor.unwrap().backward().unwrap();
        let gradient = store.get(leaf.as_tensor()).unwrap().flatten_all().unwrap();
        let gradient = gradient.to_vec1::<f32>().unwrap();
        let got: f64 = gradient.iter().zip(&direction).map(|(g, d)| f64::from(g * d)).sum();
        assert!((got - want).abs() < 1e-3 * want.abs() + 1e-4, "{got}, not {want}");
        assert!(want.abs() > 0.01, "{want} says nothing");
    }

    #[test]
    fn words_outside_the_prompt_are_refused_and_a_lone_word_has_no_loss() {
        assert!(binding(&[(&[8], &[&[2]])], EOT).is_err());
        assert!(binding(&[(&[2], &[&[0]])], EOT).is_err());
        assert!(binding(&[(&[], &[])], EOT).is_err());
        let got = binding(&[(&[1], &[])], 2).unwrap().evaluate(&map(), (SIDE, SIDE)).unwrap();
        assert!(got.tensor.is_none() && got.loss == 0.);
    }
}
