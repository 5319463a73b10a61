//! Parts of a prompt that can stand alone: what is composed, and noun phrases with their tokens.

use std::ops::Range;

use crate::phrases::phrases;
use crate::sentence::Sentence;
use crate::subject::SubjectError;
use crate::tokenizer::{Encoding, Word};
use crate::words::Role;

/// A part of a prompt that is a prompt of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptPart {
    /// As given, without what joins it to the others.
    pub text: String,
    /// Behind `NOT`.
    pub negated: bool,
    /// What stands behind its colon.
    pub weight: Option<f64>,
}

/// A noun phrase of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptPhrase {
    /// Its words, lower-case.
    pub text: String,
    /// Positions among the 77.
    pub tokens: Range<usize>,
}

/// The parts of a prompt: between `AND` and `NOT` in capitals, each with a weight if it ends with
/// one (`a cat :5 AND a frog NOT a dog`); without those, between `and`; without that, between
/// `with`. A prompt that nothing parts is its only part.
pub fn split_prompt(prompt: &str) -> Vec<PromptPart> {
    let plain = |text: &str| PromptPart { text: text.to_owned(), negated: false, weight: None };
    let marked = pieces(prompt, &["AND", "NOT"]);
    if marked.iter().any(|(mark, _)| mark.is_some()) {
        let part = |(mark, text): &(Option<&str>, &str)| {
            let (text, weight) = match text.rsplit_once(':') {
                Some((text, number)) => match number.trim().parse() {
                    Ok(weight) => (text.trim(), Some(weight)),
                    Err(_) => (text.trim(), None),
                },
                None => (*text, None),
            };
            PromptPart { text: text.to_owned(), negated: *mark == Some("NOT"), weight }
        };
        return marked.iter().filter(|(_, text)| !text.is_empty()).map(part).collect();
    }
    for word in ["and", "with"] {
        let parts = pieces(prompt, &[word]);
        let parts: Vec<_> = parts.iter().filter(|(_, text)| !text.is_empty()).collect();
        if parts.len() > 1 {
            return parts.into_iter().map(|(_, text)| plain(text)).collect();
        }
    }
    vec![plain(prompt.trim())]
}

/// The texts between words that are one of `marks`, each with the mark before it.
fn pieces<'a>(prompt: &'a str, marks: &[&'a str]) -> Vec<(Option<&'a str>, &'a str)> {
    let (mut pieces, mut mark, mut start) = (Vec::new(), None, 0);
    for word in prompt.split_whitespace() {
        let Some(found) = marks.iter().find(|known| **known == word) else { continue };
        // Where the word stands, since both are slices of the same text.
        let at = word.as_ptr() as usize - prompt.as_ptr() as usize;
        pieces.push((mark, prompt[start..at].trim()));
        (mark, start) = (Some(*found), at + word.len());
    }
    pieces.push((mark, prompt[start..].trim()));
    pieces
}

/// The noun phrases of more than one word, in the order of the prompt: a noun with what is said
/// before it and its article. Phrases that hold others (`a bear with a crown`) are not among them.
pub fn noun_phrases(encoding: &Encoding) -> Vec<PromptPhrase> {
    let words = &encoding.words;
    let sentence = Sentence::new(words);
    let begins = |at: usize| {
        let article = sentence.reading(at).is_some_and(|reading| reading.role == Role::Determiner);
        article || sentence.text(at).chars().all(char::is_numeric)
    };
    let mut found = Vec::new();
    for phrase in phrases(words) {
        let nouns = phrase.nouns.iter().map(|(at, _)| *at);
        let Some(last) = nouns.clone().max() else { continue };
        let mut first = nouns.chain(phrase.attributes.iter().copied()).min().unwrap_or(last);
        while first > 0 && begins(first - 1) {
            first -= 1;
        }
        if let Some(words) = words.get(first..=last)
            && words.len() > 1
        {
            found.push(joined(words));
        }
    }
    found
}

