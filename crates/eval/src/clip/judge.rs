//! Whether a phrase holds for a picture, by a CLIP that was trained to say so.
//!
//! Such a folder has a `judge.json` beside the model: the scale and the bias that make a logit of
//! a similarity (`models/emoji-clip`). OpenAI's CLIP has none; its similarities only compare.

use std::path::Path;

use excite_prompt::{CLIP_MERGES, CLIP_VOCAB};
use serde::Deserialize;

use super::{Clip, Embedding};
use crate::error::{Error, Result};
use crate::folder::{Embedded, Folder};

pub(crate) const FILE: &str = "judge.json";

/// Its name.
pub(crate) const BUNDLED: &str = "emoji-clip";

macro_rules! files {
    ($($file:literal),+ $(,)?) => {
        &[
            ("vocab.json", CLIP_VOCAB),
            ("merges.txt", CLIP_MERGES),
            $((
                $file,
                include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/emoji-clip/", $file)),
            )),+
        ]
    };
}

pub(crate) fn bundled() -> Folder {
    let files: Embedded = files!(
        "config.json",
        "judge.json",
        "model.safetensors",
        "preprocessor_config.json",
        "special_tokens_map.json",
    );
    Folder::embedded(BUNDLED, files)
}

#[derive(Deserialize)]
struct Line {
    /// Of the similarity; the exponential of the weights' `logit_scale`.
    logit_scale: f32,
    logit_bias: f32,
}

/// A CLIP and its line from similarity to logit.
pub struct Judge {
    clip: Clip,
    line: Line,
}

/// A phrase as the judge compares it.
#[derive(Debug, Clone)]
pub struct Phrase(Vec<Embedding>);

impl Judge {
    /// From a CLIP's folder with a `judge.json`.
    ///
    /// # Errors
    /// As [`Clip::load`], or if `judge.json` is missing or malformed.
    pub fn load(folder: &Path) -> Result<Self> {
        Self::of(&Folder::at(folder))
    }

    /// The judge of the bundled model, which is part of the program (`models/emoji-clip`).
    ///
    /// # Errors
    /// If the program is damaged.
    pub fn bundled() -> Result<Self> {
        Self::of(&bundled())
    }

    pub(crate) fn of(files: &Folder) -> Result<Self> {
        let line: Line = files.json(FILE)?;
        if !(line.logit_scale > 0. && line.logit_bias.is_finite()) {
            let (scale, bias) = (line.logit_scale, line.logit_bias);
            let message = format!("`logit_scale` {scale} and `logit_bias` {bias} decide nothing");
            return Err(Error::Malformed { path: files.file(FILE), message });
        }
        Ok(Self { clip: Clip::of(files)?, line })
    }

    /// The CLIP inside, which makes the embeddings of pictures.
    pub fn clip(&self) -> &Clip {
        &self.clip
    }

    /// A phrase with its article, such as "a cat" or "a red car".
    ///
    /// # Errors
    /// If the text cannot be encoded.
    pub fn phrase(&self, phrase: &str) -> Result<Phrase> {
        let texts = [
            phrase.to_owned(),
            format!("a photo of {phrase}."),
            format!("a picture of {phrase}."),
            format!("{phrase}."),
        ];
        Ok(Phrase(self.clip.texts(&texts)?))
    }

    /// The logit of the phrase for a picture: it holds where the logit is above 0.
    pub fn presence(&self, picture: &Embedding, phrase: &Phrase) -> f32 {
        let cosines = phrase.0.iter().map(|text| picture.cosine(text));
        let similarity = cosines.sum::<f32>() / phrase.0.len() as f32;
        self.line.logit_scale * similarity + self.line.logit_bias
    }
}
