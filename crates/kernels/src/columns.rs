//! What the pixels of a convolution's result see, cut into panels.

use crate::blocks::SIDE;
use crate::product::each;
use crate::tile::WIDTH;

/// Planes of a task that frames them.
const PLANES: usize = 32;

/// A square kernel over images `[channels, height, width]`.
#[derive(Clone, Copy)]
pub(crate) struct Geometry {
    pub(crate) channels: usize,
    /// Height and width of an image.
    pub(crate) source: (usize, usize),
    /// Side of the kernel.
    pub(crate) size: usize,
    pub(crate) stride: usize,
    pub(crate) padding: usize,
}

/// Images with a frame of zeros, so that no tap of a kernel lies outside.
pub(crate) struct Framed {
    geometry: Geometry,
    values: Vec<f32>,
}

impl Geometry {
    /// Height and width of the result.
    pub(crate) fn result(&self) -> (usize, usize) {
        let side = |source: usize| {
            let padded = source + 2 * self.padding;
            padded.checked_sub(self.size).map_or(0, |rest| rest / self.stride + 1)
        };
        (side(self.source.0), side(self.source.1))
    }

    /// Height and width with the frame: even, since Winograd's tiles go on to the next pair.
    pub(crate) fn framed(&self) -> (usize, usize) {
        let side = |side: usize| (side + 2 * self.padding).next_multiple_of(2);
        (side(self.source.0), side(self.source.1))
    }
}

impl Framed {
    /// Of `images` `[images, channels, height, width]`.
    pub(crate) fn new(geometry: Geometry, images: &[f32]) -> Self {
        let (_, w) = geometry.source;
        let (height, width) = geometry.framed();
        let plane = geometry.source.0 * w;
        let planes = images.len().checked_div(plane).unwrap_or(0);
        // Reads of whole vectors may go past the last row.
        let mut values = vec![0f32; planes * height * width + WIDTH];
        if plane > 0 {
            // Some planes a task: most are small.
            let together = PLANES * height * width;
            let targets = values[..planes * height * width].chunks_mut(together);
            let tasks = targets.zip(images.chunks(PLANES * plane));
            each(tasks.collect(), |(framed, images)| {
                let planes = framed.chunks_exact_mut(height * width);
                for (framed, plane) in planes.zip(images.chunks_exact(plane)) {
                    let rows = framed.chunks_exact_mut(width).skip(geometry.padding);
                    for (target, row) in rows.zip(plane.chunks_exact(w)) {
                        target[geometry.padding..geometry.padding + w].copy_from_slice(row);
                    }
                }
            });
        }
        Self { geometry, values }
    }

    /// The planes of an image, one behind the other, and what of the frames lies behind.
    pub(crate) fn image(&self, image: usize) -> &[f32] {
        let (height, width) = self.geometry.framed();
        &self.values[image * self.geometry.channels * height * width..]
    }

    /// Columns `32 * panel ..` as `[taps, channels in whole blocks, 32]`.
    pub(crate) fn cut(&self, image: usize, panel: usize, into: &mut [f32]) {
        let (_, width) = self.geometry.result();
        let stride = self.geometry.stride;
        match (stride, width % WIDTH, width % 16, width % SIDE) {
            (1, 0, _, _) => self.runs::<WIDTH>(image, panel, into),
            (1, _, 0, _) => self.runs::<16>(image, panel, into),
            (1, _, _, 0) => self.runs::<SIDE>(image, panel, into),
            _ => self.pixels(image, panel, into),
        }
    }

    /// Where each tap starts, relative to the first one.
    fn taps(&self) -> impl Iterator<Item = usize> {
        let (size, (_, width)) = (self.geometry.size, self.geometry.framed());
        (0..size * size).map(move |tap| tap / size * width + tap % size)
    }

    /// Runs of `RUN` columns lie within one row of the result.
    fn runs<const RUN: usize>(&self, image: usize, panel: usize, into: &mut [f32]) {
        let (height, width) = self.geometry.result();
        let (rows, pitch) = self.geometry.framed();
        let source = self.image(image);
        let channels = self.geometry.channels;
        let filled = channels.next_multiple_of(SIDE);
        let starts: [Option<usize>; WIDTH / SIDE] = std::array::from_fn(|run| {
            let pixel = panel * WIDTH + run * RUN;
            let inside = run * RUN < WIDTH && pixel < height * width;
            inside.then(|| pixel / width * pitch + pixel % width)
        });
        let (targets, _) = into.as_chunks_mut::<WIDTH>();
        for (tap, targets) in self.taps().zip(targets.chunks_exact_mut(filled)) {
            let (targets, rest) = targets.split_at_mut(channels);
            for (channel, target) in targets.iter_mut().enumerate() {
                let plane = channel * rows * pitch + tap;
                let (runs, _) = target.as_chunks_mut::<RUN>();
                for (run, start) in runs.iter_mut().zip(starts) {
                    *run = match start {
                        Some(start) => match source[plane + start..].first_chunk::<RUN>() {
                            Some(source) => *source,
                            None => [0.; RUN],
                        },
                        None => [0.; RUN],
                    };
                }
            }
            rest.as_flattened_mut().fill(0.);
        }
    }

    /// The same for any width and stride, pixel by pixel.
    fn pixels(&self, image: usize, panel: usize, into: &mut [f32]) {
        let (height, width) = self.geometry.result();
        let (rows, pitch) = self.geometry.framed();
        let stride = self.geometry.stride;
        let source = self.image(image);
        let channels = self.geometry.channels;
        let filled = channels.next_multiple_of(SIDE);
        let starts: [Option<usize>; WIDTH] = std::array::from_fn(|column| {
            let pixel = panel * WIDTH + column;
            let inside = pixel < height * width;
            inside.then(|| pixel / width * stride * pitch + pixel % width * stride)
        });
        let (targets, _) = into.as_chunks_mut::<WIDTH>();
        for (tap, targets) in self.taps().zip(targets.chunks_exact_mut(filled)) {
            let (targets, rest) = targets.split_at_mut(channels);
            for (channel, target) in targets.iter_mut().enumerate() {
                let plane = &source[channel * rows * pitch + tap..];
                for (target, start) in target.iter_mut().zip(starts) {
                    *target = start.map_or(0., |start| plane[start]);
                }
            }
            rest.as_flattened_mut().fill(0.);
        }
    }
}
