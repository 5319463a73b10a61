//! 2-D convolution with frozen weights, and nearest-neighbour upsampling.

use std::sync::Arc;

use candle_core::{Result, Tensor};
use excite_kernels::{Conv, instructions};

use super::frozen::{Computed, frozen, frozen_plus, with_values};
use super::{composed, has_kernels};
use crate::weights::Scope;

/// Side of images below which Winograd's panels stay half empty.
const WINOGRAD_SIDE_MIN: usize = 16;
/// Channels below which its transforms cost more than they save.
const WINOGRAD_CHANNELS_MIN: usize = 32;

/// A square convolution, stride 1 or 2. Clones share the weights.
#[derive(Clone)]
pub(crate) struct Conv2d(Arc<Weights>);

enum Weights {
    Kernel(Conv),
    Composed(composed::Conv2d),
}

/// What a convolution is besides its channels.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    size: usize,
    stride: usize,
    padding: usize,
    /// Height and width that its images are usually of. Only speed depends on it.
    side: usize,
}

impl Shape {
    /// A kernel whose padding keeps the size at stride 1.
    pub(crate) fn new(size: usize, side: usize) -> Self {
        Self { size, stride: 1, padding: size / 2, side }
    }

    /// A kernel that sees nothing beyond the image: the result is smaller.
    pub(crate) fn unpadded(size: usize) -> Self {
        Self { size, stride: 1, padding: 0, side: 0 }
    }

    /// A 3x3 kernel that halves the size, for images with `padding` around.
    pub(crate) fn halving(padding: usize) -> Self {
        Self { size: 3, stride: 2, padding, side: 0 }
    }
}

impl Conv2d {
    /// Loads `weight` `[out, in, k, k]` and `bias` `[out]`.
    pub(crate) fn load(
        scope: &Scope<'_>,
        (cin, cout): (usize, usize),
        shape: Shape,
    ) -> crate::Result<Self> {
        let kernel = scope.get("weight", &[cout, cin, shape.size, shape.size])?;
        let bias = scope.get("bias", &[cout])?;
        Ok(Self::new(&kernel, Some(&bias), shape)?)
    }

    /// Loads a linear layer over the channels of each pixel: `weight` `[out, in]` or
    /// `[out, in, 1, 1]` and, if there, `bias` `[out]`.
    pub(crate) fn load_linear(
        scope: &Scope<'_>,
        (cin, cout): (usize, usize),
    ) -> crate::Result<Self> {
        let kernel = scope.get_any("weight", &[&[cout, cin, 1, 1], &[cout, cin]])?;
        let bias = scope.has("bias").then(|| scope.get("bias", &[cout])).transpose()?;
        Ok(Self::new(&kernel, bias.as_ref(), Shape::new(1, 0))?)
    }

    /// From a kernel `[out, in, k, k]` and a bias `[out]`.
    pub(crate) fn new(kernel: &Tensor, bias: Option<&Tensor>, shape: Shape) -> Result<Self> {
        let Shape { size, stride, padding, side } = shape;
        let (cout, cin, ..) = kernel.dims4()?;
        if !has_kernels(kernel) {
            let composed = composed::Conv2d::new(kernel.clone(), bias, stride, padding)?;
            return Ok(Self(Arc::new(Weights::Composed(composed))));
        }
        let winograd = side >= WINOGRAD_SIDE_MIN && cin.min(cout) >= WINOGRAD_CHANNELS_MIN;
        let bias = bias.map(|bias| bias.to_vec1()).transpose()?;
        let shape = (size, stride, padding);
        let conv =
            with_values(kernel, |kernel| Conv::new(kernel, bias, (cin, cout), shape, winograd))?;
        Ok(Self(Arc::new(Weights::Kernel(conv))))
    }

    /// `[b, in, h, w]` to `[b, out, h', w']`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_shifted(x, None)
    }

    /// As [`Conv2d::forward`], and `shift` `[b, out]` on all pixels, which has no gradient.
    pub(crate) fn forward_shifted(&self, x: &Tensor, shift: Option<&Tensor>) -> Result<Tensor> {
        let y = self.0.forward(&x.detach(), shift, None)?;
        let (weights, source) = (self.0.clone(), sides(x)?);
        frozen(x, y, move |_, gradient| weights.input_gradient(gradient, source))
    }

    /// As [`Conv2d::forward`], and `plus` of the result's shape.
    pub(crate) fn forward_plus(&self, x: &Tensor, plus: &Tensor) -> Result<Tensor> {
        let y = self.0.forward(&x.detach(), None, Some(&plus.detach()))?;
        let (weights, source) = (self.0.clone(), sides(x)?);
        frozen_plus(x, plus, y, move |_, gradient| weights.input_gradient(gradient, source))
    }

    /// The gradient of an input of height and width `source` from that of the result.
    pub(super) fn input_gradient(
        &self,
        gradient: &Tensor,
        source: (usize, usize),
    ) -> Result<Tensor> {
        self.0.input_gradient(gradient, source)
    }
}

