//! One graph node for a result that was computed outside the graph.
//!
//! Works on every device that candle knows, because forward and backward are made of candle's own
//! operations; a hand-written kernel can replace a layer's pair without touching its callers.

use std::sync::Mutex;

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, Layout, Result, Shape, Storage, Tensor, Var,
};

/// Gives `y` a place in the graph of `x`: the gradient of `x` will be `vjp(gradient of y)`.
///
/// `y` must have been computed from `x.detach()`. If `x` has no gradient to pass on, `y` itself is
/// returned. `vjp` sees detached, contiguous tensors.
pub(crate) fn frozen<F>(x: &Tensor, y: Tensor, vjp: F) -> Result<Tensor>
where
    F: Fn(&Tensor) -> Result<Tensor> + Send + Sync + 'static,
{
    if !x.track_op() {
        return Ok(y);
    }
    x.apply_op1(Frozen { y: Mutex::new(Some(y.contiguous()?)), vjp })
}

/// `f(x)`, of which nothing but `x` is kept: the backward computes it again.
///
/// # Errors
/// If `f` fails, or its result does not depend on `x`.
pub(crate) fn recomputed<F>(x: &Tensor, f: F) -> Result<Tensor>
where
    F: Fn(&Tensor) -> Result<Tensor> + Send + Sync + 'static,
{
    let detached = x.detach();
    let y = f(&detached)?;
    frozen(x, y, move |gradient| {
        let leaf = Var::from_tensor(&detached)?;
        let y = f(leaf.as_tensor())?;
        // The gradient of this sum by y is the gradient that came in, to the bit.
        let mut store = (y * gradient)?.sum_all()?.backward()?;
        match store.remove(leaf.as_tensor()) {
            Some(gradient) => Ok(gradient.detach()),
            None => candle_core::bail!("what is computed again does not depend on its input"),
        }
    })
}

struct Frozen<F> {
    /// Taken by the forward, so that the value is not held twice.
    y: Mutex<Option<Tensor>>,
    vjp: F,
}

impl<F> Frozen<F> {
    fn take(&self) -> Result<Tensor> {
        let taken = self.y.lock().ok().and_then(|mut y| y.take());
        taken.ok_or_else(|| candle_core::Error::Msg("a frozen result is used once".into()))
    }
}

impl<F: Fn(&Tensor) -> Result<Tensor>> CustomOp1 for Frozen<F> {
    fn name(&self) -> &'static str {
        "frozen"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = self.take()?;
        let (storage, layout) = y.storage_and_layout();
        match &*storage {
            Storage::Cpu(cpu) => Ok((cpu.try_clone(layout)?, y.shape().clone())),
            _ => candle_core::bail!("a frozen result on another device than its input"),
        }
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        let y = self.take()?;
        let (storage, layout) = y.storage_and_layout();
        match &*storage {
            Storage::Cuda(cuda) => Ok((cuda.try_clone(layout)?, y.shape().clone())),
            _ => candle_core::bail!("a frozen result on another device than its input"),
        }
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        (self.vjp)(&gradient.detach().contiguous()?).map(Some)
    }
}
