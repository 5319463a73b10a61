//! The words of a prompt with what they can be, and questions about their neighbours.

use crate::lexicon::{Form, Part, Thing};
use crate::tokenizer::Word;
use crate::words::{List, Reading, Role};

/// What a mark does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Brackets and quotes: nothing.
    Nothing,
    /// `-` between letters.
    Joins,
    /// `'s`, or `'` behind an s.
    Owns,
    /// `&`
    And,
    /// `--` before a word: an option of some program.
    Option,
    /// Anything else.
    Cuts,
}

/// A prompt's words, read one by one.
pub(crate) struct Sentence<'a> {
    words: &'a [Word],
    readings: Vec<Reading>,
}

impl<'a> Sentence<'a> {
    pub(crate) fn new(words: &'a [Word]) -> Self {
        let readings = words.iter().map(|word| Reading::of(&word.text)).collect();
        Self { words, readings }
    }

    pub(crate) fn len(&self) -> usize {
        self.words.len()
    }

    /// Empty behind the end.
    pub(crate) fn text(&self, at: usize) -> &str {
        self.words.get(at).map_or("", |word| word.text.as_str())
    }

    pub(crate) fn reading(&self, at: usize) -> Option<Reading> {
        self.readings.get(at).copied()
    }

    fn role(&self, at: usize) -> Option<Role> {
        self.reading(at).map(|reading| reading.role)
    }

    /// What the mark at `at` does; none if there is a word or nothing.
    pub(crate) fn mark(&self, at: usize) -> Option<Mark> {
        let word = self.words.get(at)?;
        let text = word.text.as_str();
        let before = at > 0 && self.words[at - 1].span.end == word.span.start;
        let behind = self.words.get(at + 1).is_some_and(|next| next.span.start == word.span.end);
        if text == "'s" || text == "’" && behind && self.text(at + 1) == "s" {
            return Some(Mark::Owns);
        }
        if text.chars().any(char::is_alphanumeric) {
            return None;
        }
        let dashes = text.chars().all(|c| "-–—‑".contains(c));
        Some(match text {
            _ if dashes && before && behind => Mark::Joins,
            "--" | "–" if behind => Mark::Option,
            "'" | "’" if before && !behind && self.text(at - 1).ends_with('s') => Mark::Owns,
            "&" | "+" => Mark::And,
            _ if text.chars().all(|c| "()[]{}<>\"'*_“”‘’«»".contains(c)) => Mark::Nothing,
            _ => Mark::Cuts,
        })
    }

    /// Whether the word goes on the one before with a hyphen.
    pub(crate) fn is_joined(&self, at: usize) -> bool {
        at > 0 && self.mark(at - 1) == Some(Mark::Joins)
    }

    /// Whether what follows is a noun or leads to one: "red *car*", "red *and white skirt*".
    pub(crate) fn noun_follows(&self, at: usize) -> bool {
        let next = if self.mark(at + 1) == Some(Mark::Joins) { at + 2 } else { at + 1 };
        let inside = |next: usize| {
            self.mark(next).is_none()
                && self.reading(next).is_some_and(Reading::in_phrase)
                && !self.is_verb(next, Some(at))
        };
        let said = |at: usize| matches!(self.role(at), Some(Role::Attribute | Role::Tint));
        inside(next) || self.role(next) == Some(Role::And) && said(next + 1) && inside(next + 2)
    }

    /// Whether `and`, or a comma, is followed by what a noun phrase goes on with.
    pub(crate) fn phrase_follows(&self, at: usize) -> bool {
        let mut rest = self.readings.iter().skip(at + 1);
        rest.find(|reading| reading.role != Role::Adverb).is_some_and(|next| next.in_phrase())
    }

    /// "a man *rides* a wave", "two dogs *play* in", but "a toy *box*". `noun` is the one before.
    pub(crate) fn is_verb(&self, at: usize, noun: Option<usize>) -> bool {
        let Some(reading) = self.reading(at) else { return false };
        let Some(before) = noun.and_then(|at| self.reading(at)) else {
            // "ducks that *watch* a box"
            let leads = at > 0 && matches!(self.text(at - 1), "that" | "who" | "which" | "to");
            return leads && reading.can_be_verb() && self.goes_on(at);
        };
        if !reading.can_be_verb() || !matches!(before.role, Role::Noun(_) | Role::Unknown) {
            return false;
        }
        let agrees = match before.is_form(Form::S) {
            true => reading.is_form(Form::Base),
            false => reading.is_form(Form::S),
        };
        let goes_on = match reading.entry.map(|entry| entry.first) {
            // "tree *branches* at night": only an object makes a verb of it.
            Some(Part::Noun) => self.role(at + 1) == Some(Role::Determiner),
            _ => self.goes_on(at),
        };
        let verb = matches!(reading.role, Role::Verb | Role::Participle) || goes_on;
        verb && (agrees || reading.is_form(Form::Ing))
    }