impl Weights {
    fn forward(
        &self,
        x: &Tensor,
        shift: Option<&Tensor>,
        plus: Option<&Tensor>,
    ) -> Result<Computed> {
        let conv = match self {
            Self::Composed(conv) => return conv.forward(x, shift, plus).map(Computed::Tensor),
            Self::Kernel(conv) => conv,
        };
        let (images, channels, height, width) = x.dims4()?;
        let (source, (cin, cout)) = ((height, width), conv.channels());
        let (height, width) = conv.result(source);
        let shape = (images, cout, height, width);
        let shift = match shift {
            // Images that share a timestep share its shift.
            Some(shift) => Some(shift.broadcast_as((images, cout))?.flatten_all()?.to_vec1()?),
            None => None,
        };
        let plus = plus.map(|plus| plus.contiguous()).transpose()?;
        if channels != cin
            || plus.as_ref().is_some_and(|plus| plus.dims() != <[usize; 4]>::from(shape))
        {
            candle_core::bail!("a convolution of {cin} to {cout} channels does not fit {x:?}");
        }
        let run = |plus: Option<&[f32]>| {
            with_values(x, |x| conv.forward(instructions(), x, source, shift.as_deref(), plus))
        };
        let values = match &plus {
            Some(plus) => with_values(plus, |plus| run(Some(plus)))??,
            None => run(None)?,
        };
        Ok(Computed::values(values, shape))
    }

    fn input_gradient(&self, gradient: &Tensor, source: (usize, usize)) -> Result<Tensor> {
        let conv = match self {
            Self::Composed(conv) => return conv.input_gradient(gradient, source),
            Self::Kernel(conv) => conv,
        };
        let values = with_values(gradient, |g| conv.input_gradient(instructions(), g, source))?;
        let shape = (gradient.dim(0)?, conv.channels().0, source.0, source.1);
        Computed::values(values, shape).into_tensor()
    }
}

fn sides(x: &Tensor) -> Result<(usize, usize)> {
    let (_, _, height, width) = x.dims4()?;
    Ok((height, width))
}

/// Doubles height and width of `[b, c, h, w]`.
pub(crate) fn upsample_nearest(x: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    let doubled = x.detach().reshape((b, c, h, 1, w, 1))?.broadcast_as((b, c, h, 2, w, 2))?;
    let doubled = doubled.reshape((b, c, 2 * h, 2 * w))?;
    frozen(x, Computed::Tensor(doubled), move |_, gradient| {
        // The sum over the four pixels that a pixel became.
        let part = |dy: usize, dx: usize| -> Result<Tensor> {
            let rows = gradient.reshape((b, c, h, 2, w, 2))?;
            rows.narrow(3, dy, 1)?.narrow(5, dx, 1)?.contiguous()?.reshape((b, c, h, w))
        };
        (part(0, 0)? + part(0, 1)?)? + (part(1, 0)? + part(1, 1)?)?
    })
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::layers::testing::{assert_twins, values};

    #[test]
    fn a_convolution_and_its_twin_agree() {
        #[rustfmt::skip]
        let table = [
            // size stride padding side  height width
            (3, 1, 1, 0, 8, 8),
            (3, 1, 1, 16, 16, 16),
            (3, 1, 1, 16, 5, 9),
            (3, 2, 1, 0, 8, 6),
            (3, 2, 0, 0, 9, 9),  // the VAE's encoder pads right and below by hand
            (1, 1, 0, 0, 4, 7),
        ];
        for case @ (size, stride, padding, side, height, width) in table {
            let (kernel, bias) = (values(&[40, 32, size, size], 7), values(&[40], 8));
            let kernel = (kernel / 16.).unwrap();
            let shape = Shape { size, stride, padding, side };
            let conv = Conv2d::new(&kernel, Some(&bias), shape).unwrap();
            let twin = composed::Conv2d::new(kernel.clone(), Some(&bias), stride, padding).unwrap();
            let twin = Conv2d(Arc::new(Weights::Composed(twin)));
            let x = values(&[3, 32, height, width], 1);
            let what = format!("{case:?}");
            let plain = |conv: &Conv2d, x: &Tensor| conv.forward(x).unwrap();
            assert_twins(&x, |x| plain(&conv, x), |x| plain(&twin, x), &what);
            let shift = values(&[3, 40], 9);
            let shifted =
                |conv: &Conv2d, x: &Tensor| conv.forward_shifted(x, Some(&shift)).unwrap();
            assert_twins(&x, |x| shifted(&conv, x), |x| shifted(&twin, x), &what);
            // What is added has a gradient too: here it comes from the same input.
            let plus = |conv: &Conv2d, x: &Tensor| {
                let twice = (conv.forward(x).unwrap() * 2.).unwrap();
                conv.forward_plus(x, &twice).unwrap()
            };
            assert_twins(&x, |x| plus(&conv, x), |x| plus(&twin, x), &what);
        }
    }

    #[test]
    fn upsampling_doubles_pixels() {
        let x = Tensor::new(&[[[[1f32, 2.], [3., 4.]]]], &Device::Cpu).unwrap();
        let got = upsample_nearest(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let rows = [[1., 1., 2., 2.], [1., 1., 2., 2.], [3., 3., 4., 4.], [3., 3., 4., 4.]];
        assert_eq!(got, rows.concat());
        let by_broadcast = |x: &Tensor| {
            let (b, c, h, w) = x.dims4().unwrap();
            let x = x.reshape((b, c, h, 1, w, 1)).unwrap();
            let x = x.broadcast_as((b, c, h, 2, w, 2)).unwrap();
            x.reshape((b, c, 2 * h, 2 * w)).unwrap()
        };
        let twice = |x: &Tensor| upsample_nearest(x).unwrap();
        assert_twins(&values(&[2, 3, 4, 5], 1), twice, by_broadcast, "upsampling");
    }
}
