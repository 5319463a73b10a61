//! 2-D convolution with frozen weights, and nearest-neighbour upsampling.

use std::sync::OnceLock;

use candle_core::{Result, Tensor};

use super::frozen::frozen;
use crate::weights::Scope;

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
        let gradient = match self.stride {
            1 => gradient.clone(),
            stride => spread(gradient, stride, size)?,
        };
        let padding = self.kernel.dim(2)? - 1 - self.padding;
        convolve(&gradient, mirrored, padding, 1)
    }
}

fn convolve(x: &Tensor, kernel: &Tensor, padding: usize, stride: usize) -> Result<Tensor> {
    let (cout, cin, k, _) = kernel.dims4()?;
    if k > 1 || stride > 1 {
        return x.conv2d(kernel, padding, stride, 1, 1);
    }
    // A 1x1 convolution is a product per image; candle does not merge batches on this side.
    let (b, _, h, w) = x.dims4()?;
    let kernel = kernel.reshape((1, cout, cin))?.broadcast_as((b, cout, cin))?;
    kernel.matmul(&x.flatten_from(2)?)?.reshape((b, cout, h, w))
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
