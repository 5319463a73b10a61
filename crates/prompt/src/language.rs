//! Whether a prompt is English, as far as one can tell from a few words.

use crate::lexicon;
use crate::tokenizer::Word;
use crate::words::{List, Reading, Role};

/// Whether the words are rather of another language: another script, another language's little
/// words, or hardly a word that is known.
pub(crate) fn is_foreign(words: &[Word]) -> bool {
    let words: Vec<&str> = words
        .iter()
        .map(|word| word.text.as_str())
        .filter(|word| word.chars().all(char::is_alphabetic))
        .collect();
    let letters = words.iter().flat_map(|word| word.chars());
    let (mut latin, mut other) = (0, 0);
    for letter in letters {
        // Latin ends before Greek.
        *(if letter < '\u{370}' { &mut latin } else { &mut other }) += 1;
    }
    if other > latin {
        return true;
    }
    let count = |is: &dyn Fn(&str) -> bool| words.iter().filter(|word| is(word)).count();
    let english = count(&|word| List::English.has(word));
    let foreign = count(&|word| List::Foreign.has(word));
    let unknown = count(&|word| {
        // The lexicon is asked first: it has nearly all words, and reading them takes long.
        let known = List::Foreign.has(word)
            || lexicon::has(word)
            || Reading::of(word).role != Role::Unknown;
        !known || !word.is_ascii()
    });
    let rest = foreign + unknown;
    // One such word may be of a name: "Los Angeles".
    let little = foreign > english
        && (foreign > 1 && rest * 3 >= words.len() || words.len() > 3 && rest * 2 > words.len());
    let strange = english == 0 && words.len() > 2 && unknown * 3 > words.len() * 2;
    little || strange
}
