//! Convolutions with frozen square kernels, and the gradients of their inputs.
//!
//! A product of the kernel with what each pixel sees ([`columns`](crate::columns)), cut panel by
//! panel, so that the columns of a whole image never exist. The gradient of an input is the
//! convolution of the result's gradient with the mirrored, transposed kernel: the same blocks, read
//! as their transpose, with the taps of the columns in reverse order.

use crate::blocks::{Blocks, SIDE};
use crate::columns::{Framed, Geometry};
use crate::instructions::Instructions;
use crate::product::{Finish, cut_rows, product};
use crate::tile::WIDTH;
use crate::winograd::Winograd;

/// A frozen convolution with a square kernel, stride 1 or 2.
pub struct Conv {
    /// Channels of input and result.
    channels: (usize, usize),
    size: usize,
    stride: usize,
    padding: usize,
    bias: Option<Vec<f32>>,
    kernel: Kernel,
}

enum Kernel {
    Taps(Blocks),
    Winograd(Winograd),
}

impl Conv {
    /// From a kernel `[out, in, size, size]` and a bias `[out]`. `(in, out)` are the channels;
    /// `winograd` chooses Winograd's F(2x2, 3x3) where it can be: 3x3, stride 1, padding 1.
    ///
    /// # Panics
    /// If the kernel has another number of values.
    pub fn new(
        kernel: &[f32],
        bias: Option<Vec<f32>>,
        (cin, cout): (usize, usize),
        (size, stride, padding): (usize, usize, usize),
        winograd: bool,
    ) -> Self {
        assert_eq!(kernel.len(), cout * cin * size * size, "a kernel is [out, in, size, size]");
        let taps = size * size;
        let kernel = match winograd && (size, stride, padding) == (3, 1, 1) {
            true => Kernel::Winograd(Winograd::new(kernel, (cin, cout))),
            false => Kernel::Taps(Blocks::new(taps, (cout, cin), |o, i, each| {
                each.copy_from_slice(&kernel[(o * cin + i) * taps..][..taps]);
            })),
        };
        Self { channels: (cin, cout), size, stride, padding, bias, kernel }
    }

    /// Channels of input and result.
    pub fn channels(&self) -> (usize, usize) {
        self.channels
    }

    /// Height and width of the result for an input of this height and width.
    pub fn result(&self, source: (usize, usize)) -> (usize, usize) {
        self.geometry(source).result()
    }

    fn geometry(&self, source: (usize, usize)) -> Geometry {
        let Self { size, stride, padding, .. } = *self;
        Geometry { channels: self.channels.0, source, size, stride, padding }
    }

    /// `[b, in, h, w]` to `[b, out, h', w']`; `shift` `[b, out]` is added to all pixels, `plus` is of
    /// the result's shape.
    ///
    /// # Panics
    /// If `x` does not consist of whole images of `source` pixels.
    pub fn forward(
        &self,
        instructions: Instructions,
        x: &[f32],
        source: (usize, usize),
        shift: Option<&[f32]>,
        plus: Option<&[f32]>,
    ) -> Vec<f32> {
        let geometry = self.geometry(source);
        let images = images(x, self.channels.0, source);
        let (height, width) = geometry.result();
        let mut result = vec![0f32; images * self.channels.1 * height * width];
        let finish = Finish { bias: self.bias.as_deref(), shift, plus };
        match &self.kernel {
            Kernel::Taps(blocks) if (self.size, self.stride, self.padding) == (1, 1, 0) => {
                let (pixels, image) = (source.0 * source.1, self.channels.0 * source.0 * source.1);
                product(
                    instructions,
                    (blocks, false),
                    pixels,
                    finish,
                    &mut result,
                    |i, p, into| {
                        cut_rows(&x[i * image..(i + 1) * image], pixels, p, into);
                    },
                );
            }
            Kernel::Taps(blocks) => {
                let framed = Framed::new(geometry, x);
                let pixels = height * width;
                product(
                    instructions,
                    (blocks, false),
                    pixels,
                    finish,
                    &mut result,
                    |i, p, into| {
                        framed.cut(i, p, into);
                    },
                );
            }
            Kernel::Winograd(winograd) => {
                let framed = Framed::new(geometry, x);
                winograd.product(instructions, false, &framed, geometry, finish, &mut result);
            }
        }
        result
    }

