//! Normalisation with frozen scale and shift: over groups of channels, and over all channels of a
//! pixel.

use pulp::{Simd, WithSimd};

use crate::instructions::Instructions;
use crate::math::{sigmoid, sum};
use crate::product::each;
use crate::rectangles::{Rectangle, of_each};

/// Group normalisation over `[b, c, n]`, with or without SiLU behind it.
pub struct GroupNorm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    groups: usize,
    eps: f32,
    silu: bool,
}

impl GroupNorm {
    /// From scale and shift `[c]`.
    ///
    /// # Panics
    /// If they differ in length, or the groups do not divide it.
    pub fn new(weight: Vec<f32>, bias: Vec<f32>, groups: usize, eps: f32, silu: bool) -> Self {
        assert_eq!(weight.len(), bias.len(), "a scale and a shift for each channel");
        assert!(groups > 0 && weight.len().is_multiple_of(groups), "groups of channels");
        Self { weight, bias, groups, eps, silu }
    }

    /// Values of a group, for images of `pixels`.
    fn group(&self, pixels: usize) -> usize {
        self.weight.len() / self.groups * pixels
    }

    /// `[b, c, n]` to the same.
    ///
    /// # Panics
    /// If `x` does not consist of whole images of `pixels`.
    pub fn forward(&self, instructions: Instructions, x: &[f32], pixels: usize) -> Vec<f32> {
        let group = self.group(pixels);
        assert!(x.len().is_multiple_of(group * self.groups), "whole images");
        let mut y = vec![0f32; x.len()];
        let tasks = y.chunks_exact_mut(group).zip(x.chunks_exact(group)).enumerate();
        each(tasks.collect(), |(i, (into, x))| {
            let (norm, group) = (self, i % self.groups);
            instructions.run(Group { norm, group, pixels, x, gradient: None, into });
        });
        y
    }

    #[inline(always)]
    fn normalise(&self, group: usize, pixels: usize, x: &[f32], y: &mut [f32]) {
        let Statistics { mean, scale } = Statistics::of(x, self.eps);
        let first = group * (x.len() / pixels);
        for (c, (x, y)) in x.chunks_exact(pixels).zip(y.chunks_exact_mut(pixels)).enumerate() {
            let factor = self.weight[first + c] * scale;
            let shift = self.bias[first + c] - mean * factor;
            if self.silu {
                for (y, x) in y.iter_mut().zip(x) {
                    let z = x * factor + shift;
                    *y = z * sigmoid(z);
                }
            } else {
                for (y, x) in y.iter_mut().zip(x) {
                    *y = x * factor + shift;
                }
            }
        }
    }

    /// The gradient of `x` from that of the result.
    ///
    /// # Panics
    /// If the two differ in length.
    pub fn input_gradient(
        &self,
        instructions: Instructions,
        x: &[f32],
        gradient: &[f32],
        pixels: usize,
    ) -> Vec<f32> {
        assert_eq!(x.len(), gradient.len(), "a gradient for each value");
        let group = self.group(pixels);
        let mut into = vec![0f32; x.len()];
        let sources = x.chunks_exact(group).zip(gradient.chunks_exact(group));
        let tasks = into.chunks_exact_mut(group).zip(sources).enumerate();
        each(tasks.collect(), |(i, (into, (x, g)))| {
            let (norm, group, gradient) = (self, i % self.groups, Some(g));
            instructions.run(Group { norm, group, pixels, x, gradient, into });
        });
        into
    }

    /// With n = normalised and h = what reaches it: scale * (h - mean(h) - n * mean(h * n)).
    #[inline(always)]
    fn back(&self, group: usize, pixels: usize, (x, g): (&[f32], &[f32]), into: &mut [f32]) {
        let Statistics { mean, scale } = Statistics::of(x, self.eps);
        let first = group * (x.len() / pixels);
        let (mut total, mut along) = (0f64, 0f64);
        let rows = x.chunks_exact(pixels).zip(g.chunks_exact(pixels));
        for (c, ((x, g), into)) in rows.zip(into.chunks_exact_mut(pixels)).enumerate() {
            let weight = self.weight[first + c];
            let factor = weight * scale;
            let shift = self.bias[first + c] - mean * factor;
            if self.silu {
                for ((into, x), g) in into.iter_mut().zip(x).zip(g) {
                    let z = x * factor + shift;
                    let s = sigmoid(z);
                    *into = g * weight * (s * (1. + z * (1. - s)));
                }
            } else {
                for (into, g) in into.iter_mut().zip(g) {
                    *into = g * weight;
                }
            }
            total += f64::from(sum(into, into, |a, _| a));
            along += f64::from(sum(into, x, |a, x| a * (x - mean)));
        }
        let count = x.len() as f64;
        let total = (total / count) as f32;
        let along = (along / count) as f32 * scale * scale;
        for (into, x) in into.iter_mut().zip(x) {
            *into = scale * (*into - total - (x - mean) * along);
        }
    }
}

