//! Attention in panels of 32 queries: the matrix of all queries against all keys never exists.
//!
//! A panel goes through the keys in groups and keeps the largest score and the sum so far (Dao et al.
//! 2022, arXiv:2205.14135; Rabe and Staats 2021, arXiv:2112.05682). Scores lie as `[keys, 32]`, so
//! that a softmax is vertical. The gradient computes scores again, from what was kept of each query:
//! the logarithm of its sum. Everything is channels first, `[b, heads * d, n]`.

mod gradient;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::blocks::{Blocks, SIDE};
use crate::instructions::Instructions;
use crate::math::exp;
use crate::product::{cut_rows, each};
use crate::rectangles::{Rectangle, rectangles};
use crate::scratch::Scratch;
use crate::tile::{Before, TILE, Tile, WIDTH, multiply};

/// Tiles of keys of a group: 128 keys, whose scores for a panel have 16 KB.
const GROUP: usize = 16;

/// Attention of several heads with `d` channels each; scores are divided by the root of `d`.
#[derive(Debug, Clone, Copy)]
pub struct Attention {
    /// Heads.
    pub heads: usize,
    /// Channels of a head.
    pub channels: usize,
}

/// The result of an attention.
pub struct Attended {
    /// `[b, heads * d, n]`
    pub values: Vec<f32>,
    /// `[b, heads, n]`: for each query the logarithm of the sum of the exponentials of its scores.
    pub logarithms: Vec<f32>,
}

impl Attention {
    fn scale(&self) -> f32 {
        1. / (self.channels as f32).sqrt()
    }

    /// Values of a head for `n` pixels.
    fn head(&self, n: usize) -> usize {
        self.channels * n
    }

    /// The blocks of each head of each image: `[b, heads * d, n]` as matrices of n rows and d
    /// columns.
    fn blocks(&self, x: &[f32], n: usize) -> Vec<Blocks> {
        blocks_of_heads(x, (n, self.channels))
    }

    /// Queries `[b, heads * d, n]`; keys and values `[b, heads * d, m]`.
    ///
    /// # Panics
    /// If the three do not belong together.
    pub fn forward(
        &self,
        instructions: Instructions,
        (query, key, value): (&[f32], &[f32], &[f32]),
        (n, m): (usize, usize),
    ) -> Attended {
        self.check(query, n);
        self.check(key, m);
        assert_eq!(key.len(), value.len(), "a value for each key");
        assert_eq!(query.len() / n, key.len() / m, "keys for each image");
        let (keys, values) = (self.blocks(key, m), self.blocks(value, m));
        let heads = query.len() / self.head(n);
        let mut attended =
            Attended { values: vec![0f32; query.len()], logarithms: vec![0f32; heads * n] };
        let results = attended.values.chunks_exact_mut(self.head(n));
        let logarithms = attended.logarithms.chunks_exact_mut(n);
        let mut tasks = Vec::new();
        for (head, (result, logarithms)) in results.zip(logarithms).enumerate() {
            let results = rectangles(result, n, self.channels, WIDTH);
            for (result, logarithms) in results.into_iter().zip(logarithms.chunks_mut(WIDTH)) {
                tasks.push(Task {
                    query: &query[head * self.head(n)..][..self.head(n)],
                    keys: &keys[head],
                    values: &values[head],
                    scale: self.scale(),
                    n,
                    result,
                    logarithms,
                });
            }
        }
        each(tasks, |task| instructions.run(task));
        attended
    }

    fn check(&self, x: &[f32], n: usize) {
        let image = self.heads * self.head(n);
        assert!(image > 0 && x.len().is_multiple_of(image), "whole images of {n} pixels");
    }
}

