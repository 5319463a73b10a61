//! 2-D convolution with frozen weights, and nearest-neighbour upsampling.

use std::ops::Range;
use std::sync::OnceLock;

use candle_core::{Result, Tensor};

use super::columns::{Columns, Geometry};
use super::frozen::frozen;
use crate::weights::Scope;

/// Columns of one image at a time: at 1024x1024 pixels all of them would take 10 GB.
const COLUMNS_BYTES_MAX: usize = 128 << 20;

/// A square convolution, stride 1 or 2. Clones share the weights.
#[derive(Clone)]
pub(crate) struct Conv2d(std::sync::Arc<Weights>);

struct Weights {
    /// `[out, in, k, k]`
    kernel: Tensor,
    /// `[1, out, 1, 1]`
    bias: Option<Tensor>,
    /// `[in, out, k, k]`, mirrored: made when the first gradient asks for it.
    mirrored: OnceLock<Tensor>,
    stride: usize,
    padding: usize,
}

impl Conv2d {
    /// Loads `weight` `[out, in, k, k]` and `bias` `[out]`; padding keeps the size at stride 1.
    pub(crate) fn load(
        scope: &Scope<'_>,
        (cin, cout): (usize, usize),
        size: usize,
        stride: usize,
    ) -> crate::Result<Self> {
        let kernel = scope.get("weight", &[cout, cin, size, size])?;
        let bias = scope.get("bias", &[cout])?.reshape((1, cout, 1, 1))?;
        Ok(Self::new(kernel, Some(bias), stride, size / 2))
    }

    /// From a kernel `[out, in, k, k]` and a bias `[1, out, 1, 1]`.
    pub(crate) fn new(kernel: Tensor, bias: Option<Tensor>, stride: usize, padding: usize) -> Self {
        let weights = Weights { kernel, bias, mirrored: OnceLock::new(), stride, padding };
        Self(std::sync::Arc::new(weights))
    }

    /// The same weights with another padding (the VAE's encoder pads by hand).
    pub(crate) fn with_padding(&self, padding: usize) -> Self {
        let w = &self.0;
        Self::new(w.kernel.clone(), w.bias.clone(), w.stride, padding)
    }

    /// `[b, in, h, w]` to `[b, out, h', w']`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.0.forward(&x.detach())?;
        let (weights, shape) = (self.0.clone(), x.dims4()?);
        frozen(x, y, move |gradient| weights.input_gradient(gradient, (shape.2, shape.3)))
    }
}

impl Weights {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = convolve(x, &self.kernel, self.padding, self.stride)?;
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }

    /// The gradient of an input of `(height, width)`: a convolution of the output's gradient with
    /// the mirrored kernel. candle's own way, `conv_transpose2d`, is several times slower.
    fn input_gradient(&self, gradient: &Tensor, size: (usize, usize)) -> Result<Tensor> {
        let mirrored = match self.mirrored.get() {
            Some(mirrored) => mirrored,
            None => {
                let made = self.kernel.transpose(0, 1)?.contiguous()?.flip(&[2, 3])?;
                self.mirrored.get_or_init(|| made)
            }
        };
        let taps = self.kernel.dim(2)?;
        let gradient = match self.stride {
            1 => gradient.clone(),
            stride => {
                // So much that the convolution below comes out at the input's size.
                let side = |input: usize| input + 2 * self.padding + 1 - taps;
                spread(gradient, stride, (side(size.0), side(size.1)))?
            }
        };
        let padding = taps - 1 - self.padding;
        convolve(&gradient, mirrored, padding, 1)
    }
}

fn convolve(x: &Tensor, kernel: &Tensor, padding: usize, stride: usize) -> Result<Tensor> {
    let (cout, cin, size, _) = kernel.dims4()?;
    if !x.device().is_cpu() {
        return x.conv2d(kernel, padding, stride, 1, 1);
    }
    // A product per image, straight into the place of the result; candle does not merge batches on
    // this side. Its own convolution lays out input and weights anew at every call.
    let (b, _, h, w) = x.dims4()?;
    let geometry = Geometry { size, stride, padding };
    let (height, width) = (geometry.result(h), geometry.result(w));
    let taps = cin * size * size;
    let kernel = kernel.reshape((1, cout, taps))?.broadcast_as((b, cout, taps))?;
    if (size, stride, padding) == (1, 1, 0) {
        return kernel.matmul(&x.flatten_from(2)?)?.reshape((b, cout, height, width));
    }
    let x = x.contiguous()?;
    let bands: Vec<Tensor> = bands(height, taps * width * size_of::<f32>())
        .map(|rows| kernel.matmul(&x.apply_op1_no_bwd(&Columns { geometry, rows })?))
        .collect::<Result<_>>()?;
    Tensor::cat(&bands, 2)?.reshape((b, cout, height, width))
}

