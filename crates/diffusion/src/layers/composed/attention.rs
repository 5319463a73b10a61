//! Attention composed of candle's operations, in blocks of queries: the matrix of all queries
//! against all keys is never whole.
//!
//! At 64x64 latents with eight heads that matrix has half a gigabyte; a block has a few megabytes and
//! is made again where the backward needs it. Softmax, probabilities and their gradients are f32
//! whatever goes in. Everything is channels first, `[b, heads * d, n]`.

use candle_core::{D, DType, Result, Tensor};

/// Bytes of the logits of as many queries as are taken at a time: a GPU wants large products.
const LOGITS_BYTES_MAX: usize = 512 << 20;
/// Queries at a time at least.
const BLOCK_MIN: usize = 128;

/// Queries `[b, heads * d, n]`, keys and values `[b, heads * d, m]` to `[b, heads * d, n]`.
pub(in crate::layers) fn attend(
    known: (&Tensor, &Tensor, &Tensor),
    heads: usize,
) -> Result<Tensor> {
    attend_by(block(known, heads)?, known, heads)
}

fn attend_by(
    block: usize,
    (query, key, value): (&Tensor, &Tensor, &Tensor),
    heads: usize,
) -> Result<Tensor> {
    let scale = scale(query, heads)?;
    let query = (pixels_first(query, heads)? * scale)?;
    let (key, value) = (channels_first(key, heads)?, pixels_first(value, heads)?);
    let blocks = blocks(query.dim(2)?, block).map(|(start, count)| {
        let query = query.narrow(2, start, count)?.contiguous()?;
        softmax(&query.matmul(&key)?)?.to_dtype(value.dtype())?.matmul(&value)
    });
    joined(&Tensor::cat(&blocks.collect::<Result<Vec<_>>>()?, 2)?)
}

/// The gradients of query, key and value of [`attend`] from that of its result.
pub(in crate::layers) fn attend_gradients(
    known: (&Tensor, &Tensor, &Tensor),
    heads: usize,
    gradient: &Tensor,
) -> Result<(Tensor, Tensor, Tensor)> {
    gradients_by(block(known, heads)?, known, heads, gradient)
}

fn gradients_by(
    block: usize,
    (query, key, value): (&Tensor, &Tensor, &Tensor),
    heads: usize,
    gradient: &Tensor,
) -> Result<(Tensor, Tensor, Tensor)> {
    let precision = query.dtype();
    let scale = scale(query, heads)?;
    let query = (pixels_first(query, heads)? * scale)?;
    let (key, value) = (pixels_first(key, heads)?, pixels_first(value, heads)?);
    let gradient = pixels_first(gradient, heads)?;
    let (transposed_key, transposed_value) = (key.t()?, value.t()?);
    let mut to_query = Vec::new();
    let (mut to_key, mut to_value) = (None, None);
    for (start, count) in blocks(query.dim(2)?, block) {
        let query = query.narrow(2, start, count)?.contiguous()?;
        let gradient = gradient.narrow(2, start, count)?.contiguous()?;
        let probabilities = softmax(&query.matmul(&transposed_key)?)?;
        add(&mut to_value, probabilities.to_dtype(precision)?.t()?.matmul(&gradient)?)?;
        let upstream = gradient.matmul(&transposed_value)?.to_dtype(DType::F32)?;
        let logits = softmax_gradient(&probabilities, &upstream)?.to_dtype(precision)?;
        add(&mut to_key, logits.t()?.matmul(&query)?)?;
        to_query.push(logits.matmul(&key)?);
    }
    match (to_key, to_value) {
        (Some(to_key), Some(to_value)) => Ok((
            joined(&(Tensor::cat(&to_query, 2)? * scale)?)?,
            joined(&to_key)?,
            joined(&to_value)?,
        )),
        _ => candle_core::bail!("attention without a query"),
    }
}

/// Queries `[b, heads * d, n]` and keys `[b, heads * d, m]` to probabilities `[b, heads, m, n]`, f32.
pub(in crate::layers) fn probabilities(
    query: &Tensor,
    key: &Tensor,
    heads: usize,
) -> Result<Tensor> {
    let query = (pixels_first(query, heads)? * scale(query, heads)?)?;
    softmax(&query.matmul(&channels_first(key, heads)?)?)?.transpose(2, 3)?.contiguous()
}

/// The gradient of the queries of [`probabilities`] from its result and the gradient of that.
pub(in crate::layers) fn probabilities_gradient(
    probabilities: &Tensor,
    gradient: &Tensor,
    key: &Tensor,
) -> Result<Tensor> {
    let heads = probabilities.dim(1)?;
    let rows = |x: &Tensor| x.transpose(2, 3)?.contiguous();
    let logits = softmax_gradient(&rows(probabilities)?, &rows(gradient)?)?;
    let logits = logits.to_dtype(key.dtype())?;
    joined(&(logits.matmul(&pixels_first(key, heads)?)? * scale(key, heads)?)?)
}

