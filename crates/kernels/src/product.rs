//! Products of frozen blocks with what is cut into panels, in parallel.
//!
//! A task takes some panels of one image and some rows of the result. How tasks are cut follows
//! from the number of threads, and changes nothing: each element is summed by one thread, [`DEPTH`]
//! blocks at a time, in the order of the blocks.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::blocks::{Blocks, SIDE};
use crate::instructions::Instructions;
use crate::rectangles::{Rectangle, of_each};
use crate::scratch::Scratch;
use crate::tile::{Before, STEP, TILE, WIDTH, multiply};

/// Blocks whose part of some panels stays in the second-level cache (256 KB for four panels).
pub(crate) const DEPTH: usize = 64;
/// Panels of a task: each block of the matrix is read once for all of them.
const PANELS: usize = 4;
/// Tiles of a task at least, if rows are split: a task cuts its own panels.
const TILES_MIN: usize = 8;
/// Tasks a thread, so that all end at about the same time.
const TASKS: usize = 3;

/// What a row of the result gets besides the product.
#[derive(Clone, Copy, Default)]
pub(crate) struct Finish<'a> {
    /// One for each row.
    pub(crate) bias: Option<&'a [f32]>,
    /// One for each row of each image.
    pub(crate) shift: Option<&'a [f32]>,
    /// As the result.
    pub(crate) plus: Option<&'a [f32]>,
}

/// `result[image] = matrix * panels(image)` for `[rows, width]` results.
///
/// `cut(image, panel, into)` writes columns `32 * panel ..` of what the matrix (or its transpose) is
/// multiplied with, as `[steps * 8, 32]`, zeros where there is nothing.
pub(crate) fn product(
    instructions: Instructions,
    (blocks, transposed): (&Blocks, bool),
    width: usize,
    finish: Finish<'_>,
    result: &mut [f32],
    cut: impl Fn(usize, usize, &mut [f32]) + Sync,
) {
    let rows = blocks.rows(transposed);
    if result.is_empty() {
        return;
    }
    let images = result.len() / (rows * width);
    let tiles = rows.div_ceil(SIDE);
    let (panels, slice) = split(images, (width.div_ceil(WIDTH), PANELS), (tiles, TILES_MIN));
    let parts = of_each(result, (rows, width), slice * SIDE, panels * WIDTH);
    each(parts, |(image, part)| {
        let first = part.columns().start / WIDTH;
        let count = part.columns().len().div_ceil(WIDTH);
        let panel = blocks.steps(transposed) * STEP;
        let mut panels = Scratch::of(count * panel);

        for (p, panel) in panels.chunks_exact_mut(panel).enumerate() {
            cut(image, first + p, panel);
        }
        instructions.run(Task { blocks, transposed, panels: &panels, image, finish, part, width });
    });
}

/// Runs tasks on all threads, or in place if there is nothing to share.
pub(crate) fn each<T: Send>(tasks: Vec<T>, run: impl Fn(T) + Sync + Send) {
    if tasks.len() == 1 || rayon::current_num_threads() == 1 {
        tasks.into_iter().for_each(run);
    } else {
        tasks.into_par_iter().with_max_len(1).for_each(run);
    }
}

/// Panels and tiles of a task: of so many panels at most `together`, of so many tiles at least
/// `slice`.
pub(crate) fn split(
    images: usize,
    (panels, together): (usize, usize),
    (tiles, slice): (usize, usize),
) -> (usize, usize) {
    let threads = rayon::current_num_threads();
    if threads == 1 {
        return (together.min(panels), tiles);
    }
    let wanted = TASKS * threads;
    let each = (images * panels / wanted).clamp(1, together);
    let tasks = images * panels.div_ceil(each);
    let slices = wanted.div_ceil(tasks).min(tiles.div_ceil(slice));
    (each, tiles.div_ceil(slices))
}

struct Task<'a> {
    blocks: &'a Blocks,
    transposed: bool,
    panels: &'a [f32],
    image: usize,
    finish: Finish<'a>,
    part: Rectangle<'a>,
    width: usize,
}

impl WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if self.transposed { self.run::<S, true>(simd) } else { self.run::<S, false>(simd) }
    }
}