/// Rows of the result in bands whose columns fit; a function of the shape of one image alone, since
/// the shape of a product decides how its sums are split.
fn bands(height: usize, row_bytes: usize) -> impl Iterator<Item = Range<usize>> {
    let fit = (COLUMNS_BYTES_MAX / row_bytes.max(1)).max(1);
    let count = height.div_ceil(fit).max(1);
    let band = height.div_ceil(count).max(1);
    (0..count).map(move |i| (i * band).min(height)..((i + 1) * band).min(height))
}

/// Puts `stride - 1` zeros behind each row and column and cuts to `size`.
fn spread(x: &Tensor, stride: usize, (height, width): (usize, usize)) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    let x = x.reshape((b, c, h, 1, w, 1))?;
    let x = x.pad_with_zeros(3, 0, stride - 1)?.pad_with_zeros(5, 0, stride - 1)?;
    let x = x.reshape((b, c, h * stride, w * stride))?;
    x.narrow(2, 0, height)?.narrow(3, 0, width)?.contiguous()
}

/// Doubles height and width. Written with a broadcast: candle's `upsample_nearest2d` overwrites
/// the gradient of an input that has other consumers.
pub(crate) fn upsample_nearest(x: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    let x = x.reshape((b, c, h, 1, w, 1))?.broadcast_as((b, c, h, 2, w, 2))?;
    x.reshape((b, c, 2 * h, 2 * w))
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::layers::testing::{difference, values};

    /// Value and gradient beside candle's own convolution, which is slow and right.
    #[test]
    fn a_convolution_and_its_gradient_are_candles() {
        #[rustfmt::skip]
        let table = [
            // size stride padding  height width
            (3, 1, 1, 8, 8),
            (3, 1, 1, 5, 9),
            (3, 2, 1, 8, 8),
            (3, 2, 1, 8, 6),
            (3, 2, 0, 9, 9),  // the VAE's encoder pads right and below by hand
            (1, 1, 0, 4, 7),
            (3, 1, 0, 6, 6),
            (3, 1, 1, 1, 1),
        ];
        for case @ (size, stride, padding, height, width) in table {
            let kernel = values(&[6, 4, size, size], 7);
            let x = Var::from_tensor(&values(&[3, 4, height, width], 1)).unwrap();
            let conv = Conv2d::new(kernel.clone(), None, stride, padding);
            let got = conv.forward(x.as_tensor()).unwrap();
            let want = x.conv2d(&kernel, padding, stride, 1, 1).unwrap();
            assert!(difference(&got, &want) < 1e-5, "{case:?}");
            // An upstream gradient that differs from place to place.
            let weight = values(got.dims(), 3);
            let gradient = |y: &Tensor| {
                let store = (y * &weight).unwrap().sum_all().unwrap().backward().unwrap();
                store.get(x.as_tensor()).unwrap().clone()
            };
            assert!(difference(&gradient(&got), &gradient(&want)) < 1e-5, "{case:?}: gradient");
        }
    }

    /// Large enough for several bands; the seams must not show.
    #[test]
    fn a_large_convolution_is_made_in_bands() {
        let (kernel, x) = (values(&[2, 8, 3, 3], 7), values(&[1, 8, 700, 900], 1));
        assert!(bands(700, 8 * 9 * 900 * size_of::<f32>()).count() > 1);
        for stride in [1, 2] {
            let got = Conv2d::new(kernel.clone(), None, stride, 1).forward(&x).unwrap();
            let want = x.conv2d(&kernel, 1, stride, 1, 1).unwrap();
            assert!(difference(&got, &want) < 1e-5, "stride {stride}");
        }
        let all: Vec<usize> = bands(5, COLUMNS_BYTES_MAX / 2).flatten().collect();
        assert_eq!(all, [0, 1, 2, 3, 4]);
        assert_eq!(bands(0, 1).flatten().count(), 0);
    }

    #[test]
    fn upsampling_doubles_pixels() {
        let x = Tensor::new(&[[[[1f32, 2.], [3., 4.]]]], &Device::Cpu).unwrap();
        let got = upsample_nearest(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let rows = [[1., 1., 2., 2.], [1., 1., 2., 2.], [3., 3., 4., 4.], [3., 3., 4., 4.]];
        assert_eq!(got, rows.concat());
    }
}
