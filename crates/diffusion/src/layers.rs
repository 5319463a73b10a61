//! The layer types of the networks: weights are frozen, only the input has a gradient.
//!
//! candle's autograd always forms the gradients of both operands of a convolution or product and
//! cuts the graph at its fused softmax and layer norm. Each layer here computes its result on
//! detached tensors and enters the graph as one node ([`frozen`]) whose backward gives the input's
//! gradient and nothing else. Without a gradient on the way in, a layer costs just its forward.
//!
//! Determinism: GEMM libraries choose how to split sums by the shape of the product, so every
//! product here has a shape that does not depend on the batch (one product per image); the same
//! image then has the same bits in any batch.

mod attention;
mod columns;
mod conv;
mod frozen;
mod linear;
mod norm;
mod softmax;

pub(crate) use attention::{attend, attend_gradients};
pub(crate) use conv::{Conv2d, upsample_nearest};
pub(crate) use frozen::{frozen, recomputed};
pub(crate) use linear::{Linear, matmul_frozen};
pub(crate) use norm::{GroupNorm, LayerNorm};
pub(crate) use softmax::softmax;

/// What the tests of the layers share.
#[cfg(test)]
mod testing {
    use candle_core::{Device, Tensor};

    /// Values in -1..1 that repeat only after a while.
    pub(super) fn values(shape: &[usize], seed: u64) -> Tensor {
        let count = shape.iter().product();
        let value = |i: usize| (((i as u64 + seed) * 2_654_435_761 % 1000) as f32 - 500.) / 500.;
        let values: Vec<f32> = (0..count).map(value).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    /// The largest difference of two tensors of one shape.
    pub(super) fn difference(a: &Tensor, b: &Tensor) -> f32 {
        assert_eq!(a.dims(), b.dims());
        let difference = (a - b).unwrap().abs().unwrap().flatten_all().unwrap();
        difference.max(0).unwrap().to_scalar().unwrap()
    }
}
