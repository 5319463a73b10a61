//! The layer types of the networks: weights are frozen, only the input has a gradient.
//!
//! candle's autograd always forms the gradients of both operands of a convolution or product and
//! cuts the graph at its fused softmax and layer norm. Each layer here computes its result on
//! detached tensors and enters the graph as one node ([`frozen`]) whose backward gives the input's
//! gradient and nothing else. Without a gradient on the way in, a layer costs just its forward.
//!
//! In f32 on the CPU the work is that of `excite_kernels`; on other devices and in 16 bits it is
//! composed of candle's operations ([`composed`]), which is also what the kernels are tested against.
//! In 16 bits softmax, maps and the statistics of norms are f32. Activations are
//! channels first, `[b, c, h, w]`, in the UNet and the autoencoder, and tokens first, `[b, n, c]`, in
//! the text encoder ([`tokens`]).
//!
//! Determinism: nothing that an image is computed with depends on its batch (one product per image
//! where the tensor library chooses how sums are split); the same image has the same bits in any
//! batch.

use candle_core::{DType, Tensor};

mod attention;
mod composed;
mod conv;
mod frozen;
mod gate;
mod norm;
mod tokens;

pub(crate) use attention::{
    SelfAttention, apply_probabilities, attend_text, mean_of_heads, probabilities,
};
pub(crate) use conv::{Conv2d, Shape, upsample_nearest};
pub(crate) use frozen::{gradient_times, recomputed};
pub(crate) use gate::geglu;
pub(crate) use norm::{ChannelNorm, GroupNorm};
pub(crate) use tokens::{LayerNorm, Linear, softmax};

/// Whether what is computed with this tensor is the work of kernels.
fn has_kernels(tensor: &Tensor) -> bool {
    #[cfg(test)]
    if testing::is_composed() {
        return false;
    }
    tensor.device().is_cpu() && tensor.dtype() == DType::F32
}

/// What the tests of the layers share.
#[cfg(test)]
pub(crate) mod testing {
    use std::cell::Cell;

    use candle_core::{Device, Tensor, Var};

    thread_local! {
        static COMPOSED: Cell<bool> = const { Cell::new(false) };
    }

    /// Loads and computes on this thread with composed layers, as on a GPU.
    pub(crate) fn composed<T>(f: impl FnOnce() -> T) -> T {
        COMPOSED.set(true);
        let result = f();
        COMPOSED.set(false);
        result
    }

    pub(super) fn is_composed() -> bool {
        COMPOSED.get()
    }

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

    /// Two ways to compute a layer agree: in value, and in the gradient of the input under an
    /// upstream gradient that differs from place to place.
    pub(super) fn assert_twins(
        x: &Tensor,
        one: impl Fn(&Tensor) -> Tensor,
        other: impl Fn(&Tensor) -> Tensor,
        what: &str,
    ) {
        let x = Var::from_tensor(x).unwrap();
        let (one, other) = (one(x.as_tensor()), other(x.as_tensor()));
        let scale = |t: &Tensor| -> f32 {
            t.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap()
        };
        let off = difference(&one, &other);
        assert!(off <= 2e-6 * scale(&other).max(1.), "{what}: {off}");
        let weight = values(one.dims(), 3);
        let gradient = |y: &Tensor| {
            let store = (y * &weight).unwrap().sum_all().unwrap().backward().unwrap();
            store.get(x.as_tensor()).unwrap().clone()
        };
        let (one, other) = (gradient(&one), gradient(&other));
        let off = difference(&one, &other);
        assert!(off <= 4e-6 * scale(&other).max(1.), "{what}, gradient: {off}");
    }
}