impl Encoding {
    /// Where the words of a phrase stand together: `a red car`, `a cat#2` (the second time).
    ///
    /// # Errors
    /// If they do not, or do several times and none was chosen.
    pub fn phrase(&self, request: &str) -> Result<PromptPhrase, SubjectError> {
        let last = self.subject(request)?;
        let end = last.indices.last().map_or(0, |index| *index as usize + 1);
        let count = last.word.split(' ').count();
        let at = self.words.iter().position(|word| word.tokens.end == end);
        let words = at.and_then(|at| self.words.get((at + 1).saturating_sub(count)..=at));
        words.map(joined).ok_or(SubjectError::Empty)
    }
}

fn joined(words: &[Word]) -> PromptPhrase {
    let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
    let start = words.first().map_or(0, |word| word.tokens.start);
    let end = words.last().map_or(start, |word| word.tokens.end);
    PromptPhrase { text: texts.join(" "), tokens: start..end }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paper::paper_prompts;
    use crate::tokenizer::{CLIP_MERGES, CLIP_VOCAB, Tokenizer};

    fn texts(prompt: &str) -> Vec<String> {
        split_prompt(prompt).into_iter().map(|part| part.text).collect()
    }

    #[test]
    fn prompts_part_at_and_else_at_with() {
        assert_eq!(texts("a cat and a frog"), ["a cat", "a frog"]);
        assert_eq!(texts("a cat and a dog with a bow"), ["a cat", "a dog with a bow"]);
        assert_eq!(texts("a bear with a crown"), ["a bear", "a crown"]);
        assert_eq!(texts("a cat, a dog and a frog and a car"), ["a cat, a dog", "a frog", "a car"]);
        assert_eq!(texts("  sandy island "), ["sandy island"]);
        assert_eq!(texts("and"), ["and"]);
        for prompt in paper_prompts() {
            assert_eq!(texts(prompt.text).len(), 2, "{}", prompt.text);
        }
    }

    #[test]
    fn capitals_compose_with_weights() {
        let parts = split_prompt("a cat :5 AND a pond and reeds NOT a frog :-2 NOT dogs: big");
        let parts: Vec<_> =
            parts.iter().map(|part| (part.text.as_str(), part.negated, part.weight)).collect();
        assert_eq!(
            parts,
            [
                ("a cat", false, Some(5.)),
                ("a pond and reeds", false, None),
                ("a frog", true, Some(-2.)),
                ("dogs", true, None)
            ]
        );
    }

    #[test]
    fn noun_phrases_have_their_tokens() {
        let tokenizer = Tokenizer::new(CLIP_VOCAB, CLIP_MERGES, None).unwrap();
        let found = |prompt: &str| -> Vec<(String, Range<usize>)> {
            let encoding = tokenizer.encode(prompt).unwrap();
            noun_phrases(&encoding).into_iter().map(|p| (p.text, p.tokens)).collect()
        };
        type Row = (&'static str, Vec<(&'static str, Range<usize>)>);
        #[rustfmt::skip]
        let table: [Row; 5] = [
            ("a cat and a frog",              vec![("a cat", 1..3), ("a frog", 4..6)]),
            ("A red car and a spiky porcupine on the street",
             vec![("a red car", 1..4), ("a spiky porcupine", 5..11), ("the street", 12..14)]),
            ("a bear with a crown",           vec![("a bear", 1..3), ("a crown", 4..6)]),
            ("cats",                          vec![]),
            ("two white cats sleeping",       vec![("two white cats", 1..4)]),
        ];
        for (prompt, want) in table {
            let got = found(prompt);
            let got: Vec<_> =
                got.iter().map(|(text, range)| (text.as_str(), range.clone())).collect();
            assert_eq!(got, want, "{prompt}");
        }
        for prompt in paper_prompts() {
            assert_eq!(found(prompt.text).len(), 2, "{}", prompt.text);
        }
        let encoding = tokenizer.encode("a cat and a cat with a sombrero hat").unwrap();
        let phrase = |text: &str| encoding.phrase(text).map(|phrase| phrase.tokens);
        assert_eq!(phrase("a cat#2"), Ok(4..6));
        assert_eq!(phrase("A sombrero hat"), Ok(7..11));
        assert!(matches!(phrase("a cat"), Err(SubjectError::Ambiguous { .. })));
        assert!(matches!(phrase("cat hat"), Err(SubjectError::NotInPrompt { .. })));
    }
}
