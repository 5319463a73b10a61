//! Cross-attention whose probabilities are looked at: they are a result of their own.
//!
//! Keys and values come from the text and are frozen. Probabilities lie as `[b, heads, m, n]`, so
//! that a softmax over the m keys of each of n queries is vertical.

use pulp::{Simd, WithSimd};

use crate::attention::{Softmax, blocks_of_heads, products, scale_columns, scaled_panel};
use crate::blocks::{Blocks, SIDE};
use crate::instructions::Instructions;
use crate::product::{cut_rows, each};
use crate::rectangles::{Rectangle, of_each};
use crate::scratch::Scratch;
use crate::tile::{Before, TILE, WIDTH, multiply};

/// Probabilities of `heads` heads with `channels` channels each, over `keys` keys.
#[derive(Debug, Clone, Copy)]
pub struct Probabilities {
    /// Heads.
    pub heads: usize,
    /// Channels of a head.
    pub channels: usize,
    /// Keys.
    pub keys: usize,
}

impl Probabilities {
    fn blocks(&self, x: &[f32]) -> Vec<Blocks> {
        blocks_of_heads(x, (self.keys, self.channels))
    }

    fn scale(&self) -> f32 {
        1. / (self.channels as f32).sqrt()
    }

    /// Queries `[b, heads * d, n]` and keys `[b, heads * d, m]` to probabilities `[b, heads, m, n]`.
    ///
    /// # Panics
    /// If the two do not belong together.
    pub fn forward(
        &self,
        instructions: Instructions,
        query: &[f32],
        key: &[f32],
        n: usize,
    ) -> Vec<f32> {
        let keys = self.blocks(key);
        let head = self.channels * n;
        assert_eq!(query.len(), keys.len() * head, "queries and keys of the same heads");
        let mut result = vec![0f32; keys.len() * self.keys * n];
        let parts = of_each(&mut result, (self.keys, n), self.keys, WIDTH);
        each(parts, |(h, part)| {
            let (rows, blocks) = (&query[h * head..(h + 1) * head], &keys[h]);
            instructions.run(Scores { blocks, rows, scale: self.scale(), n, part });
        });
        result
    }

    /// The gradient of the queries from probabilities and the gradient of these.
    ///
    /// # Panics
    /// If they do not belong together.
    pub fn query_gradient(
        &self,
        instructions: Instructions,
        (probabilities, gradient): (&[f32], &[f32]),
        key: &[f32],
        n: usize,
    ) -> Vec<f32> {
        let keys = self.blocks(key);
        let head = self.keys * n;
        assert_eq!(probabilities.len(), keys.len() * head, "probabilities of these heads");
        assert_eq!(probabilities.len(), gradient.len(), "a gradient for each probability");
        let mut result = vec![0f32; keys.len() * self.channels * n];
        each(of_each(&mut result, (self.channels, n), self.channels, WIDTH), |(h, part)| {
            let range = h * head..(h + 1) * head;
            instructions.run(Back {
                blocks: &keys[h],
                probabilities: &probabilities[range.clone()],
                gradient: &gradient[range],
                scale: self.scale(),
                n,
                part,
            });
        });
        result
    }

    /// Probabilities `[b, heads, m, n]` times values `[b, heads * d, m]`: `[b, heads * d, n]`.
    ///
    /// # Panics
    /// If the two do not belong together.
    pub fn apply(
        &self,
        instructions: Instructions,
        probabilities: &[f32],
        value: &[f32],
        n: usize,
    ) -> Vec<f32> {
        self.product::<true>(instructions, probabilities, value, n)
    }

    /// The gradient of the probabilities from that of the result of [`Probabilities::apply`].
    ///
    /// # Panics
    /// If the two do not belong together.
    pub fn apply_gradient(
        &self,
        instructions: Instructions,
        gradient: &[f32],
        value: &[f32],
        n: usize,
    ) -> Vec<f32> {
        self.product::<false>(instructions, gradient, value, n)
    }

    fn product<const TRANSPOSED: bool>(
        &self,
        instructions: Instructions,
        x: &[f32],
        value: &[f32],
        n: usize,
    ) -> Vec<f32> {
        let values = self.blocks(value);
        let (depth, rows) = match TRANSPOSED {
            true => (self.keys, self.channels),
            false => (self.channels, self.keys),
        };
        assert_eq!(x.len(), values.len() * depth * n, "rows for each head");
        let mut result = vec![0f32; values.len() * rows * n];
        each(of_each(&mut result, (rows, n), rows, WIDTH), |(h, part)| {
            let x = &x[h * depth * n..(h + 1) * depth * n];
            instructions.run(Product::<TRANSPOSED> { blocks: &values[h], x, n, part });
        });
        result
    }
}

struct Scores<'a> {
    blocks: &'a Blocks,
    rows: &'a [f32],
    scale: f32,
    n: usize,
    part: Rectangle<'a>,
}

