//! The subjects of a prompt, when nobody named them: the nouns that name things.
//!
//! Every word gets a role out of its context, the roles are cut into phrases, and the last noun of
//! a phrase is its head. What is not sure is said.

use crate::found::{Doubt, Found, FoundSubject};
use crate::language::is_foreign;
use crate::lexicon::Thing;
use crate::phrases::{Opening, Phrase, phrases};
use crate::subject::{MAX_SUBJECTS, Subject};
use crate::tokenizer::{Encoding, Word};
use crate::words::{List, Role};

/// At most [`MAX_SUBJECTS`] subjects in the order of the prompt with their attributes, and what is
/// doubtful about them. A word that comes again counts once, unless other attributes tell the two
/// apart. Never fails: a prompt may have none.
pub fn find_subjects(encoding: &Encoding) -> Found {
    let words = &encoding.words;
    if is_foreign(words) {
        return Found { subjects: Vec::new(), doubts: vec![Doubt::NotEnglish] };
    }
    let mut search = Search { words, found: Vec::new(), last: None, skipped: Vec::new() };
    for phrase in phrases(words) {
        search.take(&phrase);
    }
    search.finish()
}

/// How well a head is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sure {
    Yes,
    Unclear,
    Guessed,
}

struct Search<'a> {
    words: &'a [Word],
    found: Vec<(FoundSubject, Sure)>,
    /// The subject that the phrase before gave, if it gave one, and whether what is said next may
    /// be said of it: not of the ears in "a cat with ears is black".
    last: Option<(usize, bool)>,
    /// Words that may be subjects and are not taken.
    skipped: Vec<String>,
}

impl Search<'_> {
    fn take(&mut self, phrase: &Phrase) {
        let before = self.last.take();
        if phrase.negated {
            return;
        }
        let attributes = phrase.attributes.iter().map(|&at| self.subject(at)).collect();
        if phrase.nouns.is_empty() {
            // "the car is red"
            if let Some((subject, _)) = before.filter(|before| phrase.predicate && before.1) {
                self.found[subject].0.attributes.extend::<Vec<_>>(attributes);
            }
            return;
        }
        let style = phrase.nouns.iter().any(|(_, role)| *role == Role::Style);
        let says_how = !phrase.determined && phrase.opening != Opening::Start;
        // "unreal engine" is no engine, "a fantasy castle" is a castle.
        if style && says_how {
            return;
        }
        let Some((head, sure)) = self.head(phrase, before.is_some()) else { return };
        let mut subject = self.subject(head);
        subject.word = self.name(phrase, head);
        let free = !matches!(phrase.opening, Opening::Preposition | Opening::With);
        // "a red van ... the van" is one, "a red cube on a blue cube" are two.
        let plain = attributes.is_empty();
        let bare = subject.word == self.words[head].text;
        let same = |(other, _): &(FoundSubject, Sure)| {
            let word = &other.subject.word;
            let ends = bare && word.rsplit(' ').next() == Some(subject.word.as_str());
            plain && ends
                || *word == subject.word
                    && (plain || words_of(&other.attributes) == words_of(&attributes))
        };
        if let Some(at) = self.found.iter().position(same) {
            self.last = Some((at, free));
            return;
        }
        self.last = Some((self.found.len(), free));
        self.found.push((FoundSubject { subject, attributes, sure: sure == Sure::Yes }, sure));
    }

    fn subject(&self, at: usize) -> Subject {
        let word = &self.words[at];
        Subject {
            word: word.text.clone(),
            indices: word.tokens.clone().map(|i| i as u32).collect(),
        }
    }

    /// The nouns that directly lead to the head, with it.
    fn name(&self, phrase: &Phrase, head: usize) -> String {
        let mut first = head;
        for &(at, _) in phrase.nouns.iter().rev().filter(|(at, _)| *at < head) {
            if at + 1 != first {
                break;
            }
            first = at;
        }
        let words: Vec<&str> =
            self.words[first..=head].iter().map(|word| word.text.as_str()).collect();
        words.join(" ")
    }

    fn head(&mut self, phrase: &Phrase, coordinated: bool) -> Option<(usize, Sure)> {
        let (&(last, role), before) = phrase.nouns.split_last()?;
        let behind = before.last().copied();
        // Where nothing says that a noun follows, a word must be known to be one.
        let stands_well = phrase.determined
            || match phrase.opening {
                Opening::Start | Opening::With | Opening::OfMedia | Opening::Verb => true,
                Opening::And => coordinated,
                Opening::Mark => phrase.acts,
                Opening::Preposition | Opening::Of => false,
            };
        let sure = match (role, behind) {
            (Role::Noun(Thing::Yes), _) => Sure::Yes,
            // "a traffic light", "a cake slice"
            (Role::Compound | Role::Measure, Some((_, Role::Noun(Thing::Yes)))) => Sure::Yes,
            (Role::Noun(Thing::Maybe), _) => Sure::Unclear,
            (Role::Unknown, _) => Sure::Guessed,
            // "a cat photo", but not "an oil painting"
            (Role::Media, Some((at, Role::Noun(Thing::Yes)))) => {
                let made = phrase.of || List::Technique.has(&self.words[at].text);
                return (!made).then_some((at, Sure::Unclear));
            }
            _ => return None,
        };
        if sure == Sure::Yes || stands_well {
            return Some((last, sure));
        }
        let word = &self.words[last].text;
        if !self.skipped.contains(word) {
            self.skipped.push(word.clone());
        }
        None
    }

    fn finish(mut self) -> Found {
        let dropped = self.found.split_off(self.found.len().min(MAX_SUBJECTS));
        let those = |sure| -> Vec<String> {
            let is = self.found.iter().filter(|found| found.1 == sure);
            is.map(|found| found.0.subject.word.clone()).collect()
        };
        let dropped = dropped.into_iter().map(|found| found.0.subject.word).collect();
        let doubts = [
            (Doubt::Guessed { words: those(Sure::Guessed) }),
            (Doubt::Unclear { words: those(Sure::Unclear) }),
            (Doubt::Skipped { words: self.skipped }),
            (Doubt::Dropped { words: dropped }),
        ];
        let said = |doubt: &Doubt| match doubt {
            Doubt::Guessed { words }
            | Doubt::Unclear { words }
            | Doubt::Skipped { words }
            | Doubt::Dropped { words } => !words.is_empty(),
            Doubt::NotEnglish => true,
        };
        Found {
            subjects: self.found.into_iter().map(|found| found.0).collect(),
            doubts: doubts.into_iter().filter(said).collect(),
        }
    }
}

fn words_of(attributes: &[Subject]) -> Vec<&str> {
    attributes.iter().map(|attribute| attribute.word.as_str()).collect()
}
