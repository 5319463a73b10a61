//! One graph node for a result that was computed outside the graph.

use std::sync::Mutex;

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, Device, Layout, Result, Shape, Storage, Tensor,
    Var,
};

/// What was computed for an input.
pub(super) enum Computed {
    /// By candle.
    Tensor(Tensor),
    /// By a kernel, with its shape.
    Values(Vec<f32>, Shape),
}

impl Computed {
    pub(super) fn values(values: Vec<f32>, shape: impl Into<Shape>) -> Self {
        Self::Values(values, shape.into())
    }

    /// The same values in another shape.
    pub(super) fn reshaped(self, shape: &Shape) -> Result<Self> {
        Ok(match self {
            Self::Values(values, _) => Self::Values(values, shape.clone()),
            Self::Tensor(tensor) => Self::Tensor(tensor.reshape(shape)?),
        })
    }

    pub(super) fn into_tensor(self) -> Result<Tensor> {
        match self {
            Self::Tensor(tensor) => Ok(tensor),
            Self::Values(values, shape) => Tensor::from_vec(values, shape, &Device::Cpu),
        }
    }
}

/// Gives `y` a place in the graph of `x`: the gradient of `x` will be `vjp(y, gradient of y)`.
///
/// `y` must have been computed from `x.detach()`. If `x` has no gradient to pass on, `y` itself is
/// returned. `vjp` sees detached, contiguous tensors.
pub(super) fn frozen<F>(x: &Tensor, y: Computed, vjp: F) -> Result<Tensor>
where
    F: Fn(&Tensor, &Tensor) -> Result<Tensor> + Send + Sync + 'static,
{
    if !x.track_op() {
        return y.into_tensor();
    }
    x.apply_op1(Frozen { y: Mutex::new(Some(y)), vjp })
}

/// As [`frozen`], for a `y` to which `plus` was added: that gets the gradient of `y` as it is.
pub(super) fn frozen_plus<F>(x: &Tensor, plus: &Tensor, y: Computed, vjp: F) -> Result<Tensor>
where
    F: Fn(&Tensor, &Tensor) -> Result<Tensor> + Send + Sync + 'static,
{
    if !x.track_op() && !plus.track_op() {
        return y.into_tensor();
    }
    x.apply_op2(plus, Frozen { y: Mutex::new(Some(y)), vjp })
}

/// `x` itself, whose gradient is multiplied by `factor` on its way back.
pub(crate) fn gradient_times(x: &Tensor, factor: f64) -> Result<Tensor> {
    if factor == 1. {
        return Ok(x.clone());
    }
    frozen(x, Computed::Tensor(x.detach()), move |_, gradient| gradient * factor)
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
    frozen(x, Computed::Tensor(y), move |_, gradient| {
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

/// Calls `f` with the values of a tensor on the CPU.
///
/// # Errors
/// If it is somewhere else, or no f32.
pub(super) fn with_values<R>(x: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(values)), Some((from, to))) => Ok(f(&values[from..to])),
        _ => candle_core::bail!("kernels of the CPU work on f32"),
    }
}

struct Frozen<F> {
    /// Taken by the forward, so that the value is not held twice.
    y: Mutex<Option<Computed>>,
    vjp: F,
}

impl<F> Frozen<F> {
    fn take(&self) -> Result<Computed> {
        let taken = self.y.lock().ok().and_then(|mut y| y.take());
        taken.ok_or_else(|| candle_core::Error::Msg("a frozen result is used once".into()))
    }

    fn cpu(&self) -> Result<(CpuStorage, Shape)> {
        let y = match self.take()? {
            Computed::Values(values, shape) => return Ok((CpuStorage::F32(values), shape)),
            Computed::Tensor(y) => y.contiguous()?,
        };
        let (storage, layout) = y.storage_and_layout();
        match &*storage {
            Storage::Cpu(cpu) => Ok((cpu.try_clone(layout)?, y.shape().clone())),
            _ => candle_core::bail!("a frozen result on another device than its input"),
        }
    }

    fn cuda(&self) -> Result<(CudaStorage, Shape)> {
        let y = self.take()?.into_tensor()?.contiguous()?;
        let (storage, layout) = y.storage_and_layout();
        match &*storage {
            Storage::Cuda(cuda) => Ok((cuda.try_clone(layout)?, y.shape().clone())),
            _ => candle_core::bail!("a frozen result on another device than its input"),
        }
    }
}

impl<F: Fn(&Tensor, &Tensor) -> Result<Tensor>> CustomOp1 for Frozen<F> {
    fn name(&self) -> &'static str {
        "frozen"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.cpu()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.cuda()
    }

    fn bwd(&self, _: &Tensor, y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        (self.vjp)(&y.detach(), &gradient.detach().contiguous()?).map(Some)
    }
}

impl<F: Fn(&Tensor, &Tensor) -> Result<Tensor>> CustomOp2 for Frozen<F> {
    fn name(&self) -> &'static str {
        "frozen-plus"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.cpu()
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.cuda()
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        y: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.detach().contiguous()?;
        Ok((Some((self.vjp)(&y.detach(), &gradient)?), Some(gradient)))
    }
}