    /// The gradient of an input `[b, in, h, w]` from that of the result; `source` is (h, w).
    ///
    /// # Panics
    /// If `gradient` does not consist of whole results.
    pub fn input_gradient(
        &self,
        instructions: Instructions,
        gradient: &[f32],
        source: (usize, usize),
    ) -> Vec<f32> {
        let (cin, cout) = self.channels;
        let result = self.geometry(source).result();
        let images = images(gradient, cout, result);
        let mut into = vec![0f32; images * cin * source.0 * source.1];
        let finish = Finish::default();
        let pixels = source.0 * source.1;
        // Zeros between the pixels make a stride of 1 of any stride, and more behind the last ones
        // what a stride passed over.
        let spread;
        let (gradient, (height, width)) = match self.stride {
            1 => (gradient, result),
            stride => {
                let side = |side: usize| side + 2 * self.padding + 1 - self.size;
                let sides = (side(source.0), side(source.1));
                spread = spread_out(gradient, result, stride, sides);
                (spread.as_slice(), sides)
            }
        };
        let geometry = Geometry {
            channels: cout,
            source: (height, width),
            size: self.size,
            stride: 1,
            padding: self.size - 1 - self.padding,
        };
        match &self.kernel {
            Kernel::Taps(blocks) if (self.size, self.padding) == (1, 0) => {
                product(instructions, (blocks, true), pixels, finish, &mut into, |i, p, panel| {
                    cut_rows(&gradient[i * cout * pixels..][..cout * pixels], pixels, p, panel);
                });
            }
            Kernel::Taps(blocks) => {
                let framed = Framed::new(geometry, gradient);
                let tap = cout.next_multiple_of(SIDE) * WIDTH;
                product(instructions, (blocks, true), pixels, finish, &mut into, |i, p, panel| {
                    framed.cut(i, p, panel);
                    reverse(panel, tap);
                });
            }
            Kernel::Winograd(winograd) => {
                let framed = Framed::new(geometry, gradient);
                winograd.product(instructions, true, &framed, geometry, finish, &mut into);
            }
        }
        into
    }
}

fn images(x: &[f32], channels: usize, (height, width): (usize, usize)) -> usize {
    let image = channels * height * width;
    assert!(image > 0 && x.len().is_multiple_of(image), "{} values are no whole images", x.len());
    x.len() / image
}

/// Brings the parts of `len` values into reverse order.
fn reverse(values: &mut [f32], len: usize) {
    let count = values.len() / len;
    for i in 0..count / 2 {
        let (front, back) = values.split_at_mut((count - 1 - i) * len);
        front[i * len..(i + 1) * len].swap_with_slice(&mut back[..len]);
    }
}