/// Probabilities `[b, heads, m, n]` times values `[b, heads * d, m]`: `[b, heads * d, n]`.
pub(in crate::layers) fn apply_probabilities(
    probabilities: &Tensor,
    value: &Tensor,
) -> Result<Tensor> {
    let (b, heads, _, n) = probabilities.dims4()?;
    let probabilities = probabilities.to_dtype(value.dtype())?;
    channels_first(value, heads)?.matmul(&probabilities)?.reshape((b, (), n))
}

/// The gradient of the probabilities of [`apply_probabilities`] from that of its result, f32.
pub(in crate::layers) fn apply_gradient(
    gradient: &Tensor,
    value: &Tensor,
    heads: usize,
) -> Result<Tensor> {
    pixels_first(value, heads)?.matmul(&channels_first(gradient, heads)?)?.to_dtype(DType::F32)
}

/// `[b, heads, m, n]` to `[b, m, n]`.
pub(in crate::layers) fn mean_of_heads(probabilities: &Tensor) -> Result<Tensor> {
    probabilities.mean(1)
}

/// The gradient of the probabilities of [`mean_of_heads`] from that of its result.
pub(in crate::layers) fn mean_of_heads_gradient(gradient: &Tensor, heads: usize) -> Result<Tensor> {
    let (b, m, n) = gradient.dims3()?;
    (gradient / heads as f64)?.unsqueeze(1)?.broadcast_as((b, heads, m, n))?.contiguous()
}

fn scale(x: &Tensor, heads: usize) -> Result<f64> {
    Ok(1. / ((x.dim(1)? / heads) as f64).sqrt())
}

/// `[b, heads * d, n]` to `[b, heads, d, n]`.
fn channels_first(x: &Tensor, heads: usize) -> Result<Tensor> {
    let (b, c, n) = x.dims3()?;
    x.reshape((b, heads, c / heads, n))
}

/// `[b, heads * d, n]` to `[b, heads, n, d]`.
fn pixels_first(x: &Tensor, heads: usize) -> Result<Tensor> {
    channels_first(x, heads)?.transpose(2, 3)?.contiguous()
}

/// `[b, heads, n, d]` to `[b, heads * d, n]`.
fn joined(x: &Tensor) -> Result<Tensor> {
    let (b, heads, n, d) = x.dims4()?;
    x.transpose(2, 3)?.contiguous()?.reshape((b, heads * d, n))
}

/// In f32.
fn softmax(x: &Tensor) -> Result<Tensor> {
    candle_nn::ops::softmax_last_dim(&x.to_dtype(DType::F32)?.contiguous()?)
}

/// The gradient of what went into a softmax, from its result and the gradient of that.
pub(in crate::layers) fn softmax_gradient(
    probabilities: &Tensor,
    gradient: &Tensor,
) -> Result<Tensor> {
    let along = (gradient * probabilities)?.sum_keepdim(D::Minus1)?;
    gradient.broadcast_sub(&along)? * probabilities
}

/// Queries at a time.
fn block((query, key, _): (&Tensor, &Tensor, &Tensor), heads: usize) -> Result<usize> {
    let row = query.dim(0)? * heads * key.dim(2)? * size_of::<f32>();
    Ok((LOGITS_BYTES_MAX / row.max(1)).max(BLOCK_MIN))
}

/// Start and number of the queries of each block.
fn blocks(queries: usize, block: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..queries).step_by(block).map(move |start| (start, block.min(queries - start)))
}

fn add(sum: &mut Option<Tensor>, term: Tensor) -> Result<()> {
    *sum = Some(match sum.take() {
        Some(sum) => (sum + term)?,
        None => term,
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;
    use crate::layers::testing::{difference, values};

    /// Value and gradients beside plain operations of candle, over one block and several.
    #[test]
    fn attention_in_blocks_is_attention() {
        const BLOCK: usize = 16;
        for n in [1, 7, BLOCK, BLOCK + 1, 2 * BLOCK + 9] {
            let [q, k, v] =
                [1, 2, 3].map(|seed| Var::from_tensor(&values(&[2, 12, n], seed)).unwrap());
            let split = |x: &Var| x.reshape((2, 3, 4, n)).unwrap().transpose(2, 3).unwrap();
            let scores = (split(&q).matmul(&split(&k).t().unwrap()).unwrap() * 0.5).unwrap();
            let whole = candle_nn::ops::softmax(&scores, D::Minus1).unwrap();
            let whole = whole.matmul(&split(&v).contiguous().unwrap()).unwrap();
            let whole = whole.transpose(2, 3).unwrap().reshape((2, 12, n)).unwrap();
            let known = (q.as_tensor(), k.as_tensor(), v.as_tensor());
            let known = (&known.0.detach(), &known.1.detach(), &known.2.detach());
            let got = attend_by(BLOCK, known, 3).unwrap();
            assert!(difference(&got, &whole) < 1e-5, "{n}");
            let gradient = values(&[2, 12, n], 4);
            let store = (whole * &gradient).unwrap().sum_all().unwrap().backward().unwrap();
            let got = gradients_by(BLOCK, known, 3, &gradient).unwrap();
            for (name, got, var) in [("q", got.0, &q), ("k", got.1, &k), ("v", got.2, &v)] {
                let off = difference(&got, store.get(var.as_tensor()).unwrap());
                assert!(off < 2e-4, "{name} of {n}: {off}");
            }
        }
    }
}
