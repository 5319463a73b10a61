//! Attention in blocks of queries: the matrix of all queries against all keys is never whole.
//!
//! At 64x64 latents with eight heads that matrix has half a gigabyte; a block has a few megabytes
//! and is made again where the backward needs it. Blocks are a function of the number of queries
//! alone, so the batch does not change a bit.

use candle_core::{Result, Tensor};

use super::softmax::{softmax, softmax_gradient};

/// Queries at a time.
const BLOCK: usize = 128;

/// `softmax(query key^T) value` for `[b, heads, n, d]`, `[b, heads, m, d]`, `[b, heads, m, e]`; the
/// scale is already in the query. No gradient passes.
pub(crate) fn attend(query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Tensor> {
    let (query, key, value) = (query.detach(), key.detach().t()?, value.detach());
    let blocks = blocks(query.dim(2)?).map(|(start, count)| {
        let probabilities = softmax(&query.narrow(2, start, count)?.contiguous()?.matmul(&key)?)?;
        probabilities.matmul(&value)
    });
    Tensor::cat(&blocks.collect::<Result<Vec<_>>>()?, 2)
}

/// The gradients of query, key and value of [`attend`] from the gradient of its result.
pub(crate) fn attend_gradients(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    gradient: &Tensor,
) -> Result<(Tensor, Tensor, Tensor)> {
    let (transposed_key, transposed_value) = (key.t()?, value.t()?);
    let mut query_gradients = Vec::new();
    let (mut key_gradient, mut value_gradient) = (None, None);
    for (start, count) in blocks(query.dim(2)?) {
        let query = query.narrow(2, start, count)?.contiguous()?;
        let gradient = gradient.narrow(2, start, count)?.contiguous()?;
        let probabilities = softmax(&query.matmul(&transposed_key)?)?;
        add(&mut value_gradient, probabilities.t()?.matmul(&gradient)?)?;
        let upstream = gradient.matmul(&transposed_value)?;
        let logits = softmax_gradient(&probabilities, &upstream)?;
        add(&mut key_gradient, logits.t()?.matmul(&query)?)?;
        query_gradients.push(logits.matmul(key)?);
    }
    match (key_gradient, value_gradient) {
        (Some(key), Some(value)) => Ok((Tensor::cat(&query_gradients, 2)?, key, value)),
        _ => candle_core::bail!("attention without a query"),
    }
}

/// Start and number of the queries of each block.
fn blocks(queries: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..queries).step_by(BLOCK).map(move |start| (start, BLOCK.min(queries - start)))
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
    use candle_core::{D, Var};

    use super::*;
    use crate::layers::testing::{difference, values};

    /// Value and gradients beside the composed operations of candle, over one block and several.
    #[test]
    fn attention_in_blocks_is_attention() {
        for n in [1, 7, BLOCK, BLOCK + 1, 2 * BLOCK + 9] {
            let [q, k, v] =
                [1, 2, 3].map(|seed| Var::from_tensor(&values(&[2, 3, n, 4], seed)).unwrap());
            let scores = q.matmul(&k.t().unwrap()).unwrap();
            let whole = candle_nn::ops::softmax(&scores, D::Minus1).unwrap().matmul(&v).unwrap();
            assert!(difference(&attend(&q, &k, &v).unwrap(), &whole) < 1e-5, "{n}");
            let gradient = values(&[2, 3, n, 4], 4);
            let store = (whole * &gradient).unwrap().sum_all().unwrap().backward().unwrap();
            let got = attend_gradients(&q, &k, &v, &gradient).unwrap();
            for (name, got, var) in [("q", got.0, &q), ("k", got.1, &k), ("v", got.2, &v)] {
                let off = difference(&got, store.get(var.as_tensor()).unwrap());
                assert!(off < 2e-4, "{name} of {n}: {off}");
            }
        }
    }
}
