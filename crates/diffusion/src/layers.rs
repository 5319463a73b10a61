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
pub(crate) use frozen::frozen;
pub(crate) use linear::{Linear, matmul_frozen};
pub(crate) use norm::{GroupNorm, LayerNorm};
pub(crate) use softmax::softmax;
