//! Prompts: CLIP's tokenizer, words to token positions, and the subjects of a prompt.
//!
//! No tensors here, so that whoever only checks prompts need not build a tensor library.

mod finder;
mod found;
mod language;
mod lexicon;
mod paper;
mod parts;
mod phrases;
mod sentence;
mod subject;
mod tokenizer;
mod words;

pub use finder::find_subjects;
pub use found::{Doubt, Found, FoundSubject};
pub use paper::{PaperPrompt, PaperSubject, PaperSubset, paper_prompts};
pub use parts::{PromptPart, PromptPhrase, noun_phrases, split_prompt};
pub use subject::{MAX_SUBJECTS, Subject, SubjectError};
pub use tokenizer::{
    CLIP_MERGES, CLIP_VOCAB, CONTEXT, Encoding, Tokenizer, TokenizerError, Truncated, Word,
};