/// One group of an image: its result, or the gradient of its input.
struct Group<'a> {
    norm: &'a GroupNorm,
    group: usize,
    pixels: usize,
    x: &'a [f32],
    gradient: Option<&'a [f32]>,
    into: &'a mut [f32],
}

impl WithSimd for Group<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { norm, group, pixels, x, gradient, into } = self;
        match gradient {
            None => norm.normalise(group, pixels, x, into),
            Some(gradient) => norm.back(group, pixels, (x, gradient), into),
        }
    }
}

/// Some pixels of an image: their result, or the gradient of their input.
struct Pixels<'a> {
    norm: &'a ChannelNorm,
    x: &'a [f32],
    gradient: Option<&'a [f32]>,
    pixels: usize,
    part: Rectangle<'a>,
}

impl WithSimd for Pixels<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { norm, x, gradient, pixels, part } = self;
        match gradient {
            None => norm.normalise(x, pixels, part),
            Some(gradient) => norm.back(x, gradient, pixels, part),
        }
    }
}

struct Statistics {
    mean: f32,
    /// One over the standard deviation.
    scale: f32,
}

impl Statistics {
    /// Two passes, not mean(x^2) - mean(x)^2: real activations have means far from 0.
    #[inline(always)]
    fn of(x: &[f32], eps: f32) -> Self {
        let count = x.len() as f32;
        let mean = sum(x, x, |x, _| x) / count;
        let variance = sum(x, x, |x, _| (x - mean) * (x - mean)) / count;
        Self { mean, scale: 1. / (variance + eps).sqrt() }
    }
}

/// Layer normalisation over the channels of each pixel: `[b, c, n]`.
pub struct ChannelNorm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    eps: f32,
}

/// Pixels of a task of a layer normalisation.
const PIXELS: usize = 64;

impl ChannelNorm {
    /// From scale and shift `[c]`.
    ///
    /// # Panics
    /// If they differ in length.
    pub fn new(weight: Vec<f32>, bias: Vec<f32>, eps: f32) -> Self {
        assert_eq!(weight.len(), bias.len(), "a scale and a shift for each channel");
        Self { weight, bias, eps }
    }

    /// `[b, c, n]` to the same.
    ///
    /// # Panics
    /// If `x` does not consist of whole images of `pixels`.
    pub fn forward(&self, instructions: Instructions, x: &[f32], pixels: usize) -> Vec<f32> {
        let mut y = vec![0f32; x.len()];
        self.each_part(x.len(), pixels, &mut y, |image, part| {
            let x = &x[image..image + self.weight.len() * pixels];
            instructions.run(Pixels { norm: self, x, gradient: None, pixels, part });
        });
        y
    }

    /// The gradient of `x` from that of the result.
    ///
    /// # Panics
    /// If the two differ in length.
    pub fn input_gradient(
        &self,
        instructions: Instructions,
        x: &[f32],
        gradient: &[f32],
        pixels: usize,
    ) -> Vec<f32> {
        assert_eq!(x.len(), gradient.len(), "a gradient for each value");
        let mut into = vec![0f32; x.len()];
        self.each_part(x.len(), pixels, &mut into, |image, part| {
            let range = image..image + self.weight.len() * pixels;
            let (x, g) = (&x[range.clone()], &gradient[range]);
            instructions.run(Pixels { norm: self, x, gradient: Some(g), pixels, part });
        });
        into
    }

    fn each_part<'a>(
        &self,
        len: usize,
        pixels: usize,
        into: &'a mut [f32],
        run: impl Fn(usize, Rectangle<'a>) + Sync + Send,
    ) {
        let channels = self.weight.len();
        assert!(len.is_multiple_of(channels * pixels), "whole images");
        let parts = of_each(into, (channels, pixels), channels, PIXELS);
        each(parts, |(image, part)| run(image * channels * pixels, part));
    }

    #[inline(always)]
    fn normalise(&self, x: &[f32], pixels: usize, mut part: Rectangle<'_>) {
        let range = part.columns();
        let (mean, scale) = self.statistics(x, pixels, &range);
        for (c, row) in x.chunks_exact(pixels).enumerate() {
            let (weight, bias) = (self.weight[c], self.bias[c]);
            let row = &row[range.clone()];
            for (i, y) in part.row(c, range.clone()).iter_mut().enumerate() {
                *y = (row[i] - mean[i]) * scale[i] * weight + bias;
            }
        }
    }

