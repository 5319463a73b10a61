//! What kind of word an English word is: `lexicon/lexicon.txt`, derived from WordNet.

use std::sync::LazyLock;

use ahash::AHashMap;

/// See `lexicon/build.py` for the form.
static TEXT: &str = include_str!("../lexicon/lexicon.txt");
static LEXICON: LazyLock<Lexicon> = LazyLock::new(|| Lexicon::read(TEXT));

const ABSTRACT: &str =
    "ness ity ism tion sion ment ance ence ology hood ship cy isms tions sions ments ances ences";
const ADJECTIVE: &str =
    "ous ful less able ible ish ical al ary ive like ic esque ular colored coloured shaped";

/// Whether a noun names a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Thing {
    /// It names none: `freedom`.
    No,
    /// It may: `stage`.
    Maybe,
    /// It does: `cat`.
    Yes,
}

/// A part of speech.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Noun,
    Adjective,
    Verb,
    Adverb,
}

/// What a form of a word adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// `cat`, `run`
    Base,
    /// `cats`, `runs`
    S,
    /// `running`
    Ing,
    /// `painted`, `worn`
    Past,
}

/// What a word can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// What it is most often.
    pub(crate) first: Part,
    /// As a noun.
    pub(crate) noun: Option<Thing>,
    pub(crate) adjective: bool,
    pub(crate) verb: bool,
    pub(crate) form: Form,
}

impl Entry {
    fn new(class: &str) -> Option<Self> {
        let part = |letter| match letter {
            'a' => Part::Adjective,
            'v' => Part::Verb,
            'r' => Part::Adverb,
            _ => Part::Noun,
        };
        let noun = class.chars().find_map(|letter| match letter {
            'T' => Some(Thing::Yes),
            't' => Some(Thing::Maybe),
            'N' => Some(Thing::No),
            _ => None,
        });
        Some(Self {
            first: part(class.chars().next()?),
            noun,
            adjective: class.contains('a'),
            verb: class.contains('v'),
            form: Form::Base,
        })
    }

    fn only(first: Part) -> Self {
        Self {
            first,
            noun: (first == Part::Noun).then_some(Thing::No),
            adjective: first == Part::Adjective,
            verb: first == Part::Verb,
            form: Form::Base,
        }
    }
}

struct Lexicon {
    words: AHashMap<String, Entry>,
    /// Irregular plurals with their singulars.
    irregular: AHashMap<&'static str, &'static str>,
}

impl Lexicon {
    fn read(text: &'static str) -> Self {
        let mut words = AHashMap::with_capacity(50_000);
        let mut irregular = AHashMap::with_capacity(1_500);
        let (mut class, mut last) = ("", String::new());
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("= ") {
                (class, last) = (name, String::new());
            } else if let Some((plural, singular)) = line.split_once(' ') {
                irregular.insert(plural, singular);
            } else if let Some((shared, rest)) = line.split_at_checked(1) {
                last.truncate(shared.parse().unwrap_or(0));
                last.push_str(rest);
                let entry = match class {
                    "participles" => Some(Entry { form: Form::Past, ..Entry::only(Part::Verb) }),
                    class => Entry::new(class),
                };
                if let Some(entry) = entry {
                    words.entry(last.clone()).or_insert(entry);
                }
            }
        }
        Self { words, irregular }
    }

    fn base(&self, word: &str) -> Option<Entry> {
        self.words.get(word).copied()
    }

    fn plural(&self, word: &str) -> Option<Entry> {
        let stem = word.strip_suffix('s')?;
        let regular = [
            Some(stem.to_owned()),
            stem.strip_suffix("ie").map(|stem| format!("{stem}y")),
            es(stem).map(str::to_owned),
            stem.strip_suffix("ve").map(|stem| format!("{stem}f")),
        ];
        let known = |stem: String| self.base(&stem).filter(|e| e.noun.is_some() || e.verb);
        // "ss" ends singulars: "glass", "dress".
        let stems = regular
            .into_iter()
            .flatten()
            .filter(|stem| !stem.ends_with('s') || stem.ends_with("ss"));
        stems.into_iter().find_map(known)
    }

    /// The verb of `running` or `painted`.
    fn verb(&self, word: &str, suffix: &str) -> Option<Entry> {
        let stem = word.strip_suffix(suffix).filter(|stem| stem.len() > 2)?;
        let mut letters = stem.chars().rev();
        let doubled = letters.next() == letters.next();
        let stems = [
            Some(stem.to_owned()),
            Some(format!("{stem}e")),
            stem.strip_suffix(|_: char| doubled).map(str::to_owned),
            stem.strip_suffix('i').map(|stem| format!("{stem}y")),
        ];
        let known = |stem: String| self.base(&stem).filter(|entry| entry.verb);
        stems.into_iter().flatten().find_map(known)
    }

    fn look_up(&self, word: &str) -> Option<Entry> {
        let base = self.base(word);
        let s = |entry: Entry| Entry { form: Form::S, adjective: false, ..entry };
        let inflected = None
            .or_else(|| self.irregular.get(word).and_then(|one| self.base(one)).map(s))
            .or_else(|| self.verb(word, "ing").map(|entry| Entry { form: Form::Ing, ..entry }))
            .or_else(|| self.verb(word, "ed").map(|entry| Entry { form: Form::Past, ..entry }))
            .or_else(|| self.plural(word).map(s));
        match (base, inflected) {
            // "painted" is in the lexicon too, as an adjective; "building" as a noun.
            (Some(base), Some(verb)) if matches!(verb.form, Form::Ing | Form::Past) => {
                let noun = base.noun.filter(|_| base.first == Part::Noun && verb.form == Form::Ing);
                let first = if noun == Some(Thing::Yes) { Part::Noun } else { Part::Verb };
                Some(Entry { first, noun, adjective: base.adjective, verb: true, ..verb })
            }
            (None, Some(verb)) if matches!(verb.form, Form::Ing | Form::Past) => {
                Some(Entry { first: Part::Verb, noun: None, adjective: false, verb: true, ..verb })
            }
            (Some(base), Some(plural)) if plural.noun > base.noun => Some(plural),
            // "rings" stands in the lexicon for what gymnasts hang from.
            (Some(base), Some(plural)) if word.len() > 4 => {
                Some(Entry { form: Form::S, verb: base.verb || plural.verb, ..base })
            }
            (Some(base), _) => Some(base),
            (None, Some(plural)) => Some(plural),
            (None, None) => self.by_form(word),
        }
    }

    fn by_form(&self, word: &str) -> Option<Entry> {
        let adjective = |stem: Option<&str>| {
            let known = |stem: &str| self.base(stem).is_some_and(|entry| entry.adjective);
            stem.is_some_and(|stem| {
                known(stem)
                    || known(&format!("{stem}e"))
                    || stem.strip_suffix('i').is_some_and(|stem| known(&format!("{stem}y")))
            })
        };
        if word.strip_suffix("ly").is_some_and(|stem| stem.len() > 2) {
            Some(Entry::only(Part::Adverb))
        } else if ends(word, ABSTRACT) {
            Some(Entry::only(Part::Noun))
        } else if sounds_like_adjective(word)
            || adjective(word.strip_suffix("er"))
            || adjective(word.strip_suffix("est"))
            || adjective(word.strip_suffix("ish"))
            || adjective(word.strip_prefix("un"))
        {
            Some(Entry::only(Part::Adjective))
        } else {
            None
        }
    }
}

