//! Convolution composed of candle's operations.

use std::sync::OnceLock;

use candle_core::{Result, Tensor};

/// Bytes of the columns of a convolution, which candle makes whole on a GPU: at 512x512 pixels all of
/// them would take 2.4 GB.
const COLUMNS_BYTES_MAX: usize = 1 << 30;

/// A square convolution with frozen weights, stride 1 or 2.
pub(in crate::layers) struct Conv2d {
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
    /// From a kernel `[out, in, k, k]` and a bias `[out]`.
    pub(in crate::layers) fn new(
        kernel: Tensor,
        bias: Option<&Tensor>,
        stride: usize,
        padding: usize,
    ) -> Result<Self> {
        let bias = bias.map(|bias| bias.reshape((1, (), 1, 1))).transpose()?;
        Ok(Self { kernel, bias, mirrored: OnceLock::new(), stride, padding })
    }

    /// `[b, in, h, w]` to `[b, out, h', w']`, plus `shift` `[b, out]` and `plus`.
    pub(in crate::layers) fn forward(
        &self,
        x: &Tensor,
        shift: Option<&Tensor>,
        plus: Option<&Tensor>,
    ) -> Result<Tensor> {
        let mut y = convolve(x, &self.kernel, self.padding, self.stride)?;
        if let Some(bias) = &self.bias {
            y = y.broadcast_add(bias)?;
        }
        if let Some(shift) = shift {
            y = y.broadcast_add(&shift.reshape((shift.dim(0)?, (), 1, 1))?)?;
        }
        match plus {
            Some(plus) => y + plus,
            None => Ok(y),
        }
    }

    /// The gradient of an input of `(height, width)`: a convolution of the output's gradient with
    /// the mirrored kernel. candle's own way, `conv_transpose2d`, is several times slower.
    pub(in crate::layers) fn input_gradient(
        &self,
        gradient: &Tensor,
        size: (usize, usize),
    ) -> Result<Tensor> {
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
        convolve(&gradient, mirrored, taps - 1 - self.padding, 1)
    }
}

fn convolve(x: &Tensor, kernel: &Tensor, padding: usize, stride: usize) -> Result<Tensor> {
    let (cout, cin, size, _) = kernel.dims4()?;
    let (b, _, h, w) = x.dims4()?;
    if (size, stride, padding) != (1, 1, 0) {
        let row = b * cin * size * size * w * x.dtype().size_in_bytes();
        let rows = (COLUMNS_BYTES_MAX / row.max(1)).max(1);
        return match stride == 1 && rows < h {
            true => in_bands(x, kernel, padding, rows),
            false => x.conv2d(kernel, padding, stride, 1, 1),
        };
    }
    let kernel = kernel.reshape((1, cout, cin))?.broadcast_as((b, cout, cin))?;
    kernel.matmul(&x.flatten_from(2)?.contiguous()?)?.reshape((b, cout, h, w))
}

/// A convolution of stride 1, so many rows of the result at a time.
fn in_bands(x: &Tensor, kernel: &Tensor, padding: usize, rows: usize) -> Result<Tensor> {
    let padded = x.pad_with_zeros(2, padding, padding)?.pad_with_zeros(3, padding, padding)?;
    let overlap = kernel.dim(2)? - 1;
    let height = padded.dim(2)?.saturating_sub(overlap);
    let band = |start: usize| {
        let seen = rows.min(height - start) + overlap;
        padded.narrow(2, start, seen)?.contiguous()?.conv2d(kernel, 0, 1, 1, 1)
    };
    Tensor::cat(&(0..height).step_by(rows).map(band).collect::<Result<Vec<_>>>()?, 2)
}

/// Puts `stride - 1` zeros behind each row and column and cuts to `size`.
fn spread(x: &Tensor, stride: usize, (height, width): (usize, usize)) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    let x = x.reshape((b, c, h, 1, w, 1))?;
    let x = x.pad_with_zeros(3, 0, stride - 1)?.pad_with_zeros(5, 0, stride - 1)?;
    let x = x.reshape((b, c, h * stride, w * stride))?;
    let (missing_h, missing_w) =
        (height.saturating_sub(h * stride), width.saturating_sub(w * stride));
    let x = x.pad_with_zeros(2, 0, missing_h)?.pad_with_zeros(3, 0, missing_w)?;
    x.narrow(2, 0, height)?.narrow(3, 0, width)?.contiguous()
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;
    use crate::layers::testing::{difference, values};

    #[test]
    fn bands_show_no_seams() {
        let (kernel, x) = (values(&[6, 4, 3, 3], 7), values(&[2, 4, 11, 7], 1));
        for padding in [0, 1] {
            let want = x.conv2d(&kernel, padding, 1, 1, 1).unwrap();
            for rows in [1, 2, 5, 8, 20] {
                let got = in_bands(&x, &kernel, padding, rows).unwrap();
                assert!(difference(&got, &want) < 1e-5, "{padding} {rows}");
            }
        }
    }

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
            (3, 2, 0, 9, 9),
            (1, 1, 0, 4, 7),
            (3, 1, 0, 6, 6),
            (3, 1, 1, 1, 1),
        ];
        for case @ (size, stride, padding, height, width) in table {
            let kernel = values(&[6, 4, size, size], 7);
            let x = Var::from_tensor(&values(&[3, 4, height, width], 1)).unwrap();
            let conv = Conv2d::new(kernel.clone(), None, stride, padding).unwrap();
            let got = conv.forward(&x.detach(), None, None).unwrap();
            let want = x.conv2d(&kernel, padding, stride, 1, 1).unwrap();
            assert!(difference(&got, &want) < 1e-5, "{case:?}");
            // An upstream gradient that differs from place to place.
            let weight = values(got.dims(), 3);
            let store = (&want * &weight).unwrap().sum_all().unwrap().backward().unwrap();
            let got = conv.input_gradient(&weight, (height, width)).unwrap();
            let off = difference(&got, store.get(x.as_tensor()).unwrap());
            assert!(off < 1e-5, "{case:?}: gradient");
        }
    }
}
