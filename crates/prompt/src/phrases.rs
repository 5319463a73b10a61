//! Cuts a prompt into noun phrases: attributes, nouns, and what stands around them.

use crate::lexicon::{Form, Part, Thing, sounds_like_adjective};
use crate::sentence::{Mark, Sentence};
use crate::tokenizer::Word;
use crate::words::{Reading, Role};

/// What came before a phrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    /// The prompt begins.
    Start,
    /// A comma or other mark.
    Mark,
    /// `and` behind a phrase.
    And,
    /// A word such as `in`.
    Preposition,
    /// `with`, `like`, `as`
    With,
    /// `of`
    Of,
    /// `of` behind what an image is: *portrait*.
    OfMedia,
    /// A verb.
    Verb,
}

/// Words that belong to one noun, the last of them.
#[derive(Debug, Clone)]
pub(crate) struct Phrase {
    pub(crate) opening: Opening,
    /// Begins with `a`, a number, ...
    pub(crate) determined: bool,
    /// Behind `no` or `without`.
    pub(crate) negated: bool,
    /// Numbers of the words said of the noun.
    pub(crate) attributes: Vec<usize>,
    /// Numbers of the nouns, with what each is.
    pub(crate) nouns: Vec<(usize, Role)>,
    /// A verb follows.
    pub(crate) acts: bool,
    /// `of` follows.
    pub(crate) of: bool,
    /// `is` stands before it.
    pub(crate) predicate: bool,
}

impl Phrase {
    fn new(opening: Opening) -> Self {
        Self {
            opening,
            determined: false,
            negated: false,
            attributes: Vec::new(),
            nouns: Vec::new(),
            acts: false,
            of: false,
            predicate: false,
        }
    }

    fn is_empty(&self) -> bool {
        self.attributes.is_empty() && self.nouns.is_empty()
    }

    fn last(&self) -> Option<(usize, Role)> {
        self.nouns.last().copied()
    }

    /// Has attributes and waits for its noun.
    fn waits(&self) -> bool {
        self.nouns.is_empty() && !self.attributes.is_empty()
    }
}

/// All phrases of a prompt, in order.
pub(crate) fn phrases(words: &[Word]) -> Vec<Phrase> {
    let mut cutter = Cutter {
        sentence: Sentence::new(words),
        phrase: Phrase::new(Opening::Start),
        phrases: Vec::new(),
    };
    let mut at = 0;
    while at < words.len() {
        at = cutter.step(at);
    }
    cutter.close(Opening::Mark);
    cutter.phrases
}

struct Cutter<'a> {
    sentence: Sentence<'a>,
    phrase: Phrase,
    phrases: Vec<Phrase>,
}

