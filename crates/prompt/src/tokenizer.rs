//! CLIP's byte pair encoding from `vocab.json` and `merges.txt`, through the `tokenizers` crate.
//!
//! Text is brought to NFC, white space folded, letters lower-cased, then split as CLIP splits it:
//! contractions, runs of letters, single digits, runs of anything else. Each such piece is a *word*
//! here, whatever number of tokens it takes.

use std::ops::Range;

use serde_json::Value;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{Lowercase, NFC, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior};

/// Tokens a CLIP text encoder takes.
pub const CONTEXT: usize = 77;
/// CLIP's `vocab.json`, the same for every Stable Diffusion.
pub const CLIP_VOCAB: &[u8] = include_bytes!("../../../models/emoji/tokenizer/vocab.json");
/// CLIP's `merges.txt`.
pub const CLIP_MERGES: &[u8] = include_bytes!("../../../models/emoji/tokenizer/merges.txt");
/// Between start and end of text.
const CONTENT_MAX: usize = CONTEXT - 2;
const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";
const SPLIT: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// Why a tokenizer could not be made, or a text not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A file is not what it should be.
    #[error("`{file}`: {message}")]
    File {
        /// File in the tokenizer's folder.
        file: &'static str,
        /// What is wrong.
        message: String,
    },
    /// The library failed.
    #[error("the tokenizer failed: {0}")]
    Library(String),
}

fn library(error: impl std::fmt::Display) -> TokenizerError {
    TokenizerError::Library(error.to_string())
}

/// CLIP's tokenizer.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    start: u32,
    end: u32,
    pad: u32,
}

/// A prompt as the text encoder sees it.
#[derive(Debug, Clone)]
pub struct Encoding {
    /// Start of text, content, end of text, pads.
    pub ids: [u32; CONTEXT],
    /// Position of the end-of-text token: one more than the content tokens that were kept.
    pub eot: usize,
    /// The words that were kept whole, in order.
    pub words: Vec<Word>,
    /// What did not fit.
    pub truncated: Option<Truncated>,
}

/// A word of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// Lower-case.
    pub text: String,
    /// Positions among the 77.
    pub tokens: Range<usize>,
    /// Bytes in the prompt as given.
    pub span: Range<usize>,
}

/// The part of a prompt that did not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Truncated {
    /// Content tokens dropped.
    pub tokens: usize,
    /// The text they stand for, as given.
    pub text: String,
}

impl Tokenizer {
    /// From the bytes of `vocab.json`, `merges.txt` and, if the model has it,
    /// `special_tokens_map.json`, which decides the pad token (SD 1.x: end of text, 49407; SD 2.x:
    /// `!`, 0).
    ///
    /// # Errors
    /// If a file is malformed or a special token is not in the vocabulary.
    pub fn new(
        vocab: &[u8],
        merges: &[u8],
        special: Option<&[u8]>,
    ) -> Result<Self, TokenizerError> {
        let wrong = |file, message: String| TokenizerError::File { file, message };
        let vocab: ahash::HashMap<String, u32> =
            serde_json::from_slice(vocab).map_err(|e| wrong("vocab.json", e.to_string()))?;
        let id = |token: &str| {
            let id = vocab.get(token).copied();
            id.ok_or_else(|| wrong("vocab.json", format!("no token `{token}`")))
        };
        let (start, end) = (id(START)?, id(END)?);
        let pad = match special.map(pad_token).transpose()?.flatten() {
            Some(token) => id(&token)?,
            None => end,
        };
        let bpe = BPE::builder()
            .vocab_and_merges(ahash::AHashMap::from(vocab), parse_merges(merges)?)
            .unk_token(END.to_owned())
            .end_of_word_suffix("</w>".to_owned())
            .build()
            .map_err(|e| wrong("merges.txt", e.to_string()))?;
        let mut inner = tokenizers::Tokenizer::new(bpe);
        let space = Replace::new(ReplacePattern::Regex(r"\s+".into()), " ").map_err(library)?;
        inner
            .with_normalizer(Some(Normalizers::new(vec![
                NFC.into(),
                space.into(),
                Lowercase.into(),
            ])))
            .map_err(library)?;
        let split =
            Split::new(SplitPattern::Regex(SPLIT.into()), SplitDelimiterBehavior::Removed, true);
        inner.with_pre_tokenizer(Some(PreTokenizers::new(vec![
            split.map_err(library)?.into(),
            ByteLevel::new(false, true, false).into(),
        ])));
        let specials = [START, END].map(|token| AddedToken::from(token, true));
        inner.add_special_tokens(specials).map_err(library)?;
        Ok(Self { inner, start, end, pad })
    }

    /// Id of the pad token.
    pub fn pad(&self) -> u32 {
        self.pad
    }

    /// Encodes a prompt; what does not fit into 75 content tokens is reported.
    ///
    /// # Errors
    /// If the library fails, which no text is known to cause.
    pub fn encode(&self, prompt: &str) -> Result<Encoding, TokenizerError> {
        let encoded = self.inner.encode(prompt, false).map_err(library)?;
        let (content, offsets) = (encoded.get_ids(), encoded.get_offsets());
        let kept = content.len().min(CONTENT_MAX);
        let mut ids = [self.pad; CONTEXT];
        ids[0] = self.start;
        ids[1..=kept].copy_from_slice(&content[..kept]);
        ids[kept + 1] = self.end;
        let mut words: Vec<Word> = Vec::new();
        let mut whole = 0;
        while whole < content.len() {
            // Tokens of one word share its number; a literal special token is a word of its own.
            let number = encoded.get_word_ids()[whole];
            let same = |i: &usize| number.is_some() && encoded.get_word_ids()[*i] == number;
            let end =
                (whole + 1..content.len()).take_while(same).last().map_or(whole + 1, |i| i + 1);
            if end > kept {
                break;
            }
            let span = offsets[whole].0..offsets[end - 1].1;
            let text = prompt.get(span.clone()).unwrap_or_default().to_lowercase();
            words.push(Word { text, tokens: whole + 1..end + 1, span });
            whole = end;
        }
        let truncated = (content.len() > kept).then(|| Truncated {
            tokens: content.len() - kept,
            text: prompt.get(offsets[kept].0..).unwrap_or_default().to_owned(),
        });
        Ok(Encoding { ids, eot: kept + 1, words, truncated })
    }
}

fn pad_token(special: &[u8]) -> Result<Option<String>, TokenizerError> {
    let file = "special_tokens_map.json";
    let map: Value = serde_json::from_slice(special)
        .map_err(|e| TokenizerError::File { file, message: e.to_string() })?;
    let token = &map["pad_token"];
    Ok(token.as_str().or(token["content"].as_str()).map(str::to_owned))
}

fn parse_merges(merges: &[u8]) -> Result<Vec<(String, String)>, TokenizerError> {
    let wrong = |message: String| TokenizerError::File { file: "merges.txt", message };
    let text = std::str::from_utf8(merges).map_err(|e| wrong(e.to_string()))?;
    text.lines()
        .enumerate()
        .filter(|(i, line)| !(line.is_empty() || *i == 0 && line.starts_with("#version")))
        .map(|(i, line)| match line.split_once(' ') {
            Some((left, right)) => Ok((left.to_owned(), right.to_owned())),
            None => Err(wrong(format!("line {} is not a pair: `{line}`", i + 1))),
        })
        .collect()
}