/// `boxe` of "boxes" without its last letter, but not `angele`.
pub(crate) fn es(stem: &str) -> Option<&str> {
    let hisses = |stem: &&str| ["s", "x", "z", "ch", "sh", "o"].iter().any(|e| stem.ends_with(e));
    stem.strip_suffix('e').filter(hisses)
}

fn ends(word: &str, endings: &str) -> bool {
    // No ending is shorter than two letters.
    word.len() > 4
        && endings.split(' ').any(|end| word.strip_suffix(end).is_some_and(|stem| stem.len() > 2))
}

/// Whether the word ends as adjectives do.
pub(crate) fn sounds_like_adjective(word: &str) -> bool {
    ends(word, ADJECTIVE)
}

/// Whether the lexicon has the word as it is: then [`look_up`] finds it.
pub(crate) fn has(word: &str) -> bool {
    LEXICON.words.contains_key(word)
}

/// What a lower-case word can be, in any of its forms; none if it is not known.
pub(crate) fn look_up(word: &str) -> Option<Entry> {
    LEXICON.look_up(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_what_they_are() {
        for (word, first, noun, form) in [
            ("cat", Part::Noun, Some(Thing::Yes), Form::Base),
            ("cats", Part::Noun, Some(Thing::Yes), Form::S),
            ("mice", Part::Noun, Some(Thing::Yes), Form::S),
            ("butterflies", Part::Verb, Some(Thing::Yes), Form::S),
            ("wolves", Part::Noun, Some(Thing::Yes), Form::S),
            ("churches", Part::Noun, Some(Thing::Yes), Form::S),
            ("running", Part::Verb, Some(Thing::No), Form::Ing),
            ("wearing", Part::Verb, Some(Thing::No), Form::Ing),
            ("parked", Part::Verb, None, Form::Past),
            ("worn", Part::Adjective, None, Form::Base),
            ("freedom", Part::Noun, Some(Thing::No), Form::Base),
            ("kindness", Part::Noun, Some(Thing::No), Form::Base),
            ("slowly", Part::Adverb, None, Form::Base),
            ("shinier", Part::Adjective, None, Form::Base),
        ] {
            let got = look_up(word).map(|entry| (entry.first, entry.noun, entry.form));
            assert_eq!(got, Some((first, noun, form)), "{word}");
        }
        for word in ["", "s", "qwertz", "猫", "artgerm"] {
            assert_eq!(look_up(word), None, "{word}");
        }
    }
}
