//! The gradient of attention, in two passes: for panels of queries, then for panels of keys.
//!
//! Each pass computes the scores again in the layout that it needs; nothing is added up by several
//! threads, so the order of sums is fixed.

use pulp::{Simd, WithSimd};

use super::{Attention, GROUP, products, scaled_panel};
use crate::blocks::{Blocks, SIDE};
use crate::instructions::Instructions;
use crate::math::exp;
use crate::product::each;
use crate::rectangles::{Rectangle, rectangles};
use crate::scratch::Scratch;
use crate::tile::{Before, TILE, WIDTH, multiply};

impl Attention {
    /// The gradient of the queries alone, from that of the result; keys and values are frozen.
    /// `attended` is what [`Attended`](super::Attended) has: values and logarithms.
    ///
    /// # Panics
    /// If the parts do not belong together.
    pub fn query_gradient(
        &self,
        instructions: Instructions,
        (query, key, value): (&[f32], &[f32], &[f32]),
        (n, m): (usize, usize),
        attended: (&[f32], &[f32]),
        gradient: &[f32],
    ) -> Vec<f32> {
        let along = self.along(n, attended.0, gradient);
        let (keys, values) = (self.blocks(key, m), self.blocks(value, m));
        self.queries(instructions, (query, &keys, &values), n, (attended.1, &along), gradient)
    }

    /// The gradients of queries, keys and values from that of the result.
    ///
    /// # Panics
    /// If the parts do not belong together.
    pub fn gradients(
        &self,
        instructions: Instructions,
        (query, key, value): (&[f32], &[f32], &[f32]),
        (n, m): (usize, usize),
        attended: (&[f32], &[f32]),
        gradient: &[f32],
    ) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let along = self.along(n, attended.0, gradient);
        let (keys, values) = (self.blocks(key, m), self.blocks(value, m));
        let known = (attended.1, along.as_slice());
        let to_query = self.queries(instructions, (query, &keys, &values), n, known, gradient);
        drop((keys, values));
        let logarithms = attended.1;
        let (queries, gradients) = (self.blocks(query, n), self.blocks(gradient, n));
        let (mut to_key, mut to_value) = (vec![0f32; key.len()], vec![0f32; value.len()]);
        let mut tasks = Vec::new();
        let targets = to_key.chunks_exact_mut(self.head(m));
        for (head, (to_key, to_value)) in
            targets.zip(to_value.chunks_exact_mut(self.head(m))).enumerate()
        {
            let to_key = rectangles(to_key, m, self.channels, WIDTH);
            let to_value = rectangles(to_value, m, self.channels, WIDTH);
            for (to_key, to_value) in to_key.into_iter().zip(to_value) {
                tasks.push(Keys {
                    queries: &queries[head],
                    gradients: &gradients[head],
                    key: &key[head * self.head(m)..][..self.head(m)],
                    value: &value[head * self.head(m)..][..self.head(m)],
                    logarithms: &logarithms[head * n..(head + 1) * n],
                    along: &along[head * n..(head + 1) * n],
                    scale: self.scale(),
                    m,
                    to_key,
                    to_value,
                });
            }
        }
        each(tasks, |task| instructions.run(task));
        (to_query, to_key, to_value)
    }

    /// For each query the product of its result and that's gradient, `[b, heads, n]`.
    fn along(&self, n: usize, result: &[f32], gradient: &[f32]) -> Vec<f32> {
        assert_eq!(result.len(), gradient.len(), "a gradient for each value");
        let mut along = vec![0f32; result.len() / self.channels];
        let heads = result.chunks_exact(self.head(n)).zip(gradient.chunks_exact(self.head(n)));
        let tasks = along.chunks_exact_mut(n).zip(heads);
        each(tasks.collect(), |(along, (result, gradient))| {
            for (y, g) in result.chunks_exact(n).zip(gradient.chunks_exact(n)) {
                for ((along, y), g) in along.iter_mut().zip(y).zip(g) {
                    *along += y * g;
                }
            }
        });
        along
    }

    fn queries(
        &self,
        instructions: Instructions,
        (query, keys, values): (&[f32], &[Blocks], &[Blocks]),
        n: usize,
        (logarithms, along): (&[f32], &[f32]),
        gradient: &[f32],
    ) -> Vec<f32> {
        let mut into = vec![0f32; query.len()];
        let mut tasks = Vec::new();
        for (head, into) in into.chunks_exact_mut(self.head(n)).enumerate() {
            for into in rectangles(into, n, self.channels, WIDTH) {
                tasks.push(Queries {
                    query: &query[head * self.head(n)..][..self.head(n)],
                    gradient: &gradient[head * self.head(n)..][..self.head(n)],
                    keys: &keys[head],
                    values: &values[head],
                    logarithms: &logarithms[head * n..(head + 1) * n],
                    along: &along[head * n..(head + 1) * n],
                    scale: self.scale(),
                    n,
                    into,
                });
            }
        }
        each(tasks, |task| instructions.run(task));
        into
    }
}

