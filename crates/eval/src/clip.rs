//! CLIP as the judge of pictures against texts: transformers' `CLIPModel` from its folder.
//!
//! In f32 on the CPU, and an embedding has the same bits whatever was asked together with it. Not here: which texts stand for a prompt
//! (`templates`), what is averaged over images.

mod embedding;
mod judge;
mod text;
mod vision;

use std::path::{Path, PathBuf};

use excite_diffusion::picture::Picture;
use excite_prompt::Tokenizer;
use serde::Deserialize;

pub use embedding::Embedding;
pub(crate) use judge::{FILE as JUDGE, bundled};
pub use judge::{Judge, Phrase};

use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::preprocess::{Class, Preprocess};
use crate::templates;

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    text_config: text::Config,
    #[serde(default)]
    vision_config: vision::Config,
    #[serde(default = "projection_dim")]
    projection_dim: usize,
}

fn projection_dim() -> usize {
    512
}

/// A CLIP: both towers, the tokenizer and the steps in front of the vision tower.
pub struct Clip {
    folder: PathBuf,
    tokenizer: Tokenizer,
    /// Ends each text.
    end: u32,
    preprocess: Preprocess,
    text: text::Text,
    vision: vision::Vision,
    logit_scale: f32,
}

impl Clip {
    /// Loads a transformers folder: `config.json`, `model.safetensors` (or its shards),
    /// `preprocessor_config.json`, `vocab.json` and `merges.txt`.
    ///
    /// # Errors
    /// If a file is missing or malformed, if the model is no `CLIPModel`, or if the files do not
    /// belong together.
    pub fn load(folder: &Path) -> Result<Self> {
        Self::of(&Folder::at(folder))
    }

    pub(crate) fn of(folder: &Folder) -> Result<Self> {
        folder.require("clip", "CLIPModel")?;
        let config: Config = folder.json("config.json")?;
        let special = match folder.has("special_tokens_map.json") {
            true => Some(folder.bytes("special_tokens_map.json")?),
            false => None,
        };
        let (vocab, merges) = (folder.bytes("vocab.json")?, folder.bytes("merges.txt")?);
        let wrong = |message: String| Error::Tokenizer { path: folder.path().to_owned(), message };
        let tokenizer = Tokenizer::new(&vocab, &merges, special.as_deref())
            .map_err(|e| wrong(e.to_string()))?;
        let empty = tokenizer.encode("").map_err(|e| wrong(e.to_string()))?;
        let end = empty.ids[empty.eot];

        let weights = folder.weights()?;
        let (root, projected) = (weights.root(), config.projection_dim);
        let path = folder.file("config.json");
        let text = text::Text::load(&root, &config.text_config, projected, path.clone())?;
        let vision = vision::Vision::load(&root, &config.vision_config, projected, path.clone())?;
        let logit_scale = root.get("logit_scale", &[])?.to_scalar::<f32>()?.exp();
        weights.require_all_taken()?;
        if !text.ends_with(end) || empty.ids.iter().any(|id| *id as usize >= text.vocabulary()) {
            let message = format!("it ends texts with {end}, which the model does not");
            return Err(wrong(message));
        }
        let preprocess = Preprocess::of(folder, Class::Clip)?;
        Ok(Self {
            folder: folder.path().to_owned(),
            tokenizer,
            end,
            preprocess,
            text,
            vision,
            logit_scale,
        })
    }

    /// The embeddings of pictures, in their order.
    ///
    /// # Errors
    /// If a picture does not come out of the preprocessing in the model's size.
    pub fn images(&self, pictures: &[Picture]) -> Result<Vec<Embedding>> {
        pictures.iter().map(|picture| self.image(picture)).collect()
    }

    /// The embedding of a picture.
    ///
    /// # Errors
    /// As [`Clip::images`].
    pub fn image(&self, picture: &Picture) -> Result<Embedding> {
        let pixels = self.preprocess.square(picture, self.vision.side())?;
        Embedding::of(&self.vision.feature(&pixels)?, "a picture")
    }

    /// The embeddings of texts as they are, in their order; many at once take less time. What does
    /// not fit into the model's context is cut off.
    ///
    /// # Errors
    /// If a text cannot be encoded.
    pub fn texts(&self, texts: &[String]) -> Result<Vec<Embedding>> {
        let ids = texts.iter().map(|text| self.ids(text)).collect::<Result<Vec<_>>>()?;
        let features = self.text.features(&ids, self.end)?;
        let named = features.iter().zip(texts);
        named.map(|(feature, text)| Embedding::of(feature, &format!("the text `{text}`"))).collect()
    }

    fn ids(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.tokenizer.encode(text).map_err(|e| Error::Tokenizer {
            path: self.folder.clone(),
            message: format!("`{text}`: {e}"),
        })?;
        let mut ids = encoding.ids[..=encoding.eot].to_vec();
        if ids.len() > self.text.positions() {
            ids.truncate(self.text.positions() - 1);
            ids.push(self.end);
        }
        Ok(ids)
    }

    /// The embedding of a prompt: the mean over the 80 templates.
    ///
    /// # Errors
    /// If the text cannot be encoded.
    pub fn prompt(&self, prompt: &str) -> Result<Embedding> {
        Embedding::mean(&self.texts(&templates::filled(prompt))?)
    }

    /// The embedding of a picture's caption, without templates.
    ///
    /// # Errors
    /// [`Error::EmptyCaption`] if it is white space, or if it cannot be encoded.
    pub fn caption(&self, caption: &str) -> Result<Embedding> {
        if caption.trim().is_empty() {
            return Err(Error::EmptyCaption);
        }
        let mut embeddings = self.texts(&[caption.to_owned()])?;
        embeddings.pop().ok_or(Error::EmptyCaption)
    }

    /// What the model multiplies cosines with in front of its softmax.
    pub fn logit_scale(&self) -> f32 {
        self.logit_scale
    }
}
