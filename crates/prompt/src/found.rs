//! What the finder says: subjects with their attributes, and what it is not sure of.

use std::fmt;

use crate::subject::{MAX_SUBJECTS, Subject};

/// What was found in a prompt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// At most [`MAX_SUBJECTS`], in the order of the prompt.
    pub subjects: Vec<FoundSubject>,
    /// What a person had better look at.
    pub doubts: Vec<Doubt>,
}

/// A word that names a thing, and what is said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundSubject {
    /// The noun. Behind other nouns that make one name with it, it carries them in its word (`teddy
    /// bear`); the positions are those of the last one alone.
    pub subject: Subject,
    /// Colours, materials and other adjectives, in the order of the prompt.
    pub attributes: Vec<Subject>,
    /// Whether the word is known to name a thing; if not, it had better be named.
    pub sure: bool,
}

/// Something the finder is not sure of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// The prompt seems not to be English: nothing is looked for.
    NotEnglish,
    /// These are taken as subjects for where they stand; no lexicon knows them.
    Guessed {
        /// In the order of the prompt.
        words: Vec<String>,
    },
    /// These are taken as subjects but may mean something that is no thing.
    Unclear {
        /// In the order of the prompt.
        words: Vec<String>,
    },
    /// These may be subjects, are not known well enough, and are not taken.
    Skipped {
        /// In the order of the prompt.
        words: Vec<String>,
    },
    /// More than [`MAX_SUBJECTS`] subjects: these, the last ones, are not taken.
    Dropped {
        /// In the order of the prompt.
        words: Vec<String>,
    },
}

impl Doubt {
    /// A stable code for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotEnglish => "prompt_not_english",
            Self::Guessed { .. } => "subjects_guessed",
            Self::Unclear { .. } => "subjects_unclear",
            Self::Skipped { .. } => "words_skipped",
            Self::Dropped { .. } => "subjects_dropped",
        }
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |words: &[String]| format!("`{}`", words.join("`, `"));
        match self {
            Self::NotEnglish => f.write_str(
                "subjects are found in English prompts only, and this one seems to be in another \
                 language; name them with `subjects`",
            ),
            Self::Guessed { words } => write!(
                f,
                "{} is in no lexicon and taken for a subject; name the subjects if that is wrong",
                list(words)
            ),
            Self::Unclear { words } => write!(
                f,
                "{} is taken as a subject and may be none; name the subjects if that is wrong",
                list(words)
            ),
            Self::Skipped { words } => write!(
                f,
                "{} may be a subject and is not taken; name the subjects if that is wrong",
                list(words)
            ),
            Self::Dropped { words } => write!(
                f,
                "an image has at most {MAX_SUBJECTS} subjects, so {} is not one; name those that \
                 matter",
                list(words)
            ),
        }
    }
}
