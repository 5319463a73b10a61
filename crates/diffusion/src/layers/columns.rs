//! The columns of a convolution: what each output pixel sees, so that a convolution is a product.
//!
//! In Caffe's order `[b, in * k * k, rows * w']`: the kernel keeps its layout and the product lands
//! where the result belongs. Rows are copied as they lie. CPU and f32 only.

use std::ops::Range;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape};
use rayon::prelude::*;

/// A square kernel's geometry.
#[derive(Clone, Copy)]
pub(super) struct Geometry {
    pub(super) size: usize,
    pub(super) stride: usize,
    pub(super) padding: usize,
}

/// The columns of some rows of the result.
pub(super) struct Columns {
    pub(super) geometry: Geometry,
    pub(super) rows: Range<usize>,
}

impl Geometry {
    /// Pixels of the result along a side of `side` pixels; 0 if the kernel does not fit.
    pub(super) fn result(&self, side: usize) -> usize {
        let padded = side + 2 * self.padding;
        padded.checked_sub(self.size).map_or(0, |rest| rest / self.stride + 1)
    }
}

impl Columns {
    /// The row of columns of one tap `(y, x)` of the kernel, over one channel `source` `[h, w]`.
    fn fill(
        &self,
        (y, x): (usize, usize),
        source: &[f32],
        (h, w): (usize, usize),
        target: &mut [f32],
    ) {
        let Geometry { stride, padding, .. } = self.geometry;
        let width = self.geometry.result(w);
        // Output pixels whose source lies inside the row; the others see padding.
        let first = padding.saturating_sub(x).div_ceil(stride).min(width);
        let past = (w + padding).saturating_sub(x).div_ceil(stride).clamp(first, width);
        for (row, out) in self.rows.clone().zip(target.chunks_exact_mut(width)) {
            let from = (row * stride + y).checked_sub(padding).filter(|from| *from < h);
            let Some(from) = from.filter(|_| past > first) else {
                out.fill(0.);
                continue;
            };
            out[..first].fill(0.);
            out[past..].fill(0.);
            let start = from * w + first * stride + x - padding;
            if stride == 1 {
                out[first..past].copy_from_slice(&source[start..start + past - first]);
            } else {
                let taps = source[start..].iter().step_by(stride);
                out[first..past].iter_mut().zip(taps).for_each(|(out, value)| *out = *value);
            }
        }
    }
}

impl CustomOp1 for Columns {
    fn name(&self) -> &'static str {
        "columns"
    }

    /// `[b, c, h, w]`, contiguous, to `[b, c * k * k, rows * w']`.
    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (b, c, h, w) = layout.shape().dims4()?;
        let CpuStorage::F32(data) = storage else {
            candle_core::bail!("the columns of a convolution are made of f32")
        };
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("the columns of a convolution are made of a contiguous tensor")
        };
        let size = self.geometry.size;
        let pixels = self.rows.len() * self.geometry.result(w);
        let taps = size * size;
        let mut columns = vec![0f32; b * c * taps * pixels];
        if pixels > 0 {
            let channels = data[start..end].par_chunks_exact(h * w);
            columns.par_chunks_exact_mut(taps * pixels).zip(channels).for_each(|(out, source)| {
                for (tap, out) in out.chunks_exact_mut(pixels).enumerate() {
                    self.fill((tap / size, tap % size), source, (h, w), out);
                }
            });
        }
        Ok((CpuStorage::F32(columns), (b, c * taps, pixels).into()))
    }
}
