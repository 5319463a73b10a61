//! The prompts of the paper's evaluation (Attend-and-Excite, section 5), with their subjects.
//!
//! 276: pairs of 12 animals (66), each animal with each of 12 objects (144), pairs of objects (66). Their
//! only article is "a", also where English has another or none: `a elephant`, `a glasses`.

/// One prompt a line: the prompt, and the positions of its subjects.
const LINES: &str = include_str!("paper_prompts.tsv");

/// Which of the paper's three sets a prompt is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PaperSubset {
    /// "a cat and a dog".
    Animals,
    /// "a cat and a blue backpack", or without a colour "a cat with a crown".
    AnimalsObjects,
    /// "a gray backpack and a green clock".
    Objects,
}

impl PaperSubset {
    /// Its name: `animals`, `animals_objects` or `objects`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Animals => "animals",
            Self::AnimalsObjects => "animals_objects",
            Self::Objects => "objects",
        }
    }
}

/// What an image of one of the paper's prompts has to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PaperSubject {
    /// The noun, one token.
    pub word: &'static str,
    /// Its position among the 77 tokens.
    pub index: u32,
    /// Its colour, the word before it.
    pub colour: Option<&'static str>,
}

/// A prompt of the paper's evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PaperPrompt {
    /// The text.
    pub text: &'static str,
    /// Where it belongs.
    pub subset: PaperSubset,
    /// Both, in the order of the text.
    pub subjects: [PaperSubject; 2],
}

/// All 276, the paper's subsets one after the other.
pub fn paper_prompts() -> impl Iterator<Item = PaperPrompt> {
    LINES.lines().filter_map(|line| {
        let (text, indices) = line.split_once('\t')?;
        let (first, second) = indices.split_once(' ')?;
        let subjects = [subject(text, first)?, subject(text, second)?];
        let subset = match (first, second) {
            ("3", _) => PaperSubset::Objects,
            (_, "6") => PaperSubset::AnimalsObjects,
            _ if text.contains(" with ") => PaperSubset::AnimalsObjects,
            _ => PaperSubset::Animals,
        };
        Some(PaperPrompt { text, subset, subjects })
    })
}

/// Each word is one token, and the first comes after the token that begins every text.
fn subject(text: &'static str, index: &str) -> Option<PaperSubject> {
    let index: u32 = index.parse().ok()?;
    let at = usize::try_from(index).ok()?.checked_sub(1)?;
    let mut words = text.split(' ').skip(at.checked_sub(1)?);
    let colour = words.next().filter(|word| *word != "a");
    Some(PaperSubject { word: words.next()?, index, colour })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn every_line_is_a_prompt_with_two_subjects() {
        let all: Vec<PaperPrompt> = paper_prompts().collect();
        assert_eq!(all.len(), LINES.lines().count());
        let mut counts = BTreeMap::new();
        for prompt in &all {
            *counts.entry(prompt.subset.as_str()).or_insert(0) += 1;
        }
        assert_eq!(
            counts,
            BTreeMap::from([("animals", 66), ("animals_objects", 144), ("objects", 66)])
        );
        assert_eq!(all.iter().map(|prompt| prompt.text).collect::<BTreeSet<_>>().len(), 276);
        let words: BTreeSet<_> = all.iter().flat_map(|p| p.subjects.map(|s| s.word)).collect();
        assert_eq!(words.len(), 24);
        let colours: BTreeSet<_> = all.iter().flat_map(|p| p.subjects.map(|s| s.colour)).collect();
        assert_eq!(colours.len(), 12, "eleven, and none: {colours:?}");
    }

    #[test]
    fn subjects_are_where_their_colours_say() {
        let of = |text| paper_prompts().find(|prompt| prompt.text == text).map(|p| p.subjects);
        let subject = |word, index, colour| PaperSubject { word, index, colour };
        let cat = subject("cat", 2, None);
        assert_eq!(of("a cat and a dog"), Some([cat, subject("dog", 5, None)]));
        assert_eq!(of("a cat with a crown"), Some([cat, subject("crown", 5, None)]));
        let backpack = subject("backpack", 6, Some("blue"));
        assert_eq!(of("a cat and a blue backpack"), Some([cat, backpack]));
        let both = [subject("backpack", 3, Some("gray")), subject("clock", 7, Some("green"))];
        assert_eq!(of("a gray backpack and a green clock"), Some(both));
    }

    /// A prompt that changes is another set.
    #[test]
    fn the_set_is_the_published_one() {
        let digest = format!("{:x}", Sha256::digest(LINES));
        assert_eq!(digest, "f59884ca58905d4b7442e34d4fdef51a1e020c1cb017ae371240aed6671568ec");
    }
}
