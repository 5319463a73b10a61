//! Words to token positions.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::tokenizer::{Encoding, Word};

/// Subjects an image can have.
pub const MAX_SUBJECTS: usize = 8;

/// A word that must appear in the image. Stored with its positions, so that a better subject
/// finder never changes an old job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Subject {
    /// The word, as people know it.
    pub word: String,
    /// Positions among the 77 tokens, one a piece.
    pub indices: Vec<u32>,
}

/// Why a subject cannot be found in a prompt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// Nothing was asked for.
    #[error("a subject is empty")]
    Empty,
    /// The word is not there.
    #[error("subject `{subject}` is not a word of the prompt")]
    NotInPrompt {
        /// As asked.
        subject: String,
        /// The prompt's words with their positions.
        words: String,
        /// Whether it is in the part that was cut off.
        cut: bool,
    },
    /// The word is there several times.
    #[error("subject `{subject}` is in the prompt {count} times, at {positions}")]
    Ambiguous {
        /// As asked.
        subject: String,
        /// How often.
        count: usize,
        /// Where, as people read it.
        positions: String,
    },
    /// `cat#3`, but there are fewer.
    #[error("subject `{subject}` asks for occurrence {occurrence}, the prompt has {count}")]
    Occurrence {
        /// As asked.
        subject: String,
        /// The number behind `#`.
        occurrence: usize,
        /// How many there are.
        count: usize,
    },
    /// A position that is no content token.
    #[error("subject index {index} is not a token of the prompt (1 to {last})")]
    Index {
        /// As asked.
        index: u32,
        /// The last content token.
        last: usize,
    },
}

impl SubjectError {
    /// A stable code for programs and an imperative for people.
    pub fn advice(&self) -> (&'static str, String) {
        match self {
            Self::Empty => ("subject_empty", "Name a word of the prompt.".into()),
            Self::NotInPrompt { words, cut: false, .. } => {
                ("subject_not_in_prompt", format!("Use one of: {words}."))
            }
            Self::NotInPrompt { words, .. } => (
                "subject_cut_off",
                format!("Shorten the prompt to 75 tokens, or use one of: {words}."),
            ),
            Self::Ambiguous { subject, count, .. } => (
                "subject_ambiguous",
                format!("Write `{subject}#1` to `{subject}#{count}`; several can be named."),
            ),
            Self::Occurrence { count, .. } => {
                ("subject_occurrence", format!("Write a number from 1 to {count} behind `#`."))
            }
            Self::Index { last, .. } => {
                ("subject_index", format!("Use positions from 1 to {last}."))
            }
        }
    }
}

impl Encoding {
    /// The positions of a word: `cat`, `cat#2` (the second one), `sombrero` (several pieces),
    /// `teddy bear` (the last word's, where all stand together).
    ///
    /// # Errors
    /// If the word is not there, or is there several times and none was chosen.
    pub fn subject(&self, request: &str) -> Result<Subject, SubjectError> {
        let trimmed = request.trim();
        let (text, occurrence) = match trimmed.rsplit_once('#') {
            Some((text, number)) if !text.is_empty() => match number.parse::<usize>() {
                Ok(number) => (text.trim(), Some(number)),
                Err(_) => (trimmed, None),
            },
            _ => (trimmed, None),
        };
        let lower = text.to_lowercase();
        let wanted: Vec<&str> = lower.split_whitespace().collect();
        if wanted.is_empty() {
            return Err(SubjectError::Empty);
        }
        let found: Vec<&Word> = self
            .words
            .windows(wanted.len())
            .filter(|words| words.iter().map(|word| word.text.as_str()).eq(wanted.iter().copied()))
            .filter_map(<[Word]>::last)
            .collect();
        let word = match (found.as_slice(), occurrence) {
            ([], _) => {
                let cut = self.truncated.as_ref();
                let cut = cut.is_some_and(|cut| cut.text.to_lowercase().contains(&lower));
                return Err(SubjectError::NotInPrompt {
                    subject: text.to_owned(),
                    words: self.table(),
                    cut,
                });
            }
            ([word], None) => word,
            (several, None) => {
                let positions: Vec<String> = several.iter().map(|word| position(word)).collect();
                return Err(SubjectError::Ambiguous {
                    subject: text.to_owned(),
                    count: several.len(),
                    positions: positions.join(" and "),
                });
            }
            (several, Some(occurrence)) => {
                let index = occurrence.checked_sub(1);
                index.and_then(|index| several.get(index)).ok_or(SubjectError::Occurrence {
                    subject: text.to_owned(),
                    occurrence,
                    count: several.len(),
                })?
            }
        };
        let indices = word.tokens.clone().map(|i| i as u32).collect();
        Ok(Subject { word: wanted.join(" "), indices })
    }

    /// A subject by positions, named after the words they lie in.
    ///
    /// # Errors
    /// If a position is no content token.
    pub fn subject_at(&self, indices: &[u32]) -> Result<Subject, SubjectError> {
        if indices.is_empty() {
            return Err(SubjectError::Empty);
        }
        for &index in indices {
            if index == 0 || index as usize >= self.eot {
                return Err(SubjectError::Index { index, last: self.eot - 1 });
            }
        }
        let inside = |word: &&Word| indices.iter().any(|&i| word.tokens.contains(&(i as usize)));
        let words: Vec<&str> =
            self.words.iter().filter(inside).map(|word| word.text.as_str()).collect();
        Ok(Subject { word: words.join(" "), indices: indices.to_vec() })
    }

    /// The prompt's words with their positions: `1 a, 2 cat, 3-5 sombrero`.
    pub fn table(&self) -> String {
        let mut table = String::new();
        for word in &self.words {
            let separator = if table.is_empty() { "" } else { ", " };
            // Writing to a string cannot fail.
            let _ = write!(table, "{separator}{} {}", position(word), word.text);
        }
        table
    }
}

fn position(word: &Word) -> String {
    let (first, last) = (word.tokens.start, word.tokens.end.saturating_sub(1));
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}
