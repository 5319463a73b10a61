//! Cuts a prompt into noun phrases: attributes, nouns, and what stands around them.

use std::ops::Range;

use crate::lexicon::{Form, Part, Thing};
use crate::tokenizer::Word;
use crate::words::{List, Reading, Role};

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
    /// `of`
    Of,
    /// A verb.
    Verb,
}

/// Words that belong to one noun, the last of them.
#[derive(Debug, Clone)]
pub(crate) struct Phrase {
    pub(crate) opening: Opening,
    pub(crate) determined: bool,
    /// Behind `no` or `without`.
    pub(crate) negated: bool,
    /// Numbers of the words said of the noun.
    pub(crate) attributes: Vec<usize>,
    /// Numbers of the nouns, with what each is.
    pub(crate) nouns: Vec<(usize, Role)>,
    /// Whether a word of it says how the image should look.
    pub(crate) style: bool,
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
            style: false,
            acts: false,
            of: false,
            predicate: false,
        }
    }

    fn is_empty(&self) -> bool {
        self.attributes.is_empty() && self.nouns.is_empty() && !self.style
    }
}

/// All phrases of a prompt, in order.
pub(crate) fn phrases(words: &[Word]) -> Vec<Phrase> {
    let mut cutter = Cutter {
        readings: words.iter().map(|word| Reading::of(&word.text)).collect(),
        words,
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
    words: &'a [Word],
    readings: Vec<Reading>,
    phrase: Phrase,
    phrases: Vec<Phrase>,
}

/// What a mark does.
enum Mark {
    /// Brackets and quotes: nothing.
    Nothing,
    /// `-` between letters.
    Joins,
    /// `'` and `'s`
    Owns,
    Cuts,
}

impl Cutter<'_> {
    fn close(&mut self, next: Opening) {
        let phrase = std::mem::replace(&mut self.phrase, Phrase::new(next));
        if !phrase.is_empty() {
            self.phrases.push(phrase);
        } else if phrase.negated {
            self.phrase.negated = true;
        }
    }

    fn text(&self, at: usize) -> &str {
        self.words.get(at).map_or("", |word| word.text.as_str())
    }

    fn reading(&self, at: usize) -> Option<Reading> {
        self.readings.get(at).copied()
    }

    fn touches(&self, at: usize) -> Range<bool> {
        let span = &self.words[at].span;
        let before = at.checked_sub(1).is_some_and(|at| self.words[at].span.end == span.start);
        let behind = self.words.get(at + 1).is_some_and(|word| word.span.start == span.end);
        before..behind
    }

    fn mark(&self, at: usize) -> Option<Mark> {
        let text = self.text(at);
        let touches = self.touches(at);
        if text == "'s" || text == "’" && touches.end && self.text(at + 1) == "s" {
            return Some(Mark::Owns);
        }
        if text.chars().any(char::is_alphanumeric) {
            return None;
        }
        Some(match text {
            "-" | "–" | "‑" if touches.start && touches.end => Mark::Joins,
            "'" | "’" if touches.start && !touches.end && self.text(at - 1).ends_with('s') => {
                Mark::Owns
            }
            "&" | "+" => Mark::Nothing,
            _ if text.chars().all(|c| "()[]{}<>\"'*_“”‘’«»".contains(c)) => Mark::Nothing,
            _ => Mark::Cuts,
        })
    }

    /// Handles the word at `at`, and those behind that go with it; gives the next.
    fn step(&mut self, at: usize) -> usize {
        match self.mark(at) {
            Some(Mark::Nothing) if matches!(self.text(at), "&" | "+") => self.and(at),
            Some(Mark::Nothing | Mark::Joins) => {}
            Some(Mark::Owns) => {
                // Whoever owns it is not what is shown: "the wizard's tower".
                self.phrase.attributes.clear();
                self.phrase.nouns.clear();
                self.phrase.determined = true;
                return if self.text(at + 1) == "s" { at + 2 } else { at + 1 };
            }
            Some(Mark::Cuts) => self.comma(at),
            None if self.text(at).chars().all(char::is_numeric) => self.number(at),
            None => return self.word(at),
        }
        at + 1
    }

    fn number(&mut self, at: usize) {
        if !self.phrase.nouns.is_empty() {
            self.close(Opening::Mark);
        }
        // "3d", "50mm": what follows says how. "2girls" are girls.
        self.phrase.determined = self.reading(at + 1).is_some_and(|next| next.role != Role::Style);
    }

    /// "a red, shiny apple" goes on behind the comma.
    fn comma(&mut self, at: usize) {
        let goes_on = self.phrase.determined
            && self.phrase.nouns.is_empty()
            && !self.phrase.attributes.is_empty()
            && self.text(at) == ","
            && self.reading(at + 1).is_some_and(Reading::in_phrase);
        if !goes_on {
            self.close(Opening::Mark);
        }
    }

    /// "a black and white cat" goes on behind `and`.
    fn and(&mut self, at: usize) {
        let goes_on = self.phrase.nouns.is_empty()
            && !self.phrase.attributes.is_empty()
            && self.past_adverbs(at + 1).is_some_and(Reading::in_phrase);
        if !goes_on {
            self.close(Opening::And);
        }
    }

    fn past_adverbs(&self, at: usize) -> Option<Reading> {
        let mut rest = self.readings.get(at..)?.iter();
        rest.find(|reading| reading.role != Role::Adverb).copied()
    }

    fn word(&mut self, at: usize) -> usize {
        let Some(reading) = self.reading(at) else { return at + 1 };
        let after_noun = !self.phrase.nouns.is_empty();
        if List::Technique.has(self.text(at)) && self.text(at + 1) == "on" {
            // "oil on canvas"
            if matches!(self.text(at + 2), "canvas" | "paper" | "panel" | "board" | "linen") {
                return self.next_mark(at);
            }
        }
        if reading.in_phrase()
            && List::Name.has(&format!("{}_{}", self.text(at), self.text(at + 1)))
        {
            self.phrase
                .nouns
                .extend([(at, Role::Noun(Thing::No)), (at + 1, Role::Noun(Thing::Yes))]);
            return at + 2;
        }
        match reading.role {
            Role::Determiner => {
                if !self.phrase.is_empty() {
                    self.close(Opening::Verb);
                }
                self.phrase.determined = true;
            }
            Role::Negation => {
                self.close(Opening::Mark);
                self.phrase.negated = true;
            }
            Role::Preposition => return self.preposition(at),
            Role::Copula => {
                self.phrase.acts = true;
                self.close(Opening::Verb);
                self.phrase.predicate = true;
            }
            Role::And => self.and(at),
            Role::Break => {
                self.phrase.acts = true;
                self.close(Opening::Verb);
            }
            Role::Adverb if after_noun => self.close(Opening::Verb),
            Role::Adverb => {}
            Role::Style => self.phrase.style = true,
            Role::Attribute => self.attribute(at, reading),
            Role::Participle => self.participle(at, reading),
            Role::Verb if !after_noun && self.phrase.determined => self.verbal_noun(at, reading),
            Role::Verb if reading.can_be_adjective() && self.noun_follows(at) => {
                self.attribute(at, reading);
            }
            Role::Verb => {
                self.phrase.acts = true;
                self.close(Opening::Verb);
            }
            Role::Tint if self.noun_follows(at) => self.attribute(at, reading),
            Role::Tint => self.phrase.nouns.push((at, Role::Noun(Thing::Yes))),
            Role::Measure if self.text(at + 1) == "of" => {
                self.phrase = Phrase { determined: true, ..Phrase::new(self.phrase.opening) };
                return at + 2;
            }
            Role::Noun(_) if self.is_verb_here(at, reading) => {
                self.phrase.acts = true;
                self.close(Opening::Verb);
            }
            role => self.phrase.nouns.push((at, role)),
        }
        at + 1
    }

    fn preposition(&mut self, at: usize) -> usize {
        let text = self.text(at);
        if text == "by" && self.names_a_maker(at) {
            self.close(Opening::Mark);
            return self.next_mark(at);
        }
        if text == "of" {
            let style = at > 0 && matches!(self.text(at - 1), "style" | "manner" | "depth");
            self.phrase.of = true;
            self.close(Opening::Of);
            // "in the style of a master"
            return if style { self.next_mark(at) } else { at + 1 };
        }
        self.close(Opening::Preposition);
        at + 1
    }

    /// "by Claude Monet", not "by a lake" nor "surrounded by trees".
    fn names_a_maker(&self, at: usize) -> bool {
        let before = at.checked_sub(1);
        if before.is_none_or(|at| List::Artist.has(self.text(at)) || self.mark(at).is_some()) {
            return true;
        }
        let acted = before
            .and_then(|at| self.reading(at))
            .is_some_and(|reading| reading.is_form(Form::Past));
        let next = self.reading(at + 1).map(|next| next.role);
        !acted && !matches!(next, Some(Role::Determiner | Role::Noun(Thing::Yes)))
    }

    fn next_mark(&self, at: usize) -> usize {
        let cuts = |at: &usize| matches!(self.mark(*at), Some(Mark::Cuts));
        (at..self.words.len()).find(cuts).unwrap_or(self.words.len())
    }

    fn noun_follows(&self, at: usize) -> bool {
        let next = if matches!(self.mark_at(at + 1), Some(Mark::Joins)) { at + 2 } else { at + 1 };
        let is_and = |at: usize| self.reading(at).is_some_and(|next| next.role == Role::And);
        let inside = |at: usize| {
            self.mark_at(at).is_none()
                && self.reading(at).is_some_and(Reading::in_phrase)
                && !self.is_verb_here(at, self.readings[at])
        };
        // "a red and white skirt"
        let said = |at: usize| {
            self.reading(at).is_some_and(|next| matches!(next.role, Role::Attribute | Role::Tint))
        };
        inside(next) || is_and(next) && said(next + 1) && inside(next + 2)
    }

    fn mark_at(&self, at: usize) -> Option<Mark> {
        if at < self.words.len() { self.mark(at) } else { None }
    }

    fn attribute(&mut self, at: usize, reading: Reading) {
        let noun = reading.entry.and_then(|entry| entry.noun).unwrap_or(Thing::No);
        if let Some(&(_, last)) = self.phrase.nouns.last() {
            if reading.is_form(Form::Ing) {
                // "children flying kites"
                self.phrase.acts = true;
                return self.close(Opening::Verb);
            }
            if matches!(last, Role::Noun(_) | Role::Unknown) {
                // "a robot rusty"; "a cat white"
                let joined = at > 0 && matches!(self.mark_at(at - 1), Some(Mark::Joins));
                if !joined {
                    self.close(Opening::Verb);
                }
            } else {
                // "a photo realistic cat"
                self.phrase.nouns.clear();
            }
        }
        let head = self.phrase.determined && noun == Thing::Yes && !self.noun_follows(at);
        if head && Reading::of(self.text(at)).entry.is_some_and(|entry| entry.first == Part::Noun) {
            self.phrase.nouns.push((at, Role::Noun(Thing::Maybe)));
        } else {
            self.phrase.attributes.push(at);
        }
    }

    fn participle(&mut self, at: usize, reading: Reading) {
        let noun = reading.entry.and_then(|entry| entry.noun);
        let after_noun = !self.phrase.nouns.is_empty();
        let follows = self.noun_follows(at);
        let past = reading.is_form(Form::Past);
        if follows && past {
            // "a snow covered hill": what it is covered with is no thing of its own.
            self.phrase.nouns.clear();
            self.phrase.attributes.push(at);
        } else if follows
            && !after_noun
            && noun.is_some()
            && !reading.can_be_adjective()
            && self.phrase.determined
        {
            // "a fishing rod"
            self.phrase.nouns.push((at, Role::Noun(Thing::No)));
        } else if follows && !after_noun && self.phrase.determined {
            self.phrase.attributes.push(at);
        } else if past && !after_noun {
            self.phrase.attributes.push(at);
        } else {
            self.phrase.acts = true;
            self.close(Opening::Verb);
        }
    }

    /// A word that is a verb more often, behind `a`: "a swan".
    fn verbal_noun(&mut self, at: usize, reading: Reading) {
        let noun = reading.entry.and_then(|entry| entry.noun);
        if reading.can_be_adjective() && self.noun_follows(at) {
            self.phrase.attributes.push(at);
        } else {
            self.phrase.nouns.push((at, Role::Noun(noun.unwrap_or(Thing::No))));
        }
    }

    /// "a man *rides* a wave", "two dogs *play* in", but "a toy *box*".
    fn is_verb_here(&self, at: usize, reading: Reading) -> bool {
        let Some(&(last, role)) = self.phrase.nouns.last() else { return false };
        if !reading.can_be_verb() || !matches!(role, Role::Noun(_) | Role::Unknown) {
            return false;
        }
        let many = self.readings[last].is_form(Form::S);
        let agrees = reading.is_form(if many { Form::Base } else { Form::S });
        let next = self.reading(at + 1).map(|next| next.role);
        let goes_on =
            matches!(next, Some(Role::Determiner | Role::Preposition | Role::Adverb | Role::Break));
        let noun_first = reading.entry.is_some_and(|entry| entry.first == Part::Noun);
        agrees && (goes_on || !noun_first)
    }
}
