//! StructureDiffusion (Feng et al., ICLR 2023): cross-attention looks by the prompt's keys and takes
//! values in which every noun phrase was encoded on its own.
//!
//! The authors add up one attention a phrase and divide: all with the same probabilities, so by
//! linearity that is one attention with the mean of the values. It costs nothing but the text
//! encoder's work. This is their default, without the option for conjunctions.

use candle_core::{Result, Tensor};
use excite_jobs::NounPhrase;

/// The states that the values are made of: the mean of the prompt's, `[1, 77, d]`, and of copies of
/// them whose rows `start..end` of a phrase are those of its own encoding.
///
/// # Errors
/// If a phrase lies outside the 77 tokens, or the tensor library fails.
pub(crate) fn value_states(prompt: &Tensor, phrases: &[(&NounPhrase, Tensor)]) -> Result<Tensor> {
    let mut sum = prompt.clone();
    for (phrase, states) in phrases {
        let (start, end) = (phrase.start as usize, phrase.end as usize);
        let tokens = prompt.dim(1)?;
        if start >= end || end > tokens {
            candle_core::bail!("phrase `{}` at {start}..{end} of {tokens} tokens", phrase.text);
        }
        // Behind the start token, which both texts have.
        let own = states.narrow(1, 1, end - start)?;
        let before = prompt.narrow(1, 0, start)?;
        let copy = match tokens - end {
            0 => Tensor::cat(&[&before, &own], 1)?,
            rest => Tensor::cat(&[&before, &own, &prompt.narrow(1, end, rest)?], 1)?,
        };
        sum = (sum + copy)?;
    }
    sum / (phrases.len() + 1) as f64
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// Rows of one channel.
    fn rows(values: &[f32]) -> Tensor {
        Tensor::from_vec(values.to_vec(), (1, values.len(), 1), &Device::Cpu).unwrap()
    }

    #[test]
    fn values_are_the_mean_of_the_prompt_and_a_copy_a_phrase() {
        let phrase = |start, end| NounPhrase { text: "x".into(), start, end };
        let prompt = rows(&[1., 2., 3., 4., 5., 6.]);
        let (first, last) = (phrase(1, 3), phrase(4, 6));
        let phrases = [
            (&first, rows(&[9., 20., 30., 9., 9., 9.])),
            (&last, rows(&[9., 50., 60., 9., 9., 9.])),
        ];
        let got = value_states(&prompt, &phrases).unwrap().flatten_all().unwrap();
        let want = [1., (2. + 20. + 2.) / 3., 12., 4., (5. + 5. + 50.) / 3., 24.];
        for (got, want) in got.to_vec1::<f32>().unwrap().into_iter().zip(want) {
            assert!((got - want).abs() < 1e-6, "{got}, not {want}");
        }
        let none = value_states(&prompt, &[]).unwrap();
        assert_eq!(none.to_vec3::<f32>().unwrap(), prompt.to_vec3::<f32>().unwrap());
        assert!(value_states(&prompt, &[(&phrase(4, 9), prompt.clone())]).is_err());
    }
}
