//! Two linear readings, fitted on pictures of known content by `tests/peers/eval_binding.py`: which
//! subject a judge's feature shows, and which of the eleven colours a region has.
//!
//! The judge's own texts name the subject of a lone sprite in 88 % of the cases only (it takes much
//! for glasses); a linear reading of its picture features names 99 %. The file also holds for which
//! judge it was fitted: features of another model mean nothing here.

use std::sync::LazyLock;

use serde::Deserialize;

const FILE: &str = include_str!("heads.json");

/// A softmax over a linear function.
#[derive(Deserialize)]
pub(super) struct Head {
    /// What the classes are called.
    pub(super) names: Vec<String>,
    /// A row for each class.
    weights: Vec<Vec<f32>>,
    bias: Vec<f32>,
}

#[derive(Deserialize)]
pub(super) struct Heads {
    /// From the judge's unit feature: the twelve animals, the twelve objects, and last "none": a
    /// part of a thing, or several.
    pub(super) subject: Head,
    /// From the colours of a region ([`super::colour`]): the paper's eleven.
    pub(super) colour: Head,
}

impl Head {
    /// Coordinates it reads.
    pub(super) fn width(&self) -> usize {
        self.weights.first().map_or(0, Vec::len)
    }

    /// The probability of each class. `feature` has [`Head::width`] coordinates.
    pub(super) fn read(&self, feature: &[f32]) -> Vec<f32> {
        let logit = |(row, bias): (&Vec<f32>, &f32)| {
            row.iter().zip(feature).map(|(w, v)| w * v).sum::<f32>() + bias
        };
        let logits: Vec<f32> = self.weights.iter().zip(&self.bias).map(logit).collect();
        let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let powers: Vec<f32> = logits.iter().map(|logit| (logit - top).exp()).collect();
        let sum: f32 = powers.iter().sum();
        powers.into_iter().map(|power| power / sum).collect()
    }
}

/// The class with the highest probability.
pub(super) fn likeliest(probabilities: &[f32]) -> (usize, f32) {
    let of = probabilities.iter().copied().enumerate();
    of.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((0, 0.))
}

pub(super) static HEADS: LazyLock<Heads> =
    LazyLock::new(|| serde_json::from_str(FILE).expect("a test reads the file that is built in"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_a_row_for_each_class() {
        for (head, names, width) in [(&HEADS.subject, 25, 64), (&HEADS.colour, 11, 9)] {
            assert_eq!((head.names.len(), head.bias.len(), head.width()), (names, names, width));
            assert!(head.weights.iter().all(|row| row.len() == width));
        }
        assert_eq!(HEADS.subject.names[24], "none");
    }

    #[test]
    fn probabilities_add_up_and_follow_the_weights() {
        let head = Head {
            names: vec!["a".into(), "b".into()],
            weights: vec![vec![1., 0.], vec![0., 1.]],
            bias: vec![0., 2f32.ln()],
        };
        let read = head.read(&[3., 3.]);
        assert!((read[0] - 1. / 3.).abs() < 1e-6 && (read[1] - 2. / 3.).abs() < 1e-6, "{read:?}");
        assert_eq!(likeliest(&read).0, 1);
    }
}