    #[inline(always)]
    fn back(&self, x: &[f32], g: &[f32], pixels: usize, mut part: Rectangle<'_>) {
        let range = part.columns();
        let count = self.weight.len() as f32;
        let (mean, scale) = self.statistics(x, pixels, &range);
        let (mut total, mut along) = ([0f32; PIXELS], [0f32; PIXELS]);
        let rows = || x.chunks_exact(pixels).zip(g.chunks_exact(pixels)).zip(&self.weight);
        for ((x, g), weight) in rows() {
            let (x, g) = (&x[range.clone()], &g[range.clone()]);
            for i in 0..x.len() {
                let h = g[i] * weight;
                total[i] += h;
                along[i] += h * ((x[i] - mean[i]) * scale[i]);
            }
        }
        for (c, ((x, g), weight)) in rows().enumerate() {
            let (x, g) = (&x[range.clone()], &g[range.clone()]);
            for (i, into) in part.row(c, range.clone()).iter_mut().enumerate() {
                let n = (x[i] - mean[i]) * scale[i];
                *into = scale[i] * (g[i] * weight - total[i] / count - n * (along[i] / count));
            }
        }
    }

    /// Mean, and one over the standard deviation, of each pixel of a range.
    #[inline(always)]
    fn statistics(
        &self,
        x: &[f32],
        pixels: usize,
        range: &std::ops::Range<usize>,
    ) -> ([f32; PIXELS], [f32; PIXELS]) {
        let count = self.weight.len() as f32;
        let (mut mean, mut scale) = ([0f32; PIXELS], [0f32; PIXELS]);
        for row in x.chunks_exact(pixels) {
            for (mean, x) in mean.iter_mut().zip(&row[range.clone()]) {
                *mean += x;
            }
        }
        mean.iter_mut().for_each(|mean| *mean /= count);
        for row in x.chunks_exact(pixels) {
            for ((scale, mean), x) in scale.iter_mut().zip(&mean).zip(&row[range.clone()]) {
                *scale += (x - mean) * (x - mean);
            }
        }
        scale.iter_mut().for_each(|scale| *scale = 1. / (*scale / count + self.eps).sqrt());
        (mean, scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_gradient, assert_near, sets, values};

    fn normalised(row: &[f64], eps: f64) -> Vec<f64> {
        let mean = row.iter().sum::<f64>() / row.len() as f64;
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / row.len() as f64;
        row.iter().map(|x| (x - mean) / (variance + eps).sqrt()).collect()
    }

    #[test]
    fn groups_are_normalised() {
        let (weight, bias) = (values(12, 1), values(12, 2));
        for (pixels, silu, far) in [(7, false, 0.), (64, true, 0.), (50, true, 30.)] {
            let norm = GroupNorm::new(weight.clone(), bias.clone(), 4, 1e-5, silu);
            let x: Vec<f32> = values(2 * 12 * pixels, 3).iter().map(|x| x + far).collect();
            let mut want = Vec::new();
            for (group, row) in x.chunks_exact(3 * pixels).enumerate() {
                let row: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
                for (i, n) in normalised(&row, 1e-5).into_iter().enumerate() {
                    let c = group % 4 * 3 + i / pixels;
                    let z = n * f64::from(weight[c]) + f64::from(bias[c]);
                    want.push(if silu { z / (1. + (-z).exp()) } else { z } as f32);
                }
            }
            let g = values(x.len(), 4);
            for set in sets() {
                let what = format!("{set} {pixels} {silu}");
                assert_near(&norm.forward(set, &x, pixels), &want, 2e-5, &what);
                let gradient = norm.input_gradient(set, &x, &g, pixels);
                assert_gradient(|x| norm.forward(set, x, pixels), &x, &g, &gradient, &what);
            }
        }
    }

    #[test]
    fn channels_of_a_pixel_are_normalised() {
        let (weight, bias) = (values(20, 1), values(20, 2));
        let norm = ChannelNorm::new(weight.clone(), bias.clone(), 1e-5);
        for pixels in [1, 64, 77] {
            let x = values(2 * 20 * pixels, 3);
            let mut want = vec![0f32; x.len()];
            for image in 0..2 {
                for p in 0..pixels {
                    let at = |c: usize| (image * 20 + c) * pixels + p;
                    let row: Vec<f64> = (0..20).map(|c| f64::from(x[at(c)])).collect();
                    for (c, n) in normalised(&row, 1e-5).into_iter().enumerate() {
                        want[at(c)] = (n * f64::from(weight[c]) + f64::from(bias[c])) as f32;
                    }
                }
            }
            let g = values(x.len(), 4);
            for set in sets() {
                let what = format!("{set} {pixels}");
                assert_near(&norm.forward(set, &x, pixels), &want, 2e-5, &what);
                let gradient = norm.input_gradient(set, &x, &g, pixels);
                assert_gradient(|x| norm.forward(set, x, pixels), &x, &g, &gradient, &what);
            }
        }
    }
}