impl Task<'_> {
    #[inline(always)]
    fn run<S: Simd, const TRANSPOSED: bool>(mut self, simd: S) {
        let steps = self.blocks.steps(TRANSPOSED);
        let tiles = self.part.rows().start / SIDE..self.part.rows().end.div_ceil(SIDE);
        let count = self.panels.len() / (steps * STEP);
        let mut sums = Scratch::of(tiles.len() * count * TILE);

        for from in (0..steps).step_by(DEPTH) {
            let to = (from + DEPTH).min(steps);
            let before = if from == 0 { Before::Replaced } else { Before::Added };
            let (sums, _) = sums.as_chunks_mut::<TILE>();
            for (tile, sums) in tiles.clone().zip(sums.chunks_exact_mut(count)) {
                let way = self.blocks.along::<TRANSPOSED>(tile, from..to);
                for (panel, sums) in self.panels.chunks_exact(steps * STEP).zip(&mut *sums) {
                    let panel = &panel[from * STEP..to * STEP];
                    multiply::<S, TRANSPOSED>(simd, way.clone(), panel, sums, before);
                }
                if to == steps {
                    self.finish(tile, sums);
                }
            }
        }
    }

    /// Puts the tiles of some rows where they belong.
    #[inline(always)]
    fn finish(&mut self, tile: usize, sums: &[[f32; TILE]]) {
        let columns = self.part.columns();
        let rows = self.part.rows();
        let height = self.blocks.rows(self.transposed);
        for row in tile * SIDE..((tile + 1) * SIDE).min(rows.end) {
            let bias = self.finish.bias.map_or(0., |bias| bias[row])
                + self.finish.shift.map_or(0., |shift| shift[self.image * height + row]);
            for (panel, sums) in sums.iter().enumerate() {
                let from = columns.start + panel * WIDTH;
                let range = from..(from + WIDTH).min(columns.end);
                let sums = &sums[row % SIDE * WIDTH..][..range.len()];
                let plus = self.finish.plus.map(|plus| {
                    let start = (self.image * height + row) * self.width;
                    &plus[start + range.start..start + range.end]
                });
                write(self.part.row(row, range), sums, bias, plus);
            }
        }
    }
}

#[inline(always)]
fn write(place: &mut [f32], sums: &[f32], bias: f32, plus: Option<&[f32]>) {
    match plus {
        None => place.iter_mut().zip(sums).for_each(|(place, sum)| *place = sum + bias),
        Some(plus) => {
            for ((place, sum), plus) in place.iter_mut().zip(sums).zip(plus) {
                *place = sum + bias + plus;
            }
        }
    }
}

/// Cuts a panel out of rows that lie in memory as they are: `[depth, width]`.
pub(crate) fn cut_rows(rows: &[f32], width: usize, panel: usize, into: &mut [f32]) {
    let from = panel * WIDTH;
    let count = WIDTH.min(width - from);
    let depth = rows.len() / width;
    let (targets, _) = into.as_chunks_mut::<WIDTH>();
    let (filled, rest) = targets.split_at_mut(depth);
    for (row, target) in rows.chunks_exact(width).zip(filled) {
        match row[from..].first_chunk::<WIDTH>() {
            Some(source) => *target = *source,
            None => {
                target[..count].copy_from_slice(&row[from..from + count]);
                target[count..].fill(0.);
            }
        }
    }
    rest.as_flattened_mut().fill(0.);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_near, sets, values};

    /// All instructions, sides that fill blocks and panels and sides that do not, several taps.
    #[test]
    fn a_product_is_what_it_is() {
        for (taps, rows, depth, width) in
            [(1, 8, 8, 32), (2, 13, 21, 45), (9, 70, 75, 131), (1, 3, 600, 7)]
        {
            let weights = values(taps * rows * depth, 1);
            let weight = |t: usize, r: usize, c: usize| weights[(t * rows + r) * depth + c];
            let blocks = Blocks::new(taps, (rows, depth), |row, column, each| {
                each.iter_mut().enumerate().for_each(|(tap, v)| *v = weight(tap, row, column));
            });
            for transposed in [false, true] {
                let (rows, depth) = if transposed { (depth, rows) } else { (rows, depth) };
                let x = values(2 * taps * depth * width, 2);
                let (bias, plus) = (values(rows, 3), values(2 * rows * width, 4));
                let shift = values(2 * rows, 5);
                let mut want = plus.clone();
                for (i, want) in want.iter_mut().enumerate() {
                    let (image, r, c) = (i / width / rows, i / width % rows, i % width);
                    let mut sum = f64::from(bias[r] + shift[image * rows + r]);
                    for t in 0..taps {
                        for d in 0..depth {
                            let w = if transposed { weight(t, d, r) } else { weight(t, r, d) };
                            let x = x[((image * taps + t) * depth + d) * width + c];
                            sum += f64::from(w) * f64::from(x);
                        }
                    }
                    *want += sum as f32;
                }
                for set in sets() {
                    let mut got = vec![f32::NAN; 2 * rows * width];
                    let finish =
                        Finish { bias: Some(&bias), shift: Some(&shift), plus: Some(&plus) };
                    product(
                        set,
                        (&blocks, transposed),
                        width,
                        finish,
                        &mut got,
                        |image, panel, into| {
                            let block = depth.div_ceil(SIDE) * STEP;
                            for (t, into) in into.chunks_exact_mut(block).enumerate() {
                                let rows =
                                    &x[(image * taps + t) * depth * width..][..depth * width];
                                cut_rows(rows, width, panel, into);
                            }
                        },
                    );
                    assert_near(&got, &want, 1e-4, &format!("{set} {taps} {rows} {depth} {width}"));
                }
            }
        }
    }

    #[test]
    fn tasks_cover_what_there_is() {
        for (images, panels, tiles) in [(1, 1, 1), (1, 8, 8), (2, 128, 40), (8, 2, 160)] {
            let (each, slice) = split(images, (panels, PANELS), (tiles, TILES_MIN));
            assert!((1..=PANELS).contains(&each) && (1..=tiles).contains(&slice));
        }
    }
}
