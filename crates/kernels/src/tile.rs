//! The innermost product: 8 rows by 32 columns, in registers.
//!
//! How many of them are in registers at a time follows from the instructions; the sums, and so the
//! bits, do not.

use pulp::Simd;

use crate::blocks::{AREA, SIDE};

/// Columns of a panel: what a matrix is multiplied with comes in panels `[depth, 32]`.
pub(crate) const WIDTH: usize = 32;
/// Values of a tile.
pub(crate) const TILE: usize = SIDE * WIDTH;
/// Values of a panel for one block.
pub(crate) const STEP: usize = SIDE * WIDTH;

/// `[8, 32]`
pub(crate) type Tile = [f32; TILE];

/// What becomes of what the tile held before.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Before {
    Replaced,
    Added,
}

/// The product of the blocks with the panel.
#[inline(always)]
pub(crate) fn multiply<'a, S: Simd, const TRANSPOSED: bool>(
    simd: S,
    blocks: impl Iterator<Item = &'a [f32; AREA]> + Clone,
    panel: &[f32],
    tile: &mut Tile,
    before: Before,
) {
    // Rows and pairs of vectors so that sums, a pair of the panel and a factor fit into registers.
    if S::IS_SCALAR {
        plain::<TRANSPOSED>(blocks, panel, tile, before);
    } else if S::F32_LANES == 8 {
        part::<S, TRANSPOSED, 4>(simd, blocks, panel, tile, before);
    } else {
        part::<S, TRANSPOSED, 8>(simd, blocks, panel, tile, before);
    }
}

#[inline(always)]
fn part<'a, S: Simd, const TRANSPOSED: bool, const ROWS: usize>(
    simd: S,
    blocks: impl Iterator<Item = &'a [f32; AREA]> + Clone,
    panel: &[f32],
    tile: &mut Tile,
    before: Before,
) {
    let vectors = WIDTH / S::F32_LANES;
    let (panel, _) = S::as_simd_f32s(panel);
    let (tile, _) = S::as_mut_simd_f32s(&mut tile[..]);
    for first in (0..SIDE).step_by(ROWS) {
        for pair in (0..vectors).step_by(2) {
            let mut sums = [[simd.splat_f32s(0.); 2]; ROWS];
            for (block, panel) in blocks.clone().zip(panel.chunks_exact(SIDE * vectors)) {
                for k in 0..SIDE {
                    let b = [panel[k * vectors + pair], panel[k * vectors + pair + 1]];
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let row = first + row;
                        let a = match TRANSPOSED {
                            false => block[k * SIDE + row],
                            true => block[row * SIDE + k],
                        };
                        let a = simd.splat_f32s(a);
                        sums[0] = simd.mul_add_e_f32s(a, b[0], sums[0]);
                        sums[1] = simd.mul_add_e_f32s(a, b[1], sums[1]);
                    }
                }
            }
            for (row, sums) in sums.iter().enumerate() {
                let at = (first + row) * vectors + pair;
                let place = &mut tile[at..at + 2];
                for (place, sum) in place.iter_mut().zip(sums) {
                    *place = match before {
                        Before::Replaced => *sum,
                        Before::Added => simd.add_f32s(*place, *sum),
                    };
                }
            }
        }
    }
}

/// The same without a set of vector instructions: loops from which the compiler makes what every
/// processor of the architecture has. A product and a sum are rounded each.
#[inline(always)]
fn plain<'a, const TRANSPOSED: bool>(
    blocks: impl Iterator<Item = &'a [f32; AREA]> + Clone,
    panel: &[f32],
    tile: &mut Tile,
    before: Before,
) {
    const ROWS: usize = 4;
    let (panel, _) = panel.as_chunks::<WIDTH>();
    for first in (0..SIDE).step_by(ROWS) {
        for column in (0..WIDTH).step_by(SIDE) {
            let mut sums = [[0f32; SIDE]; ROWS];
            for (block, panel) in blocks.clone().zip(panel.chunks_exact(SIDE)) {
                for (k, b) in panel.iter().enumerate() {
                    let b: [f32; SIDE] = std::array::from_fn(|i| b[column + i]);
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let row = first + row;
                        let a = block[if TRANSPOSED { row * SIDE + k } else { k * SIDE + row }];
                        sums.iter_mut().zip(&b).for_each(|(sum, b)| *sum += a * b);
                    }
                }
            }
            for (row, sums) in sums.iter().enumerate() {
                let at = (first + row) * WIDTH + column;
                for (place, sum) in tile[at..at + SIDE].iter_mut().zip(sums) {
                    *place = if before == Before::Added { *place + sum } else { *sum };
                }
            }
        }
    }
}
