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
    let mut search = Search { words, found: Vec::new(), last: None, unknown: Vec::new() };
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
    /// The subject that the phrase before gave, if it gave one.
    last: Option<usize>,
    unknown: Vec<String>,
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
            if let Some(subject) = before.filter(|_| phrase.predicate) {
                self.found[subject].0.attributes.extend::<Vec<_>>(attributes);
            }
            return;
        }
        if phrase.style {
            return;
        }
        let Some((head, sure)) = self.head(phrase, before.is_some()) else { return };
        let mut subject = self.subject(head);
        subject.word = self.name(phrase, head);
        let same = |other: &(FoundSubject, Sure)| {
            other.0.subject.word == subject.word
                && (attributes_of(&other.0) == words_of(&attributes) || attributes.is_empty())
        };
        if let Some(at) = self.found.iter().position(same) {
            self.last = Some(at);
            return;
        }
        self.last = Some(self.found.len());
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
        match role {
            Role::Noun(Thing::Yes) => Some((last, Sure::Yes)),
            Role::Noun(Thing::Maybe) => Some((last, Sure::Unclear)),
            Role::Compound if matches!(before.last(), Some((_, Role::Noun(_)))) => {
                Some((last, Sure::Yes))
            }
            // "a cat photo", but not "an oil painting".
            Role::Media => {
                let &(at, role) = before.last()?;
                let thing = role == Role::Noun(Thing::Yes) && !phrase.of;
                (thing && !List::Technique.has(&self.words[at].text)).then_some((at, Sure::Unclear))
            }
            Role::Unknown => {
                let guess = phrase.determined
                    || match phrase.opening {
                        Opening::Start | Opening::Of | Opening::Verb => true,
                        Opening::And => coordinated,
                        Opening::Mark => phrase.acts,
                        Opening::Preposition => false,
                    };
                if guess {
                    return Some((last, Sure::Guessed));
                }
                self.unknown.push(self.words[last].text.clone());
                None
            }
            _ => None,
        }
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
            (Doubt::Unknown { words: self.unknown }),
            (Doubt::Dropped { words: dropped }),
        ];
        let said = |doubt: &Doubt| match doubt {
            Doubt::Guessed { words }
            | Doubt::Unclear { words }
            | Doubt::Unknown { words }
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

fn attributes_of(found: &FoundSubject) -> Vec<&str> {
    words_of(&found.attributes)
}