/// The blocks of each head of `[b, heads * columns, rows]`, as matrices of rows and columns.
pub(crate) fn blocks_of_heads(x: &[f32], (rows, columns): (usize, usize)) -> Vec<Blocks> {
    let blocks = |head: &[f32]| Blocks::of_columns(head, (rows, columns), rows);
    let heads = x.chunks_exact(rows * columns);
    if rayon::current_num_threads() == 1 {
        return heads.map(blocks).collect();
    }
    heads.collect::<Vec<_>>().into_par_iter().map(blocks).collect()
}

/// A panel of queries of one head.
struct Task<'a> {
    query: &'a [f32],
    keys: &'a Blocks,
    values: &'a Blocks,
    scale: f32,
    n: usize,
    result: Rectangle<'a>,
    logarithms: &'a mut [f32],
}

impl WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let channels = self.keys.depth(false);
        let depth = self.keys.steps(false);
        let mut memory = Scratch::of(depth * TILE * 2 + GROUP * TILE);

        let (panel, rest) = memory.split_at_mut(depth * TILE);
        let (sums, scores) = rest.split_at_mut(depth * TILE);
        scaled_panel(self.query, self.n, self.result.columns().start, self.scale, panel);
        let mut soft = Softmax::new();
        let keys = self.keys.rows(false);
        let tiles = keys.div_ceil(SIDE);
        let (sums, _) = sums.as_chunks_mut::<TILE>();
        sums.as_flattened_mut().fill(0.);
        for from in (0..tiles).step_by(GROUP) {
            let to = (from + GROUP).min(tiles);
            products::<S>(simd, self.keys, from..to, panel, scores);
            let valid = (to * SIDE).min(keys) - from * SIDE;
            let scores = &mut scores[..(to - from) * TILE];
            let factor = soft.take(scores, valid);
            for (tile, sums) in sums.iter_mut().enumerate() {
                scale_columns(sums, &factor);
                let way = self.values.along::<true>(tile, from..to);
                multiply::<S, true>(simd, way, scores, sums, Before::Added);
            }
        }
        self.finish(sums, &soft, channels);
    }
}

impl Task<'_> {
    #[inline(always)]
    fn finish(mut self, sums: &[Tile], soft: &Softmax, channels: usize) {
        let range = self.result.columns();
        let (rows, _) = sums.as_flattened().as_chunks::<WIDTH>();
        for (c, row) in rows.iter().take(channels).enumerate() {
            let target = self.result.row(c, range.clone());
            for (i, target) in target.iter_mut().enumerate() {
                *target = row[i] / soft.sums[i];
            }
        }
        for (i, logarithm) in self.logarithms.iter_mut().enumerate() {
            *logarithm = soft.largest[i] + soft.sums[i].ln();
        }
    }
}

/// Softmax over rows that come in groups, for 32 columns at once.
pub(crate) struct Softmax {
    pub(crate) largest: [f32; WIDTH],
    pub(crate) sums: [f32; WIDTH],
}

impl Softmax {
    pub(crate) fn new() -> Self {
        Self { largest: [f32::NEG_INFINITY; WIDTH], sums: [0.; WIDTH] }
    }

    /// Turns scores `[rows, 32]`, of which the first `valid` rows count, into exponentials relative
    /// to the largest score so far; gives what earlier ones are to be multiplied with.
    #[inline(always)]
    pub(crate) fn take(&mut self, scores: &mut [f32], valid: usize) -> [f32; WIDTH] {
        let (rows, _) = scores.as_chunks_mut::<WIDTH>();
        let (rows, rest) = rows.split_at_mut(valid);
        let mut largest = self.largest;
        for row in &*rows {
            for (largest, score) in largest.iter_mut().zip(row) {
                *largest = if *score > *largest { *score } else { *largest };
            }
        }
        let mut factor = [0f32; WIDTH];
        for i in 0..WIDTH {
            factor[i] = exp(self.largest[i] - largest[i]);
            self.sums[i] *= factor[i];
        }
        for row in rows {
            for i in 0..WIDTH {
                row[i] = exp(row[i] - largest[i]);
                self.sums[i] += row[i];
            }
        }
        rest.as_flattened_mut().fill(0.);
        self.largest = largest;
        factor
    }
}