/// Each pixel to `stride` times its place, in planes of `sides`.
fn spread_out(
    planes: &[f32],
    (height, width): (usize, usize),
    stride: usize,
    sides: (usize, usize),
) -> Vec<f32> {
    let count = planes.len() / (height * width);
    let mut spread = vec![0f32; count * sides.0 * sides.1];
    for (plane, into) in
        planes.chunks_exact(height * width).zip(spread.chunks_exact_mut(sides.0 * sides.1))
    {
        let rows = into.chunks_exact_mut(sides.1).step_by(stride);
        for (row, into) in plane.chunks_exact(width).zip(rows) {
            for (value, into) in row.iter().zip(into.iter_mut().step_by(stride)) {
                *into = *value;
            }
        }
    }
    spread
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_gradient, assert_near, sets, values};

    /// The definition, in double precision.
    fn by_hand(
        kernel: &[f32],
        x: &[f32],
        (cin, cout): (usize, usize),
        (size, stride, padding): (usize, usize, usize),
        (h, w): (usize, usize),
    ) -> Vec<f32> {
        let side = |side: usize| (side + 2 * padding - size) / stride + 1;
        let (height, width) = (side(h), side(w));
        let images = x.len() / (cin * h * w);
        let mut y = Vec::new();
        for i in 0..images * cout * height * width {
            let (image, o) = (i / (cout * height * width), i / (height * width) % cout);
            let (oy, ox) = (i / width % height, i % width);
            let mut sum = 0f64;
            for c in 0..cin {
                for tap in 0..size * size {
                    let (sy, sx) = (oy * stride + tap / size, ox * stride + tap % size);
                    if sy < padding || sx < padding || sy >= h + padding || sx >= w + padding {
                        continue;
                    }
                    let pixel = ((image * cin + c) * h + sy - padding) * w + sx - padding;
                    sum +=
                        f64::from(kernel[(o * cin + c) * size * size + tap]) * f64::from(x[pixel]);
                }
            }
            y.push(sum as f32);
        }
        y
    }

    /// Size, stride and padding of a kernel.
    type Shape = (usize, usize, usize);

    #[rustfmt::skip]
    const TABLE: [(Shape, (usize, usize)); 12] = [
        // height, width of the image behind the kernel's shape
        ((3, 1, 1), (8, 8)),
        ((3, 1, 1), (5, 9)),
        ((3, 1, 1), (16, 16)),
        ((3, 1, 1), (3, 64)),
        ((3, 1, 1), (24, 24)),
        ((3, 2, 1), (8, 8)),
        ((3, 2, 1), (16, 6)),
        ((3, 2, 0), (9, 9)),  // the VAE's encoder pads right and below by hand
        ((1, 1, 0), (4, 7)),
        ((3, 1, 0), (6, 6)),
        ((3, 1, 1), (1, 1)),
        ((3, 2, 1), (7, 64)),
    ];

    #[test]
    fn a_convolution_and_its_gradient_are_what_they_are() {
        for (cin, cout) in [(4, 6), (16, 24), (11, 70)] {
            for (shape @ (size, stride, padding), source) in TABLE {
                let kernel = values(cout * cin * size * size, 1);
                let x = values(2 * cin * source.0 * source.1, 2);
                let want = by_hand(&kernel, &x, (cin, cout), shape, source);
                let g = values(want.len(), 3);
                for winograd in [false, true] {
                    let conv =
                        Conv::new(&kernel, None, (cin, cout), (size, stride, padding), winograd);
                    for set in sets() {
                        let what = format!("{set} {cin} {cout} {shape:?} {source:?} {winograd}");
                        let got = conv.forward(set, &x, source, None, None);
                        assert_near(&got, &want, 1e-5, &what);
                        let gradient = conv.input_gradient(set, &g, source);
                        let f = |x: &[f32]| by_hand(&kernel, x, (cin, cout), shape, source);
                        if cin == 4 {
                            assert_gradient(f, &x, &g, &gradient, &what);
                        }
                        // <conv(x), g> = <x, gradient(g)>, for every channel count.
                        let dot = |a: &[f32], b: &[f32]| -> f64 {
                            a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
                        };
                        let (one, other) = (dot(&want, &g), dot(&x, &gradient));
                        assert!(
                            (one - other).abs() < 1e-3 * one.abs().max(10.),
                            "{what}: {one} {other}"
                        );
                    }
                }
            }
        }
    }

    /// One image alone, and the same one in a batch, with any number of threads.
    #[test]
    fn neither_batch_nor_threads_change_a_bit() {
        for winograd in [false, true] {
            let conv = Conv::new(
                &values(24 * 16 * 9, 1),
                Some(values(24, 2)),
                (16, 24),
                (3, 1, 1),
                winograd,
            );
            let x = values(5 * 16 * 20 * 20, 3);
            let set = sets()[0];
            let run = |threads: usize, x: &[f32]| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| {
                    let y = conv.forward(set, x, (20, 20), None, None);
                    let g = conv.input_gradient(set, &y, (20, 20));
                    (y, g)
                })
            };
            let (whole, gradient) = run(1, &x);
            assert!(run(3, &x) == (whole.clone(), gradient.clone()));
            let image = 16 * 400;
            let (y, g) = run(2, &x[3 * image..4 * image]);
            assert!(y == whole[3 * 24 * 400..4 * 24 * 400]);
            assert!(g == gradient[3 * image..4 * image]);
        }
    }

    #[test]
    fn bias_shift_and_plus_are_added() {
        let x = values(2 * 3 * 36, 1);
        let (kernel, bias) = (values(5 * 3 * 9, 2), values(5, 3));
        let (shift, plus) = (values(10, 4), values(2 * 5 * 36, 5));
        let plain = by_hand(&kernel, &x, (3, 5), (3, 1, 1), (6, 6));
        let add = |(i, y): (usize, &f32)| y + bias[i / 36 % 5] + shift[i / 36] + plus[i];
        let want: Vec<f32> = plain.iter().enumerate().map(add).collect();
        for winograd in [false, true] {
            let conv = Conv::new(&kernel, Some(bias.clone()), (3, 5), (3, 1, 1), winograd);
            for set in sets() {
                let got = conv.forward(set, &x, (6, 6), Some(&shift), Some(&plus));
                assert_near(&got, &want, 1e-5, &format!("{set} {winograd}"));
            }
        }
    }
}
