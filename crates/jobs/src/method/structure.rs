//! Options of StructureDiffusion.

use excite_prompt::{Encoding, PromptPhrase, noun_phrases};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::error::LineError;

/// Options of StructureDiffusion: cross-attention takes its keys from the prompt and its values
/// from the mean of the prompt and of copies of it, one a noun phrase, whose tokens of that phrase
/// were encoded on their own (Feng et al. 2023, section 3.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Structure {
    /// Without any, the image is the plain one.
    pub phrases: Vec<NounPhrase>,
}

/// A noun phrase and where it stands among the 77 tokens of the prompt.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NounPhrase {
    /// Its words.
    pub text: String,
    /// The first of its tokens.
    pub start: u32,
    /// One behind the last of its tokens.
    pub end: u32,
}

impl From<PromptPhrase> for NounPhrase {
    fn from(phrase: PromptPhrase) -> Self {
        let (start, end) = (phrase.tokens.start as u32, phrase.tokens.end as u32);
        Self { text: phrase.text, start, end }
    }
}

impl Structure {
    /// The phrases that are named, or those that are found in the prompt.
    ///
    /// # Errors
    /// If an option is unknown, or a phrase is not in the prompt or there several times.
    pub fn from_options(
        options: &Map<String, Value>,
        encoding: &Encoding,
    ) -> Result<Self, LineError> {
        const FIELD: &str = "method_params.phrases";
        if let Some(other) = options.keys().find(|name| *name != "phrases") {
            let field = format!("method_params.{other}");
            return Err(LineError::UnknownField { field, known: "phrases".into() });
        }
        let Some(value) = options.get("phrases").filter(|value| !value.is_null()) else {
            let phrases = noun_phrases(encoding).into_iter().map(NounPhrase::from).collect();
            return Ok(Self { phrases });
        };
        let texts: Vec<String> =
            serde_path_to_error::deserialize(value).map_err(|e| LineError::from_path(FIELD, &e))?;
        let mut phrases: Vec<NounPhrase> = Vec::new();
        for text in texts {
            let phrase = encoding.phrase(&text);
            let phrase = phrase.map_err(|source| LineError::Phrase { field: FIELD, source })?;
            let phrase = NounPhrase::from(phrase);
            // Twice would count twice in the mean.
            if !phrases.contains(&phrase) {
                phrases.push(phrase);
            }
        }
        Ok(Self { phrases })
    }
}