/// Products of some tiles of blocks with a panel, one behind the other.
#[inline(always)]
pub(crate) fn products<S: Simd>(
    simd: S,
    blocks: &Blocks,
    tiles: std::ops::Range<usize>,
    panel: &[f32],
    into: &mut [f32],
) {
    let steps = blocks.steps(false);
    let (into, _) = into.as_chunks_mut::<TILE>();
    for (tile, into) in tiles.zip(into) {
        let way = blocks.along::<false>(tile, 0..steps);
        multiply::<S, false>(simd, way, panel, into, Before::Replaced);
    }
}

/// The panel of `[d, n]` that starts at a column, times a factor.
#[inline(always)]
pub(crate) fn scaled_panel(x: &[f32], n: usize, from: usize, scale: f32, panel: &mut [f32]) {
    cut_rows(x, n, from / WIDTH, panel);
    panel.iter_mut().for_each(|value| *value *= scale);
}

#[inline(always)]
pub(crate) fn scale_columns(tile: &mut Tile, factor: &[f32; WIDTH]) {
    let (rows, _) = tile.as_chunks_mut::<WIDTH>();
    for row in rows {
        row.iter_mut().zip(factor).for_each(|(value, factor)| *value *= factor);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::{assert_near, sets, values};

    /// The definition, in double precision: results `[bh, d, n]` and probabilities `[bh, n, m]`.
    pub(crate) fn by_hand(
        (query, key, value): (&[f32], &[f32], &[f32]),
        d: usize,
        (n, m): (usize, usize),
    ) -> (Vec<f32>, Vec<f64>) {
        let heads = query.len() / (d * n);
        let (mut result, mut all) = (vec![0f32; query.len()], Vec::new());
        for head in 0..heads {
            for q in 0..n {
                let score = |k: usize| {
                    let product = |c| {
                        f64::from(query[(head * d + c) * n + q])
                            * f64::from(key[(head * d + c) * m + k])
                    };
                    (0..d).map(product).sum::<f64>() / (d as f64).sqrt()
                };
                let scores: Vec<f64> = (0..m).map(score).collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let exponentials: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
                let sum: f64 = exponentials.iter().sum();
                for c in 0..d {
                    let term =
                        |k: usize| exponentials[k] * f64::from(value[(head * d + c) * m + k]);
                    result[(head * d + c) * n + q] = ((0..m).map(term).sum::<f64>() / sum) as f32;
                }
                all.extend(exponentials.iter().map(|e| e / sum));
            }
        }
        (result, all)
    }

    #[test]
    fn attention_in_panels_is_attention() {
        for (heads, d, n, m) in [(2, 8, 32, 32), (3, 5, 45, 45), (1, 40, 300, 300), (2, 16, 64, 77)]
        {
            let q: Vec<f32> = values(2 * heads * d * n, 1).iter().map(|x| 4. * x).collect();
            let (k, v) = (values(2 * heads * d * m, 2), values(2 * heads * d * m, 3));
            let (want, _) = by_hand((&q, &k, &v), d, (n, m));
            for set in sets() {
                let attention = Attention { heads, channels: d };
                let got = attention.forward(set, (&q, &k, &v), (n, m));
                assert_near(&got.values, &want, 1e-5, &format!("{set} {heads} {d} {n} {m}"));
            }
        }
    }

    #[test]
    fn large_scores_do_not_overflow() {
        let q = vec![300f32; 8 * 32];
        let k: Vec<f32> = values(8 * 200, 1).iter().map(|x| 300. * x).collect();
        let v = values(8 * 200, 2);
        let (want, _) = by_hand((&q, &k, &v), 8, (32, 200));
        for set in sets() {
            let attention = Attention { heads: 1, channels: 8 };
            let got = attention.forward(set, (&q, &k, &v), (32, 200));
            assert_near(&got.values, &want, 1e-4, set.name());
        }
    }
}
