//! Finds the layer at which a pass went wrong.
//!
//! A pass whose outcome is not finite is made once more under [`not_finite`], and the layers show
//! what they give with [`seen`], which otherwise hands it on. Passes run on the thread that asks
//! for them, so a thread has a probe of its own. Not here: who notices that something is wrong
//! (`run`).

use std::cell::{Cell, RefCell};

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, DType, Layout, Result, Shape, Tensor};

thread_local! {
    static LOOKING: Cell<bool> = const { Cell::new(false) };
    static FOUND: RefCell<Found> = const { RefCell::new(Found::nothing()) };
}

/// What a pass showed.
#[derive(Default)]
struct Found {
    /// The first layer whose output was not finite.
    output: Option<String>,
    /// The first layer, from behind, that made a gradient that was not finite of one that was.
    gradient: Option<String>,
    /// The last layer whose gradient was finite.
    passed: Option<String>,
}

impl Found {
    const fn nothing() -> Self {
        Self { output: None, gradient: None, passed: None }
    }
}

/// The path, as in the weight files, of the first layer of `pass` whose output is not finite, or
/// else of the one whose gradient is not. `None`: every layer was well.
pub(crate) fn not_finite<T, E>(pass: impl FnOnce() -> std::result::Result<T, E>) -> Option<String> {
    LOOKING.set(true);
    FOUND.set(Found::nothing());
    // It went wrong before; how it ends now says nothing more.
    let _ = pass();
    LOOKING.set(false);
    let Found { output, gradient, .. } = FOUND.take();
    output.or(gradient)
}

/// Hands on what the layer `path` and `name` gives.
///
/// # Errors
/// If the tensor library fails while somebody looks.
pub(crate) fn seen(path: &str, name: &str, output: Tensor) -> Result<Tensor> {
    if LOOKING.get() { look(path, name, output) } else { Ok(output) }
}

#[cold]
fn look(path: &str, name: &str, output: Tensor) -> Result<Tensor> {
    let layer = match (path, name) {
        ("", name) => name.to_owned(),
        (path, "") => path.to_owned(),
        (path, name) => format!("{path}.{name}"),
    };
    let finite = is_finite(&output)?;
    FOUND.with_borrow_mut(|found| {
        if !finite && found.output.is_none() {
            found.output = Some(layer.clone());
        }
    });
    match output.track_op() {
        true => output.force_contiguous()?.apply_op1(Watched { layer }),
        false => Ok(output),
    }
}

/// A node that gives its gradient on as it is, and looks at it.
struct Watched {
    layer: String,
}

impl CustomOp1 for Watched {
    fn name(&self) -> &'static str {
        "watched"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((storage.try_clone(layout)?, layout.shape().clone()))
    }

    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        Ok((storage.try_clone(layout)?, layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let finite = is_finite(gradient)?;
        FOUND.with_borrow_mut(|found| {
            if finite {
                found.passed = Some(self.layer.clone());
            } else if found.gradient.is_none() {
                // It comes from the layer behind this one.
                found.gradient = Some(found.passed.as_ref().unwrap_or(&self.layer).clone());
            }
        });
        Ok(Some(gradient.clone()))
    }
}

/// Zero times what is not finite is not a number; a sum of magnitudes may overflow by itself.
fn is_finite(tensor: &Tensor) -> Result<bool> {
    let zeros = tensor.detach().to_dtype(DType::F32)?.affine(0., 0.)?;
    Ok(!zeros.sum_all()?.to_scalar::<f32>()?.is_nan())
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    fn tensor(values: &[f32]) -> Tensor {
        Tensor::new(values, &Device::Cpu).unwrap()
    }

    #[test]
    fn infinity_and_nan_are_found_and_large_numbers_are_not() {
        for (values, want) in [
            (&[0., -1., 3e38, 3e38][..], true),
            (&[0., f32::INFINITY], false),
            (&[f32::NEG_INFINITY, f32::INFINITY], false),
            (&[f32::NAN, 1.], false),
        ] {
            assert_eq!(is_finite(&tensor(values)).unwrap(), want, "{values:?}");
        }
    }

    #[test]
    fn the_first_layer_that_gives_infinity_is_named() {
        let pass = |factor: f64| {
            let x = seen("a", "one", tensor(&[1., 2.]))?;
            let x = seen("a", "two", (x * factor)?)?;
            seen("b", "", (x * factor)?)
        };
        assert_eq!(not_finite(|| pass(1.)), None);
        assert_eq!(not_finite(|| pass(1e30)), Some("b".into()));
        assert_eq!(not_finite(|| pass(f64::NAN)), Some("a.two".into()));
        assert_eq!(not_finite(|| pass(1.)), None, "what was found is forgotten");
    }

    #[test]
    fn the_layer_whose_gradient_overflows_is_named() {
        let pass = |factor: f64| {
            let x = Var::from_tensor(&tensor(&[1e-30]))?;
            let y = seen("", "first", (x.as_tensor() * factor)?)?;
            let y = seen("", "second", (y * factor)?)?;
            let y = seen("", "third", (y * 1e-10)?)?;
            y.sum_all()?.backward()
        };
        assert_eq!(not_finite(|| pass(10.)), None);
        // 1e-10 times 1e30 is the gradient of `first`; times 1e30 again it is too much.
        assert_eq!(not_finite(|| pass(1e30)), None, "the input's own is not looked at");
        let pass = || {
            let x = Var::from_tensor(&tensor(&[1e-30]))?;
            let y = seen("", "input", x.as_tensor().clone())?;
            let y = seen("", "first", (y * 1e30)?)?;
            let y = seen("", "second", (y * 1e30)?)?;
            let y = seen("", "third", (y * 1e-10)?)?;
            y.sum_all()?.backward()
        };
        assert_eq!(not_finite(pass), Some("first".into()));
    }

    #[test]
    fn nobody_looks_by_default() {
        let x = Var::from_tensor(&tensor(&[f32::NAN])).unwrap();
        let y = seen("a", "b", x.as_tensor().clone()).unwrap();
        assert_eq!(y.id(), x.as_tensor().id());
    }
}
