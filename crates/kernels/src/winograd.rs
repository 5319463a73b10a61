//! Winograd's F(2x2, 3x3): 16 products for each 2x2 pixels of a 3x3 convolution instead of 36.
//!
//! Lavin and Gray 2016 (arXiv:1509.09308), section 4.1. A mirrored kernel has the same transform with
//! the first and last row and column exchanged, so the gradient reads the forward's blocks too.
//! Panels take whole rows of tiles, so that a task writes a range of pixels.

use pulp::{Simd, WithSimd};

use crate::blocks::{Blocks, SIDE};
use crate::columns::{Framed, Geometry};
use crate::instructions::Instructions;
use crate::product::{Finish, each, split};
use crate::rectangles::{Rectangle, of_each};
use crate::scratch::Scratch;
use crate::tile::{Before, STEP, TILE, WIDTH, multiply};

/// Products of a tile.
const TAPS: usize = 16;
/// Panels of a task: the transformed kernel is read once for all of them.
const PANELS: usize = 2;
/// Tiles of rows whose products are kept until they are put together.
const GROUP: usize = 8;

/// A transformed 3x3 kernel.
pub(crate) struct Winograd(Blocks);

impl Winograd {
    /// From a kernel `[out, in, 3, 3]`.
    pub(crate) fn new(kernel: &[f32], (cin, cout): (usize, usize)) -> Self {
        // G g G^T with G = [1 0 0; 1/2 1/2 1/2; 1/2 -1/2 1/2; 0 0 1].
        let combined = |a: f32, b: f32, c: f32| [a, 0.5 * (a + b + c), 0.5 * (a - b + c), c];
        Self(Blocks::new(TAPS, (cout, cin), |o, i, each| {
            let g = &kernel[(o * cin + i) * 9..][..9];
            let columns: [[f32; 4]; 3] =
                std::array::from_fn(|j| combined(g[j], g[3 + j], g[6 + j]));
            for (y, row) in each.chunks_exact_mut(4).enumerate() {
                row.copy_from_slice(&combined(columns[0][y], columns[1][y], columns[2][y]));
            }
        }))
    }

    /// The convolution of framed images, or with the mirrored transpose. `geometry` is that of the
    /// convolution that is made: 3x3, stride 1, padding 1.
    pub(crate) fn product(
        &self,
        instructions: Instructions,
        transposed: bool,
        framed: &Framed,
        geometry: Geometry,
        finish: Finish<'_>,
        result: &mut [f32],
    ) {
        let rows = self.0.rows(transposed);
        let (height, width) = geometry.source;
        let pixels = height * width;
        let strips = Strips::new((height, width));
        let images = result.len() / (rows * pixels);
        let most = (PANELS / strips.panels).max(1);
        let (together, slice) = split(images, (strips.count(), most), (rows.div_ceil(SIDE), GROUP));
        let columns = together * strips.rows * 2 * width;
        let parts = of_each(result, (rows, pixels), slice * SIDE, columns);
        each(parts, |(image, part)| {
            let first = part.columns().start / (strips.rows * 2 * width);
            let count = part.columns().len().div_ceil(strips.rows * 2 * width);
            instructions.run(Task {
                blocks: &self.0,
                transposed,
                framed: framed.image(image),
                geometry,
                finish,
                strips: &strips,
                range: (first, count),
                image,
                part,
            });
        });
    }
}

/// Rows of tiles in panels.
struct Strips {
    /// Tiles down and across.
    tiles: (usize, usize),
    /// Rows of tiles of a strip.
    rows: usize,
    /// Panels of a strip.
    panels: usize,
}

impl Strips {
    fn new((height, width): (usize, usize)) -> Self {
        let tiles = (height.div_ceil(2), width.div_ceil(2));
        Self { tiles, rows: (WIDTH / tiles.1).max(1), panels: tiles.1.div_ceil(WIDTH) }
    }

    fn count(&self) -> usize {
        self.tiles.0.div_ceil(self.rows)
    }

