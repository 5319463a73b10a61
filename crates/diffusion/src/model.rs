//! A loaded model: tokenizer, text encoder, UNet, autoencoder, scheduler configuration, digest.

use std::path::Path;

use candle_core::Tensor;
use excite_jobs::ModelFacts;
use excite_prompt::{Encoding, Tokenizer};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::folder::{Folder, Loader};
use crate::scheduler::SchedulerConfig;
use crate::text::TextEncoder;
use crate::unet::UNet;
use crate::vae::Vae;

const INDEX: &str = "model_index.json";

/// A model in memory. Everything in it is frozen; runs borrow it.
pub struct Model {
    /// `name@digest`.
    name: String,
    tokenizer: Tokenizer,
    text_encoder: TextEncoder,
    unet: UNet,
    vae: Vae,
    schedulers: SchedulerConfig,
}

impl Model {
    /// Loads an unmodified diffusers folder, weights as f32.
    ///
    /// # Errors
    /// If a file is missing, damaged, or asks for something this pipeline does not do; the error
    /// names file, key, expected and found shape.
    pub fn load(folder: &Folder) -> Result<Self> {
        if let Folder::Directory(path) = folder {
            require_folder(path, &folder.name())?;
        }
        let mut loader = Loader::new(folder);
        let index: serde_json::Map<String, Value> = loader.json(INDEX)?;
        let class = index.get("_class_name").and_then(Value::as_str).unwrap_or("absent");
        if !class.starts_with("StableDiffusion") || class.contains("XL") {
            return Err(Error::Unsupported {
                file: INDEX.into(),
                field: "_class_name".into(),
                value: format!("`{class}`"),
                remedy: "Use a StableDiffusionPipeline (SD 1.x kind).".into(),
            });
        }
        let tokenizer = load_tokenizer(&mut loader)?;
        let text_encoder = TextEncoder::load(&mut loader)?;
        let unet = UNet::load(&mut loader)?;
        if unet.context() != text_encoder.width() {
            let message = format!(
                "`cross_attention_dim` is {}, but the text encoder's states have {}",
                unet.context(),
                text_encoder.width()
            );
            return Err(Error::Config { file: "unet/config.json".into(), message });
        }
        let vae = Vae::load(&mut loader)?;
        let schedulers = SchedulerConfig::load(&mut loader)?;
        let name = format!("{}@{}", loader.model(), loader.digest());
        Ok(Self { name, tokenizer, text_encoder, unet, vae, schedulers })
    }

    /// `name@digest`; the digest covers the files that were loaded.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What a job is checked against.
    pub fn facts(&self) -> ModelFacts {
        let factor = self.vae.factor() as u32;
        let native = self.unet.sample_size() as u32 * factor;
        ModelFacts {
            name: self.name.clone(),
            width: native,
            height: native,
            size_multiple: self.unet.size_multiple() as u32 * factor,
            train_timesteps: self.schedulers.train_timesteps(),
            scheduler: self.schedulers.default_name(),
            // SD 2.x pads with token 0; its pads swamp the second softmax if they compete.
            prompt_only_tokens: self.tokenizer.pad() == 0,
        }
    }

    /// The CLIP tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The noise predictor.
    pub fn unet(&self) -> &UNet {
        &self.unet
    }

    /// The autoencoder.
    pub fn vae(&self) -> &Vae {
        &self.vae
    }

    /// The scheduler configuration.
    pub fn schedulers(&self) -> &SchedulerConfig {
        &self.schedulers
    }

    /// A prompt's tokens and words.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn encode(&self, prompt: &str) -> Result<Encoding> {
        let model = || self.name.clone();
        self.tokenizer.encode(prompt).map_err(|source| Error::Tokenizer { model: model(), source })
    }

    /// States `[1, 77, d]` of a prompt.
    ///
    /// # Errors
    /// If the tensor library fails.
    pub fn text_states(&self, prompt: &str) -> Result<Tensor> {
        self.text_encoder.states(&self.encode(prompt)?.ids)
    }
}

fn require_folder(path: &Path, model: &str) -> Result<()> {
    let unreadable =
        |source| Error::Read { model: model.to_owned(), file: INDEX.to_owned(), source };
    std::fs::metadata(path.join(INDEX)).map(|_| ()).map_err(unreadable)
}

fn load_tokenizer(loader: &mut Loader<'_>) -> Result<Tokenizer> {
    const SPECIAL: &str = "tokenizer/special_tokens_map.json";
    let vocab = loader.bytes("tokenizer/vocab.json")?;
    let merges = loader.bytes("tokenizer/merges.txt")?;
    let special = loader.exists(SPECIAL).then(|| loader.bytes(SPECIAL)).transpose()?;
    Tokenizer::new(&vocab, &merges, special.as_deref())
        .map_err(|source| Error::Tokenizer { model: loader.model().to_owned(), source })
}
