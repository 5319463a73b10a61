//! Attention, channels first: over the pixels themselves, and over a text that is frozen.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor};
use excite_kernels::{Attention, Probabilities, instructions};

use super::conv::Conv2d;
use super::frozen::{Computed, frozen, with_values};
use super::{composed, has_kernels};

/// From pixels to what they attend to, in front of the projection of the result.
pub(crate) struct SelfAttention(Arc<Parts>);

struct Parts {
    query: Conv2d,
    key: Conv2d,
    value: Conv2d,
    heads: usize,
}

impl SelfAttention {
    /// From the projections of query, key and value.
    pub(crate) fn new([query, key, value]: [Conv2d; 3], heads: usize) -> Self {
        Self(Arc::new(Parts { query, key, value, heads }))
    }

    /// `[b, c, h, w]` to the same.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (detached, parts) = (x.detach(), self.0.clone());
        let (.., height, width) = x.dims4()?;
        let flat = |layer: &Conv2d| layer.forward(&detached)?.flatten_from(2);
        let known = Known {
            query: flat(&parts.query)?,
            key: flat(&parts.key)?,
            value: flat(&parts.value)?,
            heads: parts.heads,
        };
        let (y, logarithms) = known.attend()?;
        let y = y.reshaped(x.shape())?;
        // One node from the pixels to what they attended to: of the three products only query, key
        // and value are kept.
        frozen(x, y, move |y, gradient| {
            let (y, gradient) = (y.flatten_from(2)?, gradient.flatten_from(2)?);
            let (query, key, value) = known.gradients(&y, &logarithms, &gradient)?;
            let back = |layer: &Conv2d, gradient: Tensor| {
                let (b, c, _) = gradient.dims3()?;
                layer.input_gradient(&gradient.reshape((b, c, height, width))?, (height, width))
            };
            (back(&parts.query, query)? + back(&parts.key, key)?)? + back(&parts.value, value)?
        })
    }
}

/// Queries `[b, heads * d, n]`, keys and values `[b, heads * d, m]`.
struct Known {
    query: Tensor,
    key: Tensor,
    value: Tensor,
    heads: usize,
}

impl Known {
    fn tensors(&self) -> (&Tensor, &Tensor, &Tensor) {
        (&self.query, &self.key, &self.value)
    }

    fn sizes(&self) -> Result<(Attention, (usize, usize))> {
        let channels = self.query.dim(1)? / self.heads;
        Ok((Attention { heads: self.heads, channels }, (self.query.dim(2)?, self.key.dim(2)?)))
    }

    fn with_values<R>(&self, f: impl FnOnce((&[f32], &[f32], &[f32])) -> R) -> Result<R> {
        with_values(&self.query, |query| {
            with_values(&self.key, |key| with_values(&self.value, |value| f((query, key, value))))
        })??
    }

    /// The result `[b, heads * d, n]`, and what the gradient needs besides it.
    fn attend(&self) -> Result<(Computed, Vec<f32>)> {
        if !has_kernels(&self.query) {
            let y = composed::attend(self.tensors(), self.heads)?;
            return Ok((Computed::Tensor(y), Vec::new()));
        }
        let (attention, sizes) = self.sizes()?;
        let attended = self.with_values(|known| attention.forward(instructions(), known, sizes))?;
        Ok((Computed::values(attended.values, self.query.shape()), attended.logarithms))
    }

    fn gradients(
        &self,
        y: &Tensor,
        logarithms: &[f32],
        gradient: &Tensor,
    ) -> Result<(Tensor, Tensor, Tensor)> {
        if !has_kernels(&self.query) {
            return composed::attend_gradients(self.tensors(), self.heads, gradient);
        }
        let (attention, sizes) = self.sizes()?;
        let (query, key, value) = with_values(gradient, |gradient| {
            with_values(y, |y| {
                let attended = (y, logarithms);
                self.with_values(|known| {
                    attention.gradients(instructions(), known, sizes, attended, gradient)
                })
            })
        })???;
        let tensor = |values, like: &Tensor| Tensor::from_vec(values, like.shape(), &Device::Cpu);
        Ok((tensor(query, &self.query)?, tensor(key, &self.key)?, tensor(value, &self.value)?))
    }