/// The gradient of a panel of queries.
struct Queries<'a> {
    query: &'a [f32],
    gradient: &'a [f32],
    keys: &'a Blocks,
    values: &'a Blocks,
    logarithms: &'a [f32],
    along: &'a [f32],
    scale: f32,
    n: usize,
    into: Rectangle<'a>,
}

impl WithSimd for Queries<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let depth = self.keys.steps(false);
        let mut memory = Scratch::of(3 * depth * TILE + 2 * GROUP * TILE);

        let (panel, rest) = memory.split_at_mut(depth * TILE);
        let (upstream, rest) = rest.split_at_mut(depth * TILE);
        let (sums, rest) = rest.split_at_mut(depth * TILE);
        let (scores, products_up) = rest.split_at_mut(GROUP * TILE);
        let range = self.into.columns();
        scaled_panel(self.query, self.n, range.start, self.scale, panel);
        scaled_panel(self.gradient, self.n, range.start, 1., upstream);
        // Columns beyond the last query see a probability of 1 at most, and are dropped.
        let (mut logarithms, mut along) = ([0f32; WIDTH], [0f32; WIDTH]);
        logarithms[..range.len()].copy_from_slice(&self.logarithms[range.clone()]);
        along[..range.len()].copy_from_slice(&self.along[range.clone()]);
        let (sums, _) = sums.as_chunks_mut::<TILE>();
        sums.as_flattened_mut().fill(0.);
        let tiles = self.keys.rows(false).div_ceil(SIDE);
        for from in (0..tiles).step_by(GROUP) {
            let to = (from + GROUP).min(tiles);
            products::<S>(simd, self.keys, from..to, panel, scores);
            products::<S>(simd, self.values, from..to, upstream, products_up);
            let scores = &mut scores[..(to - from) * TILE];
            let (rows, _) = scores.as_chunks_mut::<WIDTH>();
            for (row, up) in rows.iter_mut().zip(products_up.as_chunks::<WIDTH>().0) {
                for i in 0..WIDTH {
                    row[i] = exp(row[i] - logarithms[i]) * (up[i] - along[i]);
                }
            }
            // Keys that only fill up a tile are zeros, so whatever they have adds nothing.
            for (tile, sums) in sums.iter_mut().enumerate() {
                let way = self.keys.along::<true>(tile, from..to);
                multiply::<S, true>(simd, way, scores, sums, Before::Added);
            }
        }
        self.into.write(sums.as_flattened().as_chunks::<WIDTH>().0, self.scale);
    }
}

/// The gradients of a panel of keys and their values.
struct Keys<'a> {
    queries: &'a Blocks,
    gradients: &'a Blocks,
    key: &'a [f32],
    value: &'a [f32],
    logarithms: &'a [f32],
    along: &'a [f32],
    scale: f32,
    m: usize,
    to_key: Rectangle<'a>,
    to_value: Rectangle<'a>,
}

