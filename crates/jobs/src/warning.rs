//! What a person should know of a line that is taken.

use std::fmt;

use excite_prompt::Doubt;

/// Something that was done otherwise than the person may expect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// No subject was named or found: the image is made plain.
    NoSubjects,
    /// The method finds no phrase to work with: the image is as plain as without it.
    NoPhrases {
        /// The method.
        method: &'static str,
    },
    /// There is no subject to have a score: the first seed is kept.
    AcceptIgnored,
    /// The subjects were found, and the finder is not sure.
    Doubt(Doubt),
    /// The prompt or negative prompt did not fit into 77 tokens.
    Truncated {
        /// The field.
        field: &'static str,
        /// Tokens dropped.
        tokens: usize,
        /// The text they stand for.
        text: String,
    },
}

impl Warning {
    /// A stable code for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoSubjects => "no_subjects",
            Self::NoPhrases { .. } => "no_phrases",
            Self::AcceptIgnored => "accept_ignored",
            Self::Doubt(doubt) => doubt.code(),
            Self::Truncated { .. } => "truncated",
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSubjects => {
                f.write_str("no subject was found, so the image is made plain; name them")
            }
            Self::NoPhrases { method } => write!(
                f,
                "`{method}` finds nothing to work with in the prompt, so the image is a plain one; \
                 name it with `method_params`"
            ),
            Self::AcceptIgnored => f.write_str(
                "`accept` is ignored: without a subject there is no score; name the subjects",
            ),
            Self::Doubt(doubt) => doubt.fmt(f),
            Self::Truncated { field, tokens, text } => write!(
                f,
                "`{field}` is longer than 77 tokens; the last {tokens} are cut: \"{}\"",
                text.trim()
            ),
        }
    }
}
