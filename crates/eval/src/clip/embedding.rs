//! Where a picture or a text lies for a CLIP: a direction.

use candle_core::Tensor;

use crate::error::{Error, Result};

/// A vector of length 1. Embeddings compare only with those of the same model.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding(Vec<f32>);

impl Embedding {
    /// The direction of `feature`, whatever its shape.
    ///
    /// # Errors
    /// If a value is not finite or all are 0; `what` is then named.
    pub(super) fn of(feature: &Tensor, what: &str) -> Result<Self> {
        let values = feature.flatten_all()?.to_vec1::<f32>()?;
        Self::unit(values.iter().map(|v| f64::from(*v)).collect(), what)
    }

    fn unit(values: Vec<f64>, what: &str) -> Result<Self> {
        let length = values.iter().map(|v| v * v).sum::<f64>().sqrt();
        if !length.is_finite() || length == 0. {
            return Err(Error::NoDirection(what.to_owned()));
        }
        Ok(Self(values.iter().map(|v| (v / length) as f32).collect()))
    }

    /// The direction of the mean of embeddings of one model.
    ///
    /// # Errors
    /// If there are none, or they cancel out.
    pub fn mean(of: &[Self]) -> Result<Self> {
        let mut sum = vec![0f64; of.first().map_or(0, |first| first.0.len())];
        for embedding in of {
            for (sum, value) in sum.iter_mut().zip(&embedding.0) {
                *sum += f64::from(*value);
            }
        }
        Self::unit(sum, "a mean of texts")
    }

    /// The cosine of the angle to another embedding, -1..1.
    pub fn cosine(&self, other: &Self) -> f32 {
        let products = self.0.iter().zip(&other.0).map(|(a, b)| f64::from(*a) * f64::from(*b));
        products.sum::<f64>() as f32
    }

    /// The coordinates.
    pub fn values(&self) -> &[f32] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn of(values: &[f32]) -> Result<Embedding> {
        Embedding::of(&Tensor::new(values, &Device::Cpu).unwrap(), "a test")
    }

    #[test]
    fn embeddings_have_length_one_and_means_too() {
        let (x, y) = (of(&[3., 4.]).unwrap(), of(&[-4., 3.]).unwrap());
        assert_eq!(x.values(), [0.6, 0.8]);
        assert!(x.cosine(&y).abs() < 1e-7);
        let mean = Embedding::mean(&[x.clone(), y]).unwrap();
        assert!((mean.cosine(&x) - 0.5f32.sqrt()).abs() < 1e-6);
    }

    #[test]
    fn what_has_no_direction_is_an_error() {
        for values in [&[0., 0.][..], &[f32::NAN, 1.], &[f32::INFINITY, 1.], &[]] {
            let error = of(values).unwrap_err();
            assert!(error.to_string().contains("a test"), "{error}");
        }
        let x = of(&[1., 0.]).unwrap();
        assert!(Embedding::mean(&[]).is_err());
        assert!(Embedding::mean(&[x, of(&[-1., 0.]).unwrap()]).is_err());
    }
}