impl Cutter<'_> {
    fn close(&mut self, next: Opening) {
        let phrase = std::mem::replace(&mut self.phrase, Phrase::new(next));
        // "without people or cars", "without looking at cars", but "no, a car"
        let goes_on = if phrase.is_empty() { next != Opening::Mark } else { next == Opening::And };
        self.phrase.negated = phrase.negated && goes_on;
        if !phrase.is_empty() {
            self.phrases.push(phrase);
        }
    }

    fn close_before_verb(&mut self) {
        self.phrase.acts = true;
        self.close(Opening::Verb);
    }

    fn noun(&mut self, at: usize, role: Role) {
        self.phrase.nouns.push((at, role));
    }

    /// Handles the word at `at`, and those behind that go with it; gives the next.
    fn step(&mut self, at: usize) -> usize {
        if let Some(end) = self.sentence.end_of_lettering(at) {
            self.close(Opening::Mark);
            return end;
        }
        match self.sentence.mark(at) {
            Some(Mark::Nothing | Mark::Joins) => {}
            Some(Mark::And) => self.and(at),
            Some(Mark::Owns) => {
                // Whoever owns it is not what is shown: "the wizard's tower".
                self.phrase.attributes.clear();
                self.phrase.nouns.clear();
                self.phrase.determined = true;
                return if self.sentence.text(at + 1) == "s" { at + 2 } else { at + 1 };
            }
            Some(Mark::Option) => {
                self.close(Opening::Mark);
                // Its value may be a word: "--no people".
                let value = self.sentence.mark(at + 2).is_none();
                return if value { at + 3 } else { at + 2 };
            }
            Some(Mark::Cuts) => {
                // "a red, shiny apple" goes on behind the comma.
                let comma = self.sentence.text(at) == "," && self.phrase.determined;
                if !(comma && self.phrase.waits() && self.sentence.phrase_follows(at)) {
                    self.close(Opening::Mark);
                }
            }
            None if self.sentence.text(at).chars().all(char::is_numeric) => self.number(at),
            None => return self.word(at),
        }
        at + 1
    }

    fn number(&mut self, at: usize) {
        let counts = self.phrase.nouns.is_empty();
        if !counts {
            self.close(Opening::Mark);
        }
        // "3d", "50mm": what follows says how. "2girls" are girls.
        let next = self.sentence.reading(at + 1);
        self.phrase.determined = counts && next.is_some_and(|next| next.role != Role::Style);
    }

    /// "a black and white cat" goes on behind `and`.
    fn and(&mut self, at: usize) {
        if !(self.phrase.waits() && self.sentence.phrase_follows(at)) {
            self.close(Opening::And);
        }
    }

    fn word(&mut self, at: usize) -> usize {
        let Some(reading) = self.sentence.reading(at) else { return at + 1 };
        let text = self.sentence.text(at);
        // The "'t" of "isn't"; the "s" of "the 1920s".
        let letter = text.chars().nth(1).is_none() && reading.role == Role::Unknown;
        if text.starts_with('\'') || letter {
            return at + 1;
        }
        if self.sentence.is_played(at) {
            return at + 1;
        }
        if self.sentence.is_modal(at) {
            self.close_before_verb();
            return at + 1;
        }
        if self.sentence.is_technique(at) {
            return self.sentence.end_of_maker(at);
        }
        if self.sentence.is_name(at) {
            self.noun(at, Role::Noun(Thing::No));
            self.noun(at + 1, Role::Noun(Thing::Yes));
            return at + 2;
        }
        let before = self.phrase.last().map(|(at, _)| at);
        let follows = self.sentence.noun_follows(at);
        match reading.role {
            Role::Determiner => {
                if !self.phrase.is_empty() {
                    self.close(Opening::Verb);
                } else if self.phrase.opening == Opening::And {
                    // "without people and a dog" has a dog.
                    self.phrase.negated = false;
                }
                self.phrase.determined = true;
            }
            Role::Negation => {
                self.close(Opening::Mark);
                self.phrase.negated = true;
            }
            Role::Preposition => return self.preposition(at),
            Role::Copula => {
                self.close_before_verb();
                self.phrase.predicate = true;
            }
            Role::And => self.and(at),
            Role::Break => self.close_before_verb(),
            Role::Adverb if before.is_some() => self.close(Opening::Verb),
            Role::Adverb => {}
            Role::Attribute => self.attribute(at, reading),
            Role::Tint if follows => self.attribute(at, reading),
            Role::Tint => self.noun(at, Role::Noun(Thing::Yes)),
            Role::Participle => self.participle(at, reading),
            Role::Verb if reading.can_be_adjective() && follows => self.attribute(at, reading),
            Role::Verb if before.is_none() && self.phrase.determined => self.verb_as_noun(at),
            Role::Verb if before.is_some() && self.sentence.is_noun(at, before) => {
                self.verb_as_noun(at);
            }
            Role::Verb => self.close_before_verb(),
            Role::Measure if self.sentence.text(at + 1) == "of" => {
                self.phrase = Phrase { determined: true, ..Phrase::new(self.phrase.opening) };
                return at + 2;
            }
            Role::Noun(_) if self.sentence.is_verb(at, before) => self.close_before_verb(),
            // "a strapless dress"
            Role::Noun(_)
                if reading.can_be_adjective() && follows && sounds_like_adjective(text) =>
            {
                self.attribute(at, reading);
            }
            role => self.noun(at, role),
        }
        at + 1
    }

    fn preposition(&mut self, at: usize) -> usize {
        if self.sentence.names_a_maker(at) {
            self.close(Opening::Mark);
            return self.sentence.end_of_maker(at);
        }
        if self.sentence.text(at) != "of" {
            // A word that nobody knows is likely a place behind "in", not behind "with".
            let thing = matches!(self.sentence.text(at), "with" | "like" | "as");
            self.close(if thing { Opening::With } else { Opening::Preposition });
            return at + 1;
        }
        let media = matches!(self.phrase.last(), Some((_, Role::Media | Role::Style)));
        self.phrase.of = true;
        self.close(if media { Opening::OfMedia } else { Opening::Of });
        // "in the style of a master", "depth of field"
        let how = at > 0 && matches!(self.sentence.text(at - 1), "style" | "manner" | "depth");
        if how { self.sentence.end_of_maker(at) } else { at + 1 }
    }

    fn attribute(&mut self, at: usize, reading: Reading) {
        match self.phrase.last() {
            // "children flying kites"
            Some(_) if reading.is_form(Form::Ing) => return self.close_before_verb(),
            // "a cat white"
            Some((_, Role::Noun(_) | Role::Unknown)) if !self.sentence.is_joined(at) => {
                self.close(Opening::Verb);
            }
            // "the cat is sleeping"
            None if self.phrase.predicate && reading.is_form(Form::Ing) => {
                return self.close_before_verb();
            }
            // "a photo realistic cat"
            Some(_) if !self.sentence.is_joined(at) => self.phrase.nouns.clear(),
            _ => {}
        }
        let noun = |entry: crate::lexicon::Entry| {
            entry.first == Part::Noun && entry.noun == Some(Thing::Yes)
        };
        let head = self.phrase.determined && !self.sentence.noun_follows(at);
        if head && reading.entry.is_some_and(noun) {
            self.noun(at, Role::Noun(Thing::Maybe));
        } else {
            self.phrase.attributes.push(at);
        }
    }

    fn participle(&mut self, at: usize, reading: Reading) {
        let follows = self.sentence.noun_follows(at);
        let first = self.phrase.nouns.is_empty();
        // "the ball crashed right through"
        let aside = self.sentence.reading(at + 1).is_some_and(|next| next.role == Role::Relation);
        if reading.is_form(Form::Past) && (follows && !aside || first) {
            // "a snow covered hill": what it is covered with is no thing of its own.
            self.phrase.nouns.clear();
            self.phrase.attributes.push(at);
        } else if follows && first && self.phrase.determined {
            // "a fishing rod", but "a laughing man"
            let names = reading.entry.is_some_and(|entry| entry.noun.is_some() && !entry.adjective);
            if names {
                self.noun(at, Role::Noun(Thing::No));
            } else {
                self.phrase.attributes.push(at);
            }
        } else {
            self.close_before_verb();
        }
    }

    /// A word that is a verb more often: "a swan".
    fn verb_as_noun(&mut self, at: usize) {
        let noun = self.sentence.reading(at).and_then(|reading| reading.entry?.noun);
        self.noun(at, Role::Noun(noun.unwrap_or(Thing::No)));
    }
}
