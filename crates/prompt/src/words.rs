//! What a word does in a prompt: `lexicon/words.txt` by hand, else what the lexicon says.

use std::sync::LazyLock;

use ahash::AHashMap;

use crate::lexicon::{Entry, Form, Part, Thing, es, look_up};

static TEXT: &str = include_str!("../lexicon/words.txt");
static WORDS: LazyLock<Words> = LazyLock::new(|| Words::read(TEXT));

/// What a word does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A noun; whether it names a thing.
    Noun(Thing),
    /// A noun behind another one only: a traffic *light*.
    Compound,
    /// Said of a noun.
    Attribute,
    /// Said of a noun before it, else a noun that names a thing: colours, materials.
    Tint,
    /// *painting*, *photo*
    Media,
    /// Says how the image should look: *artstation*.
    Style,
    /// A part of the picture: *top*.
    Relation,
    /// Counts what `of` brings: *slice*.
    Measure,
    /// *a*, *three*, *his*
    Determiner,
    /// *no*, *without*
    Negation,
    Preposition,
    /// *is*
    Copula,
    And,
    /// Ends a phrase: other little words.
    Break,
    Adverb,
    Verb,
    /// *running*, *filled*
    Participle,
    /// In no lexicon.
    Unknown,
}

/// A word out of its context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) role: Role,
    /// What the lexicon says.
    pub(crate) entry: Option<Entry>,
}

impl Reading {
    /// Of a lower-case word.
    pub(crate) fn of(word: &str) -> Self {
        let entry = look_up(word);
        let listed = WORDS.roles.get(word).copied();
        let role = listed.unwrap_or_else(|| entry.map_or(Role::Unknown, by_entry));
        // A plural of a listed noun is one too.
        let single = word.strip_suffix('s');
        let single = [single, single.and_then(es)].into_iter().flatten();
        let role = match single.filter_map(|single| WORDS.roles.get(single)).next() {
            Some(&of_single @ (Role::Noun(_) | Role::Media)) if listed.is_none() => of_single,
            Some(Role::Tint) if listed.is_none() => Role::Noun(Thing::Yes),
            _ => role,
        };
        Self { role, entry }
    }

    pub(crate) fn is_form(self, form: Form) -> bool {
        self.entry.is_some_and(|entry| entry.form == form)
    }

    pub(crate) fn can_be_verb(self) -> bool {
        self.entry.is_some_and(|entry| entry.verb)
    }

    pub(crate) fn can_be_adjective(self) -> bool {
        self.entry.is_some_and(|entry| entry.adjective)
    }

    /// Can stand inside a phrase of a noun, before or as the noun.
    pub(crate) fn in_phrase(self) -> bool {
        matches!(
            self.role,
            Role::Noun(_)
                | Role::Compound
                | Role::Attribute
                | Role::Tint
                | Role::Media
                | Role::Style
                | Role::Relation
                | Role::Measure
                | Role::Participle
                | Role::Unknown
        )
    }
}

fn by_entry(entry: Entry) -> Role {
    match (entry.form, entry.first) {
        (_, Part::Noun) => Role::Noun(entry.noun.unwrap_or(Thing::No)),
        (Form::Ing | Form::Past, _) => Role::Participle,
        (_, Part::Adjective) => Role::Attribute,
        (_, Part::Verb) => Role::Verb,
        (_, Part::Adverb) => Role::Adverb,
    }
}

/// Lists that are asked by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum List {
    /// Before a media word it says how that was made: *oil* painting.
    Technique,
    /// `by` behind it names whoever made the image.
    Artist,
    /// Little words of English.
    English,
    /// Little words of other languages.
    Foreign,
    /// Games that share their name with their ball.
    Sport,
    /// Two words that are one name, with `_` between.
    Name,
}

impl List {
    pub(crate) fn has(self, word: &str) -> bool {
        WORDS.lists.contains(&(self, word))
    }
}

struct Words {
    roles: AHashMap<&'static str, Role>,
    lists: ahash::AHashSet<(List, &'static str)>,
}

impl Words {
    fn read(text: &'static str) -> Self {
        let mut words = Self { roles: AHashMap::new(), lists: ahash::AHashSet::new() };
        let mut section = "";
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some(name) = line.strip_prefix("= ") {
                section = name;
                continue;
            }
            for word in line.split_whitespace() {
                if let Some(role) = role(section) {
                    words.roles.insert(word, role);
                } else if let Some(list) = list(section) {
                    words.lists.insert((list, word));
                }
            }
        }
        words
    }
}

fn role(section: &str) -> Option<Role> {
    Some(match section {
        "thing" => Role::Noun(Thing::Yes),
        "abstract" => Role::Noun(Thing::No),
        "compound" => Role::Compound,
        "colour" | "attribute" => Role::Attribute,
        "tint" => Role::Tint,
        "media" => Role::Media,
        "style" => Role::Style,
        "relation" => Role::Relation,
        "measure" => Role::Measure,
        "determiner" => Role::Determiner,
        "negation" => Role::Negation,
        "preposition" => Role::Preposition,
        "copula" => Role::Copula,
        "and" => Role::And,
        "break" => Role::Break,
        "adverb" => Role::Adverb,
        _ => return None,
    })
}

fn list(section: &str) -> Option<List> {
    Some(match section {
        "technique" => List::Technique,
        "artist" => List::Artist,
        "english" => List::English,
        "foreign" => List::Foreign,
        "sport" => List::Sport,
        "name" => List::Name,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_stands_once_in_a_section_with_a_meaning() {
        let mut seen = AHashMap::new();
        let mut section = "";
        for line in TEXT.lines().filter(|line| !line.starts_with('#')) {
            if let Some(name) = line.strip_prefix("= ") {
                assert!(role(name).is_some() || list(name).is_some(), "{name}");
                section = name;
                continue;
            }
            for word in line.split_whitespace() {
                let place = list(section).map_or("role", |_| section);
                let before = seen.insert((place, word), section);
                assert_eq!(before, None, "`{word}` in {section}");
            }
        }
    }
}