impl WithSimd for Scores<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let depth = self.blocks.steps(false);
        let keys = self.blocks.rows(false);
        let tiles = keys.div_ceil(SIDE);
        let mut memory = Scratch::of((depth + tiles) * TILE);

        let (panel, scores) = memory.split_at_mut(depth * TILE);
        scaled_panel(self.rows, self.n, self.part.columns().start, self.scale, panel);
        products::<S>(simd, self.blocks, 0..tiles, panel, scores);
        let mut soft = Softmax::new();
        let _ = soft.take(scores, keys);
        let factor = soft.sums.map(|sum| 1. / sum);
        let (tiles, _) = scores.as_chunks_mut::<TILE>();
        tiles.iter_mut().for_each(|tile| scale_columns(tile, &factor));
        self.part.write(scores.as_chunks::<WIDTH>().0, 1.);
    }
}

struct Back<'a> {
    blocks: &'a Blocks,
    probabilities: &'a [f32],
    gradient: &'a [f32],
    scale: f32,
    n: usize,
    part: Rectangle<'a>,
}

impl WithSimd for Back<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let tiles = self.blocks.rows(false).div_ceil(SIDE);
        let depth = self.blocks.steps(false);
        let mut memory = Scratch::of((2 * tiles + depth) * TILE);

        let (scores, rest) = memory.split_at_mut(tiles * TILE);
        let (upstream, sums) = rest.split_at_mut(tiles * TILE);
        let panel = self.part.columns().start / WIDTH;
        cut_rows(self.probabilities, self.n, panel, scores);
        cut_rows(self.gradient, self.n, panel, upstream);
        let (rows, _) = scores.as_chunks_mut::<WIDTH>();
        let (ups, _) = upstream.as_chunks::<WIDTH>();
        let mut along = [0f32; WIDTH];
        for (row, up) in rows.iter().zip(ups) {
            for i in 0..WIDTH {
                along[i] += row[i] * up[i];
            }
        }
        for (row, up) in rows.iter_mut().zip(ups) {
            for i in 0..WIDTH {
                row[i] *= up[i] - along[i];
            }
        }
        for (tile, sums) in sums.as_chunks_mut::<TILE>().0.iter_mut().enumerate() {
            let way = self.blocks.along::<true>(tile, 0..tiles);
            multiply::<S, true>(simd, way, scores, sums, Before::Replaced);
        }
        self.part.write(sums.as_chunks::<WIDTH>().0, self.scale);
    }
}

struct Product<'a, const TRANSPOSED: bool> {
    blocks: &'a Blocks,
    x: &'a [f32],
    n: usize,
    part: Rectangle<'a>,
}

impl<const TRANSPOSED: bool> WithSimd for Product<'_, TRANSPOSED> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let steps = self.blocks.steps(TRANSPOSED);
        let tiles = self.blocks.rows(TRANSPOSED).div_ceil(SIDE);
        let mut memory = Scratch::of((steps + tiles) * TILE);

        let (panel, sums) = memory.split_at_mut(steps * TILE);
        cut_rows(self.x, self.n, self.part.columns().start / WIDTH, panel);
        for (tile, sums) in sums.as_chunks_mut::<TILE>().0.iter_mut().enumerate() {
            let way = self.blocks.along::<TRANSPOSED>(tile, 0..steps);
            multiply::<S, TRANSPOSED>(simd, way, panel, sums, Before::Replaced);
        }
        self.part.write(sums.as_chunks::<WIDTH>().0, 1.);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::tests::by_hand;
    use crate::testing::{assert_gradient, assert_near, sets, values};

    #[test]
    fn probabilities_and_their_gradient_are_what_they_are() {
        for (heads, d, n, m) in [(2, 16, 64, 77), (1, 5, 45, 7), (3, 40, 33, 80)] {
            let (q, k) = (values(heads * d * n, 1), values(heads * d * m, 2));
            let v = values(heads * d * m, 3);
            let map = Probabilities { heads, channels: d, keys: m };
            let (want, all) = by_hand((&q, &k, &v), d, (n, m));
            for set in sets() {
                let what = format!("{set} {heads} {d} {n} {m}");
                let p = map.forward(set, &q, &k, n);
                let at = |i: usize| {
                    let (head, key, query) = (i / (m * n), i / n % m, i % n);
                    all[(head * n + query) * m + key] as f32
                };
                let expected: Vec<f32> = (0..p.len()).map(at).collect();
                assert_near(&p, &expected, 1e-5, &what);
                assert_near(&map.apply(set, &p, &v, n), &want, 1e-5, &what);
                let g = values(p.len(), 4);
                let gradient = map.query_gradient(set, (&p, &g), &k, n);
                assert_gradient(|q| map.forward(set, q, &k, n), &q, &g, &gradient, &what);
                let g = values(want.len(), 5);
                let gradient = map.apply_gradient(set, &g, &v, n);
                assert_gradient(|p| map.apply(set, p, &v, n), &p, &g, &gradient, &what);
            }
        }
    }
}