impl WithSimd for Keys<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let depth = self.queries.steps(false);
        let mut memory = Scratch::of(4 * depth * TILE + 2 * GROUP * TILE);

        let (key, rest) = memory.split_at_mut(depth * TILE);
        let (value, rest) = rest.split_at_mut(depth * TILE);
        let (to_key, rest) = rest.split_at_mut(depth * TILE);
        let (to_value, rest) = rest.split_at_mut(depth * TILE);
        let (scores, products_up) = rest.split_at_mut(GROUP * TILE);
        let from = self.to_key.columns().start;
        scaled_panel(self.key, self.m, from, self.scale, key);
        scaled_panel(self.value, self.m, from, 1., value);
        let (to_key, _) = to_key.as_chunks_mut::<TILE>();
        let (to_value, _) = to_value.as_chunks_mut::<TILE>();
        to_key.as_flattened_mut().fill(0.);
        to_value.as_flattened_mut().fill(0.);
        let tiles = self.queries.rows(false).div_ceil(SIDE);
        for from in (0..tiles).step_by(GROUP) {
            let to = (from + GROUP).min(tiles);
            products::<S>(simd, self.queries, from..to, key, scores);
            products::<S>(simd, self.gradients, from..to, value, products_up);
            let (scores, products_up) =
                (&mut scores[..(to - from) * TILE], &mut products_up[..(to - from) * TILE]);
            let rows = from * SIDE..(to * SIDE).min(self.logarithms.len());
            let (logarithms, along) = (&self.logarithms[rows.clone()], &self.along[rows]);
            let known = logarithms.iter().zip(along);
            let (scores_rows, _) = scores.as_chunks_mut::<WIDTH>();
            let (up_rows, _) = products_up.as_chunks_mut::<WIDTH>();
            // Queries that only fill up a tile are zeros in the blocks: they add nothing.
            for ((row, up), (logarithm, along)) in scores_rows.iter_mut().zip(up_rows).zip(known) {
                for i in 0..WIDTH {
                    row[i] = exp(row[i] - logarithm);
                    up[i] = row[i] * (up[i] - along);
                }
            }
            for tile in 0..depth {
                let way = self.gradients.along::<true>(tile, from..to);
                multiply::<S, true>(simd, way, scores, &mut to_value[tile], Before::Added);
                let way = self.queries.along::<true>(tile, from..to);
                multiply::<S, true>(simd, way, products_up, &mut to_key[tile], Before::Added);
            }
        }
        self.to_key.write(to_key.as_flattened().as_chunks::<WIDTH>().0, self.scale);
        self.to_value.write(to_value.as_flattened().as_chunks::<WIDTH>().0, 1.);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::tests::by_hand;
    use crate::testing::{assert_gradient, assert_near, sets, values};

    #[test]
    fn gradients_are_those_of_attention() {
        for (heads, d, n, m) in [(2, 8, 32, 32), (1, 5, 45, 45), (1, 40, 140, 140), (2, 16, 64, 77)]
        {
            let [q, g] = [1, 4].map(|seed| values(heads * d * n, seed));
            let [k, v] = [2, 3].map(|seed| values(heads * d * m, seed));
            let attention = Attention { heads, channels: d };
            for set in sets() {
                let what = format!("{set} {heads} {d} {n} {m}");
                let attended = attention.forward(set, (&q, &k, &v), (n, m));
                let result = (attended.values.as_slice(), attended.logarithms.as_slice());
                let known = ((q.as_slice(), k.as_slice(), v.as_slice()), (n, m), result);
                let got = attention.gradients(set, known.0, known.1, known.2, &g);
                let alone = attention.query_gradient(set, known.0, known.1, known.2, &g);
                assert_near(&alone, &got.0, 0., &what);
                let by = |q: &[f32], k: &[f32], v: &[f32]| by_hand((q, k, v), d, (n, m)).0;
                assert_gradient(|x| by(x, &k, &v), &q, &g, &got.0, &format!("{what} query"));
                assert_gradient(|x| by(&q, x, &v), &k, &g, &got.1, &format!("{what} key"));
                assert_gradient(|x| by(&q, &k, x), &v, &g, &got.2, &format!("{what} value"));
            }
        }
    }
}