    /// The runs of tiles of a panel: place in the panel, row of tiles, first tile, number.
    #[inline(always)]
    fn runs(
        &self,
        strip: usize,
        panel: usize,
    ) -> impl Iterator<Item = (usize, usize, usize, usize)> {
        let from = panel * WIDTH;
        let len = WIDTH.min(self.tiles.1 - from);
        let first = strip * self.rows;
        let last = (first + self.rows).min(self.tiles.0);
        (first..last).enumerate().map(move |(run, row)| (run * len, row, from, len))
    }
}

struct Task<'a> {
    blocks: &'a Blocks,
    transposed: bool,
    framed: &'a [f32],
    geometry: Geometry,
    finish: Finish<'a>,
    strips: &'a Strips,
    /// First strip, and how many.
    range: (usize, usize),
    image: usize,
    part: Rectangle<'a>,
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
        let depth = self.blocks.steps(TRANSPOSED) / TAPS;
        let panels = self.range.1 * self.strips.panels;
        let tiles = self.part.rows().start / SIDE..self.part.rows().end.div_ceil(SIDE);
        let group = GROUP.min(tiles.len());
        let mut memory = Scratch::of(panels * TAPS * depth * STEP + TAPS * group * panels * TILE);

        let (seen, sums) = memory.split_at_mut(panels * TAPS * depth * STEP);
        for (p, seen) in seen.chunks_exact_mut(TAPS * depth * STEP).enumerate() {
            let strip = self.range.0 + p / self.strips.panels;
            self.cut(strip, p % self.strips.panels, depth * STEP, seen);
        }
        let (sums, _) = sums.as_chunks_mut::<TILE>();
        for first in tiles.clone().step_by(group) {
            let last = (first + group).min(tiles.end);
            for tap in 0..TAPS {
                // The mirrored kernel has the first and last row and column exchanged.
                let exchanged = |i: usize| [3, 1, 2, 0][i];
                let of = match TRANSPOSED {
                    true => exchanged(tap / 4) * 4 + exchanged(tap % 4),
                    false => tap,
                };
                for tile in first..last {
                    let way = self.blocks.along::<TRANSPOSED>(tile, of * depth..(of + 1) * depth);
                    for (p, seen) in seen.chunks_exact(TAPS * depth * STEP).enumerate() {
                        let seen = &seen[tap * depth * STEP..(tap + 1) * depth * STEP];
                        let sum = &mut sums[((tile - first) * panels + p) * TAPS + tap];
                        multiply::<S, TRANSPOSED>(simd, way.clone(), seen, sum, Before::Replaced);
                    }
                }
            }
            for tile in first..last {
                for p in 0..panels {
                    let at = ((tile - first) * panels + p) * TAPS;
                    self.put(tile, p, &sums[at..at + TAPS]);
                }
            }
        }
    }

    /// B^T d B of a panel's tiles: `[16, channels in whole blocks, 32]`.
    #[inline(always)]
    fn cut(&self, strip: usize, panel: usize, tap: usize, seen: &mut [f32]) {
        let (height, pitch) = self.geometry.framed();
        let channels = self.geometry.channels;
        for channel in 0..channels.next_multiple_of(SIDE) {
            let mut end = 0;
            if channel < channels {
                for (place, row, from, len) in self.strips.runs(strip, panel) {
                    let start = (channel * height + 2 * row) * pitch + 2 * from;
                    let at = channel * WIDTH + place;
                    let source = &self.framed[start..];
                    match len {
                        32 => transform(source, pitch, 32, tap, &mut seen[at..]),
                        16 => transform(source, pitch, 16, tap, &mut seen[at..]),
                        8 => transform(source, pitch, 8, tap, &mut seen[at..]),
                        len => transform(source, pitch, len, tap, &mut seen[at..]),
                    }
                    end = place + len;
                }
            }
            for tap in seen.chunks_exact_mut(tap) {
                tap[channel * WIDTH + end..(channel + 1) * WIDTH].fill(0.);
            }
        }
    }

    /// A^T m A of 16 tiles of products, where it belongs.
    #[inline(always)]
    fn put(&mut self, tile: usize, panel: usize, sums: &[[f32; TILE]]) {
        let (height, width) = self.geometry.source;
        let all = self.blocks.rows(self.transposed);
        let strip = self.range.0 + panel / self.strips.panels;
        for row in tile * SIDE..((tile + 1) * SIDE).min(self.part.rows().end) {
            let bias = self.finish.bias.map_or(0., |bias| bias[row])
                + self.finish.shift.map_or(0., |shift| shift[self.image * all + row]);
            let mut pixels = [[0f32; 2 * WIDTH]; 2];
            untransform(sums, row % SIDE, bias, &mut pixels);
            let plane = (self.image * all + row) * height * width;
            for (place, down, from, len) in self.strips.runs(strip, panel % self.strips.panels) {
                for (odd, pixels) in pixels.iter().enumerate() {
                    let y = 2 * down + odd;
                    if y >= height {
                        continue;
                    }
                    let start = y * width + 2 * from;
                    let len = (2 * len).min(width - 2 * from);
                    let pixels = &pixels[2 * place..2 * place + len];
                    let target = self.part.row(row, start..start + len);
                    match self.finish.plus {
                        None => target.copy_from_slice(pixels),
                        Some(plus) => {
                            let plus = &plus[plane + start..plane + start + len];
                            for ((target, pixel), plus) in target.iter_mut().zip(pixels).zip(plus) {
                                *target = pixel + plus;
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Of `len` tiles side by side: 4 rows of `2 * len + 2` pixels to 16 values each.
#[inline(always)]
fn transform(source: &[f32], pitch: usize, len: usize, tap: usize, seen: &mut [f32]) {
    const HALF: usize = WIDTH + 1;
    /// Rows of B^T: one row of the source, and another with its sign.
    const DOWN: [(usize, f32, usize); 4] = [(0, -1., 2), (1, 1., 2), (2, -1., 1), (1, -1., 3)];
    let mut even = [[0f32; HALF]; 4];
    let mut odd = [[0f32; HALF]; 4];
    for (row, (even, odd)) in even.iter_mut().zip(&mut odd).enumerate() {
        let source = &source[row * pitch..row * pitch + 2 * len + 2];
        let (pairs, _) = source.as_chunks::<2>();
        for (i, [first, second]) in pairs.iter().enumerate() {
            even[i] = *first;
            odd[i] = *second;
        }
    }
    for (row, (first, sign, second)) in DOWN.into_iter().enumerate() {
        let (mut e, mut o) = ([0f32; HALF], [0f32; HALF]);
        for i in 0..=len {
            e[i] = even[first][i] + sign * even[second][i];
            o[i] = odd[first][i] + sign * odd[second][i];
        }
        let at = |column: usize| (row * 4 + column) * tap;
        seen[at(0)..at(0) + len].iter_mut().enumerate().for_each(|(i, v)| *v = e[i] - e[i + 1]);
        seen[at(1)..at(1) + len].iter_mut().enumerate().for_each(|(i, v)| *v = o[i] + e[i + 1]);
        seen[at(2)..at(2) + len].iter_mut().enumerate().for_each(|(i, v)| *v = e[i + 1] - o[i]);
        seen[at(3)..at(3) + len].iter_mut().enumerate().for_each(|(i, v)| *v = o[i] - o[i + 1]);
    }
}

/// One row of 32 tiles of products to two rows of pixels.
#[inline(always)]
fn untransform(sums: &[[f32; TILE]], row: usize, bias: f32, pixels: &mut [[f32; 2 * WIDTH]; 2]) {
    let at = |tap: usize, i: usize| sums[tap][row * WIDTH + i];
    for i in 0..WIDTH {
        let top: [f32; 4] = std::array::from_fn(|c| at(c, i) + at(4 + c, i) + at(8 + c, i));
        let low: [f32; 4] = std::array::from_fn(|c| at(4 + c, i) - at(8 + c, i) - at(12 + c, i));
        for (pixels, m) in pixels.iter_mut().zip([top, low]) {
            pixels[2 * i] = m[0] + m[1] + m[2] + bias;
            pixels[2 * i + 1] = m[1] - m[2] - m[3] + bias;
        }
    }
}
