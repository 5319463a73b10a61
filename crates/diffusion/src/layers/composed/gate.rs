//! GEGLU composed of candle's operations.

use std::f64::consts::{FRAC_1_SQRT_2, TAU};

use candle_core::{DType, Result, Tensor};

/// `[b, 2c, ..]`, values in front of gates, to `[b, c, ..]`.
pub(in crate::layers) fn geglu(x: &Tensor) -> Result<Tensor> {
    let (values, gates) = halves(x)?;
    values * gates.gelu_erf()?
}

/// The gradient of the input from that of the result; computed in f32.
pub(in crate::layers) fn geglu_gradient(x: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    let precision = x.dtype();
    let (values, gates) = halves(&x.to_dtype(DType::F32)?)?;
    let gradient = &gradient.to_dtype(DType::F32)?;
    // The normal distribution up to the gate, and its density there.
    let below = (((&gates * FRAC_1_SQRT_2)?.erf()? + 1.)? * 0.5)?;
    let density = ((gates.sqr()? * -0.5)?.exp()? / TAU.sqrt())?;
    let to_values = (gradient * (&gates * &below)?)?;
    let slope = (below + (gates * density)?)?;
    let to_gates = ((gradient * values)? * slope)?;
    Tensor::cat(&[to_values, to_gates], 1)?.to_dtype(precision)
}

fn halves(x: &Tensor) -> Result<(Tensor, Tensor)> {
    let half = x.dim(1)? / 2;
    Ok((x.narrow(1, 0, half)?.contiguous()?, x.narrow(1, half, half)?.contiguous()?))
}