    /// The gradient of the queries alone.
    fn query_gradient(&self, y: &Tensor, logarithms: &[f32], gradient: &Tensor) -> Result<Tensor> {
        if !has_kernels(&self.query) {
            return Ok(composed::attend_gradients(self.tensors(), self.heads, gradient)?.0);
        }
        let (attention, sizes) = self.sizes()?;
        let query = with_values(gradient, |gradient| {
            with_values(y, |y| {
                let attended = (y, logarithms);
                self.with_values(|known| {
                    attention.query_gradient(instructions(), known, sizes, attended, gradient)
                })
            })
        })???;
        Tensor::from_vec(query, self.query.shape(), &Device::Cpu)
    }
}

/// Queries `[b, heads * d, h, w]` over keys and values `[b, heads * d, m]`, which are frozen: to the
/// queries' shape.
pub(crate) fn attend_text(
    query: &Tensor,
    (key, value): (&Tensor, &Tensor),
    heads: usize,
) -> Result<Tensor> {
    let known = Known {
        query: query.detach().flatten_from(2)?,
        key: key.clone(),
        value: value.clone(),
        heads,
    };
    let (y, logarithms) = known.attend()?;
    let y = y.reshaped(query.shape())?;
    let shape = query.shape().clone();
    frozen(query, y, move |y, gradient| {
        let (y, gradient) = (y.flatten_from(2)?, gradient.flatten_from(2)?);
        known.query_gradient(&y, &logarithms, &gradient)?.reshape(&shape)
    })
}

/// Queries `[b, heads * d, h, w]` and frozen keys `[b, heads * d, m]` to probabilities
/// `[b, heads, m, h * w]`, f32 in every precision.
pub(crate) fn probabilities(query: &Tensor, key: &Tensor, heads: usize) -> Result<Tensor> {
    let flat = query.detach().flatten_from(2)?;
    let ((b, c, n), keys) = (flat.dims3()?, key.dim(2)?);
    let map = Probabilities { heads, channels: c / heads, keys };
    let (key, shape) = (key.clone(), query.shape().clone());
    if !has_kernels(query) {
        let y = Computed::Tensor(composed::probabilities(&flat, &key, heads)?);
        return frozen(query, y, move |y, gradient| {
            composed::probabilities_gradient(y, gradient, &key)?.reshape(&shape)
        });
    }
    let y = with_values(&flat, |query| {
        with_values(&key, |key| map.forward(instructions(), query, key, n))
    })??;
    frozen(query, Computed::values(y, (b, heads, keys, n)), move |y, gradient| {
        let values = with_values(y, |y| {
            with_values(gradient, |gradient| {
                with_values(&key, |key| map.query_gradient(instructions(), (y, gradient), key, n))
            })
        })???;
        Tensor::from_vec(values, &shape, &Device::Cpu)
    })
}

/// Probabilities `[b, heads, m, n]` times frozen values `[b, heads * d, m]`: `[b, heads * d, n]`.
pub(crate) fn apply_probabilities(probabilities: &Tensor, value: &Tensor) -> Result<Tensor> {
    let detached = probabilities.detach();
    let ((b, heads, keys, n), c) = (detached.dims4()?, value.dim(1)?);
    let map = Probabilities { heads, channels: c / heads, keys };
    let value = value.clone();
    if !has_kernels(&value) {
        let y = Computed::Tensor(composed::apply_probabilities(&detached, &value)?);
        return frozen(probabilities, y, move |_, gradient| {
            composed::apply_gradient(gradient, &value, heads)
        });
    }
    let y = with_values(&detached, |probabilities| {
        with_values(&value, |value| map.apply(instructions(), probabilities, value, n))
    })??;
    frozen(probabilities, Computed::values(y, (b, c, n)), move |_, gradient| {
        let values = with_values(gradient, |gradient| {
            with_values(&value, |value| map.apply_gradient(instructions(), gradient, value, n))
        })??;
        Tensor::from_vec(values, (b, heads, keys, n), &Device::Cpu)
    })
}

