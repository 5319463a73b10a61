//! Composable Diffusion (Liu et al., ECCV 2022): every phrase has a prediction of its own, all of
//! the same latents, and they are added up.
//!
//! Plain classifier-free guidance is the case of one phrase, the prompt.

use candle_core::{Result, Tensor};
use excite_prompt::{Encoding, Subject};

/// `e_u + sum w_j (e_j - e_u)`; where there is no unconditional prediction, the only conditional
/// one.
///
/// # Errors
/// If there is no conditional prediction, or the tensor library fails.
pub(crate) fn combine(
    unconditional: Option<&Tensor>,
    conditional: &[(Tensor, f64)],
) -> Result<Tensor> {
    let Some(unconditional) = unconditional else {
        return match conditional {
            [(only, _)] => Ok(only.clone()),
            _ => {
                candle_core::bail!("{} predictions without an unconditional one", conditional.len())
            }
        };
    };
    conditional.iter().try_fold(unconditional.clone(), |sum, (prediction, weight)| {
        sum + ((prediction - unconditional)? * *weight)?
    })
}

/// A subject where it stands in a phrase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Which subject of the spec.
    pub(crate) subject: usize,
    /// Which phrase.
    pub(crate) phrase: usize,
    /// The same word, with its positions in the phrase.
    pub(crate) word: Subject,
}

/// Finds the words of the subjects in the phrases; the same word twice is looked for twice. What is
/// in none has no place.
pub(crate) fn places(prompt: &Encoding, subjects: &[Subject], phrases: &[Encoding]) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    for (number, subject) in subjects.iter().enumerate() {
        // By its words there: it may have a name of its own.
        let Ok(there) = prompt.subject_at(&subject.indices) else { continue };
        let place = phrases.iter().enumerate().find_map(|(phrase, encoding)| {
            let found = (1..=encoding.words.len()).map_while(|occurrence| {
                encoding.subject(&format!("{}#{occurrence}", there.word)).ok()
            });
            let taken = |word: &Subject| {
                places.iter().any(|p| p.phrase == phrase && p.word.indices == word.indices)
            };
            let word = found.into_iter().find(|word| !taken(word))?;
            Some(Place { subject: number, phrase, word })
        });
        places.extend(place);
    }
    places
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use excite_prompt::{CLIP_MERGES, CLIP_VOCAB, Tokenizer, find_subjects};

    use super::*;

    #[test]
    fn predictions_are_added_with_their_weights() {
        let of = |values: [f32; 2]| Tensor::new(&values, &Device::Cpu).unwrap();
        let values = |t: Tensor| t.to_vec1::<f32>().unwrap();
        let (u, a, b) = (of([1., 2.]), of([2., 4.]), of([0., 5.]));
        let got = combine(Some(&u), &[(a.clone(), 7.5), (b.clone(), -2.)]).unwrap();
        assert_eq!(values(got), [1. + 7.5 + 2., 2. + 15. - 6.]);
        assert_eq!(values(combine(None, &[(a.clone(), 1.)]).unwrap()), [2., 4.]);
        assert!(combine(None, &[(a, 1.), (b, 1.)]).is_err());
    }

    #[test]
    fn subjects_are_found_in_the_phrases() {
        let tokenizer = Tokenizer::new(CLIP_VOCAB, CLIP_MERGES, None).unwrap();
        let of = |prompt: &str, phrases: &[&str]| {
            let encoding = tokenizer.encode(prompt).unwrap();
            let found = find_subjects(&encoding).subjects;
            let subjects: Vec<Subject> = found.into_iter().map(|found| found.subject).collect();
            let phrases: Vec<Encoding> =
                phrases.iter().map(|text| tokenizer.encode(text).unwrap()).collect();
            let places = places(&encoding, &subjects, &phrases);
            places.into_iter().map(|p| (p.subject, p.phrase, p.word.indices)).collect::<Vec<_>>()
        };
        let got = of("a cat and a red car", &["a cat", "a red car"]);
        assert_eq!(got, [(0, 0, vec![2]), (1, 1, vec![3])]);
        let got = of("a red car and a blue car", &["a red car", "a blue car"]);
        assert_eq!(got, [(0, 0, vec![3]), (1, 1, vec![3])]);
        let got = of("a cat and a frog", &["a frog in a pond"]);
        assert_eq!(got, [(1, 0, vec![2])]);
    }
}
