//! BLIP as the describer of pictures: transformers' `BlipForConditionalGeneration` from its folder.
//!
//! Captions are made as LAVIS makes them for the paper's text-text similarity: after the words "a
//! picture of", by three beams, 10 to 30 tokens long with the prompt. Each picture alone, in f32 on
//! the CPU. Not here: how a caption is compared (`clip`).

mod beams;
mod decoder;
mod vision;
mod words;

use std::path::Path;

use candle_core::D;
use candle_nn::ops::log_softmax;
use excite_diffusion::picture::Picture;
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::preprocess::{Class, Preprocess};
use beams::Lengths;

/// What every caption begins with and does not show.
const PROMPT: &str = "a picture of ";
/// Tokens, prompt included.
const LENGTHS: Lengths = Lengths { min: 10, max: 30 };

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    text_config: decoder::Config,
    #[serde(default)]
    vision_config: vision::Config,
}

/// A BLIP: vision tower, text decoder, words and the steps in front of the vision tower.
pub struct Blip {
    words: words::Words,
    /// Ids of the prompt behind the token that begins a caption.
    prompt: Vec<u32>,
    /// Ends a caption.
    end: u32,
    preprocess: Preprocess,
    vision: vision::Vision,
    decoder: decoder::Decoder,
}

impl Blip {
    /// Loads a transformers folder: `config.json`, `model.safetensors` (or its shards),
    /// `preprocessor_config.json` and `vocab.txt` or `tokenizer.json`.
    ///
    /// # Errors
    /// If a file is missing or malformed, if the model is no `BlipForConditionalGeneration`, or if
    /// the files do not belong together.
    pub fn load(folder: &Path) -> Result<Self> {
        Self::of(&Folder::at(folder))
    }

    pub(crate) fn of(folder: &Folder) -> Result<Self> {
        folder.require("blip", "BlipForConditionalGeneration")?;
        let config: Config = folder.json("config.json")?;
        let (text, path) = (&config.text_config, folder.file("config.json"));
        if text.max_position_embeddings < LENGTHS.max {
            let (max, positions) = (LENGTHS.max, text.max_position_embeddings);
            let message = format!("`max_position_embeddings` is {positions}, less than {max}");
            return Err(Error::Malformed { path, message });
        }
        let words = words::Words::load(folder)?;
        let prompt = [&[text.bos_token_id], &words.encode(PROMPT)?[..]].concat();
        if prompt.len() >= LENGTHS.min || prompt.iter().any(|id| *id as usize >= text.vocab_size) {
            let message = format!("`{PROMPT}` is {prompt:?} for it");
            return Err(Error::Tokenizer { path: folder.path().to_owned(), message });
        }
        let weights = folder.weights()?;
        let (root, seen) = (weights.root(), config.vision_config.hidden_size);
        let vision =
            vision::Vision::load(&root.at("vision_model"), &config.vision_config, path.clone())?;
        let decoder = decoder::Decoder::load(&root.at("text_decoder"), text, seen, path)?;
        weights.require_all_taken()?;
        let preprocess = Preprocess::of(folder, Class::Blip)?;
        Ok(Self { words, prompt, end: text.sep_token_id, preprocess, vision, decoder })
    }

    /// A caption for each picture, in their order, without the prompt. A caption may be empty.
    ///
    /// # Errors
    /// If a picture does not come out of the preprocessing in the model's size.
    pub fn caption(&self, pictures: &[Picture]) -> Result<Vec<String>> {
        let caption = |picture| {
            let text = self.words.decode(&self.tokens(picture)?)?;
            // By letters, as LAVIS cuts it.
            let behind: String = text.chars().skip(PROMPT.chars().count()).collect();
            Ok(behind.trim().to_owned())
        };
        pictures.iter().map(caption).collect()
    }

    /// The tokens of a picture's caption: the one that begins it, the prompt, the words and, unless
    /// it was cut off, the one that ends it.
    ///
    /// # Errors
    /// As [`Blip::caption`].
    pub fn tokens(&self, picture: &Picture) -> Result<Vec<u32>> {
        let pixels = self.preprocess.square(picture, self.vision.side())?;
        let mut memory = self.decoder.look(&self.vision.states(&pixels)?)?;
        beams::search(&self.prompt, self.end, LENGTHS, |tokens, parents| {
            let logits = self.decoder.read(&mut memory, tokens, parents)?;
            let rows = log_softmax(&logits, D::Minus1)?.to_vec2::<f32>()?;
            match rows.iter().flatten().any(|log| log.is_nan()) {
                true => Err(Error::NoDirection("a picture's next word".into())),
                false => Ok(rows),
            }
        })
    }
}