/// The mean over heads: `[b, heads, m, n]` to `[b, m, n]`.
pub(crate) fn mean_of_heads(probabilities: &Tensor) -> Result<Tensor> {
    let heads = probabilities.dim(1)?;
    let y = composed::mean_of_heads(&probabilities.detach())?;
    frozen(probabilities, Computed::Tensor(y), move |_, gradient| {
        composed::mean_of_heads_gradient(gradient, heads)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::conv::Shape;
    use crate::layers::testing::{assert_twins, values};

    fn twin(
        x: &Tensor,
        y: Tensor,
        back: impl Fn(&Tensor, &Tensor) -> Tensor + Send + Sync + 'static,
    ) -> Tensor {
        frozen(x, Computed::Tensor(y), move |y, g| Ok(back(y, g))).unwrap()
    }

    #[test]
    fn attention_and_its_twin_agree() {
        let x = values(&[2, 24, 6, 7], 1);
        let layer = |seed| {
            let kernel = (values(&[24, 24, 1, 1], seed) / 3.).unwrap();
            Conv2d::new(&kernel, None, Shape::new(1, 0)).unwrap()
        };
        let layers = [5, 6, 7].map(layer);
        let attention = SelfAttention::new(layers.clone(), 3);
        let other = |x: &Tensor| {
            let flat =
                |layer: &Conv2d| layer.forward(&x.detach()).unwrap().flatten_from(2).unwrap();
            let [q, k, v] = layers.each_ref().map(flat);
            let y = composed::attend((&q, &k, &v), 3).unwrap().reshape(x.shape()).unwrap();
            let layers = layers.clone();
            twin(x, y, move |y, g| {
                let g = g.flatten_from(2).unwrap();
                let (q, k, v) = composed::attend_gradients((&q, &k, &v), 3, &g).unwrap();
                let back = |layer: &Conv2d, g: Tensor| {
                    layer.input_gradient(&g.reshape(y.shape()).unwrap(), (6, 7)).unwrap()
                };
                let [one, two, three] = layers.each_ref();
                ((back(one, q) + back(two, k)).unwrap() + back(three, v)).unwrap()
            })
        };
        assert_twins(&x, |x| attention.forward(x).unwrap(), other, "self-attention");
    }

    #[test]
    fn looking_at_a_text_and_its_twins_agree() {
        let x = values(&[2, 24, 6, 7], 1);
        let (key, value) = (values(&[2, 24, 77], 2), values(&[2, 24, 77], 3));
        let flat = |x: &Tensor| x.detach().flatten_from(2).unwrap();
        let other = |x: &Tensor| {
            let (q, k, v) = (flat(x), key.clone(), value.clone());
            let y = composed::attend((&q, &k, &v), 3).unwrap().reshape(x.shape()).unwrap();
            twin(x, y, move |y, g| {
                let g = g.flatten_from(2).unwrap();
                let q = composed::attend_gradients((&q, &k, &v), 3, &g).unwrap().0;
                q.reshape(y.shape()).unwrap()
            })
        };
        let text = |x: &Tensor| attend_text(x, (&key, &value), 3).unwrap();
        assert_twins(&x, text, other, "attention over a text");
        let other = |x: &Tensor| {
            let (k, shape) = (key.clone(), x.shape().clone());
            let y = composed::probabilities(&flat(x), &k, 3).unwrap();
            twin(x, y, move |y, g| {
                composed::probabilities_gradient(y, g, &k).unwrap().reshape(&shape).unwrap()
            })
        };
        assert_twins(&x, |x| probabilities(x, &key, 3).unwrap(), other, "probabilities");
        let p = probabilities(&x, &key, 3).unwrap();
        let other = |p: &Tensor| {
            let v = value.clone();
            let y = composed::apply_probabilities(&p.detach(), &v).unwrap();
            twin(p, y, move |_, g| composed::apply_gradient(g, &v, 3).unwrap())
        };
        let one = |p: &Tensor| apply_probabilities(p, &value).unwrap();
        assert_twins(&p, one, other, "what is looked at");
        let other = |p: &Tensor| p.mean(1).unwrap();
        assert_twins(&p, |p| mean_of_heads(p).unwrap(), other, "the mean over heads");
    }
}
