//! Matrices in blocks of 8x8, in which a product and the product with the transpose read forwards.
//!
//! A block lies column by column: `block[8 * column + row]`. The matrix times something goes through
//! the blocks of a row of blocks and takes from each, column by column, 8 rows at once; the
//! transpose times something takes from the same blocks the columns as rows. So one copy of frozen
//! weights is enough for a layer and its gradient. Sides are filled up with zeros.

/// Rows and columns of a block.
pub(crate) const SIDE: usize = 8;
/// Values of a block.
pub(crate) const AREA: usize = SIDE * SIDE;

/// As many `rows` x `columns` matrices as there are `taps`, side by side: `[rows, taps, columns]`.
pub(crate) struct Blocks {
    taps: usize,
    rows: usize,
    columns: usize,
    values: Vec<f32>,
}

impl Blocks {
    /// `fill(row, column, values)` gives what is there, a value for each tap.
    pub(crate) fn new(
        taps: usize,
        (rows, columns): (usize, usize),
        fill: impl Fn(usize, usize, &mut [f32]),
    ) -> Self {
        let (down, across) = (rows.div_ceil(SIDE), columns.div_ceil(SIDE));
        let mut values = vec![0f32; down * taps * across * AREA];
        let mut each = vec![0f32; taps];
        for row in 0..rows {
            for column in 0..columns {
                fill(row, column, &mut each);
                let block = row / SIDE * taps * across + column / SIDE;
                let place = block * AREA + column % SIDE * SIDE + row % SIDE;
                let places = values[place..].iter_mut().step_by(across * AREA);
                places.zip(&each).for_each(|(place, value)| *place = *value);
            }
        }
        Self { taps, rows, columns, values }
    }

    /// Of one tap, from values that lie as `[columns, rows]` with `stride` values from one column
    /// to the next.
    pub(crate) fn of_columns(
        values: &[f32],
        (rows, columns): (usize, usize),
        stride: usize,
    ) -> Self {
        let (down, across) = (rows.div_ceil(SIDE), columns.div_ceil(SIDE));
        let mut blocks = vec![0f32; down * across * AREA];
        for (i, band) in blocks.chunks_exact_mut(across * AREA).enumerate() {
            let from = i * SIDE;
            let count = SIDE.min(rows - from);
            for (column, target) in band.chunks_exact_mut(SIDE).take(columns).enumerate() {
                let source = &values[column * stride + from..];
                match (source.first_chunk::<SIDE>(), count) {
                    (Some(source), SIDE) => target.copy_from_slice(source),
                    _ => target[..count].copy_from_slice(&source[..count]),
                }
            }
        }
        Self { taps: 1, rows, columns, values: blocks }
    }

    /// Rows of the product: those of the matrix, or of its transpose.
    pub(crate) fn rows(&self, transposed: bool) -> usize {
        if transposed { self.columns } else { self.rows }
    }

    /// Rows of what the matrix (or its transpose) is multiplied with, for one tap.
    pub(crate) fn depth(&self, transposed: bool) -> usize {
        if transposed { self.rows } else { self.columns }
    }

    /// Blocks on the way of one row of blocks of the product, over all taps.
    pub(crate) fn steps(&self, transposed: bool) -> usize {
        self.taps * self.depth(transposed).div_ceil(SIDE)
    }

    fn across(&self) -> usize {
        self.columns.div_ceil(SIDE)
    }

    /// The blocks `steps` for the row of blocks `tile` of the product.
    #[inline(always)]
    pub(crate) fn along<const TRANSPOSED: bool>(
        &self,
        tile: usize,
        steps: std::ops::Range<usize>,
    ) -> impl Iterator<Item = &[f32; AREA]> + Clone {
        let across = self.across();
        let (blocks, _) = self.values.as_chunks::<AREA>();
        let down = self.rows.div_ceil(SIDE);
        let band = self.taps * across;
        steps.map(move |step| {
            let index = match TRANSPOSED {
                false => tile * band + step,
                true => (step % down) * band + (step / down) * across + tile,
            };
            &blocks[index]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_making_blocks_agree() {
        // A 13 x 10 matrix whose columns lie 15 values apart.
        let values: Vec<f32> = (0..10 * 15).map(|i| i as f32).collect();
        let one = Blocks::new(1, (13, 10), |row, column, each| each[0] = values[column * 15 + row]);
        let other = Blocks::of_columns(&values, (13, 10), 15);
        assert_eq!(one.values, other.values);
        assert_eq!((one.steps(false), one.steps(true)), (2, 2));
    }

    #[test]
    fn the_way_of_the_transpose_goes_through_all_taps() {
        let blocks = Blocks::new(3, (16, 24), |row, column, each| {
            for (tap, value) in each.iter_mut().enumerate() {
                *value = (tap * 10_000 + row * 100 + column) as f32;
            }
        });
        let firsts =
            |steps: Vec<&[f32; AREA]>| -> Vec<f32> { steps.iter().map(|b| b[0]).collect() };
        let forward = firsts(blocks.along::<false>(1, 0..9).collect());
        let want = [800., 808., 816., 10_800., 10_808., 10_816., 20_800., 20_808., 20_816.];
        assert_eq!(forward, want);
        let back = firsts(blocks.along::<true>(2, 0..6).collect());
        assert_eq!(back, [16., 816., 10_016., 10_816., 20_016., 20_816.]);
    }
}