    /// "a mountain *retreat*": no verb, as that would be "retreats".
    pub(crate) fn is_noun(&self, at: usize, noun: Option<usize>) -> bool {
        let many = noun.and_then(|at| self.reading(at)).is_some_and(|noun| noun.is_form(Form::S));
        let reading = self.reading(at);
        let can_be = |reading: Reading| {
            reading.is_form(Form::Base) && reading.entry.is_some_and(|entry| entry.noun.is_some())
        };
        reading.is_some_and(can_be) && !many && !self.goes_on(at)
    }

    /// What follows fits behind a verb better than behind a noun.
    fn goes_on(&self, at: usize) -> bool {
        matches!(
            self.role(at + 1),
            Some(Role::Determiner | Role::Preposition | Role::Adverb | Role::Break | Role::Copula)
        )
    }

    /// Where lettering ends that begins at `at`: a sign that says "Open", 'Open' written on it.
    pub(crate) fn end_of_lettering(&self, at: usize) -> Option<usize> {
        let quotes = |at: usize| {
            self.mark(at).is_some() && self.text(at).contains(['"', '\'', '“', '”', '‘', '’'])
        };
        if !quotes(at) {
            return None;
        }
        let end = (at + 1..self.len()).find(|&end| quotes(end))?;
        let says = |at: usize| {
            matches!(
                self.text(at),
                "says"
                    | "saying"
                    | "reads"
                    | "reading"
                    | "text"
                    | "word"
                    | "words"
                    | "titled"
                    | "named"
                    | "called"
                    | "written"
                    | "spelling"
            )
        };
        (at > 0 && says(at - 1) || says(end + 1)).then_some(end + 1)
    }

    /// The `can` of "can be seen".
    pub(crate) fn is_modal(&self, at: usize) -> bool {
        self.text(at) == "can" && matches!(self.role(at + 1), Some(Role::Copula | Role::Verb))
    }

    /// "oil *on canvas*"
    pub(crate) fn is_technique(&self, at: usize) -> bool {
        List::Technique.has(self.text(at))
            && self.text(at + 1) == "on"
            && matches!(self.text(at + 2), "canvas" | "paper" | "panel" | "board" | "linen")
    }

    /// The two words from `at` on are one name: "ice cream".
    pub(crate) fn is_name(&self, at: usize) -> bool {
        List::Name.has(&format!("{}_{}", self.text(at), self.text(at + 1)))
    }

    /// The football of "playing football".
    pub(crate) fn is_played(&self, at: usize) -> bool {
        let plays = |at: usize| self.text(at).starts_with("play");
        List::Sport.has(self.text(at)) && at > 0 && plays(at - 1)
    }

    /// "by Claude Monet", not "by a lake" nor "surrounded by trees".
    pub(crate) fn names_a_maker(&self, at: usize) -> bool {
        let before = at.checked_sub(1);
        let asked = |at: usize| List::Artist.has(self.text(at)) || self.mark(at).is_some();
        if self.text(at) != "by" || before.is_none_or(asked) {
            return self.text(at) == "by";
        }
        let acted = before.and_then(|at| self.reading(at)).is_some_and(|r| r.is_form(Form::Past));
        !acted && !matches!(self.role(at + 1), Some(Role::Determiner | Role::Noun(Thing::Yes)))
    }

    /// Where the name of a maker or style ends that begins behind `at`.
    pub(crate) fn end_of_maker(&self, at: usize) -> usize {
        let ends = |&next: &usize| {
            matches!(self.mark(next), Some(Mark::Cuts | Mark::Option))
                || self.text(next) == "with"
                || next > at + 1
                    && self.reading(next).is_some_and(|reading| {
                        reading.role == Role::Determiner
                            || reading.is_form(Form::Ing)
                                && matches!(reading.role, Role::Participle | Role::Break)
                    })
        };
        (at + 1..self.len()).find(ends).unwrap_or(self.len())
    }
}
