//! A loaded model: tokenizers, text encoders, UNet, autoencoder, scheduler configuration, digest.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use excite_jobs::{ModelFacts, ModelFile};
use excite_prompt::{Encoding, Tokenizer};
use serde_json::Value;

use crate::device::Compute;
use crate::error::{Error, Result};
use crate::folder::{Folder, Loader};
use crate::outline::Outline;
use crate::scheduler::SchedulerConfig;
use crate::text::{Text, TextStates, ZerosForNothing};
use crate::unet::UNet;
use crate::vae::Vae;
use crate::weights::Stored;

const INDEX: &str = "model_index.json";

/// A model in memory. Everything in it is frozen; runs borrow it.
pub struct Model {
    /// `name@digest`.
    name: String,
    family: &'static str,
    text: Text,
    unet: UNet,
    vae: Vae,
    schedulers: SchedulerConfig,
    components: Vec<(String, Stored)>,
    /// Of the weights in memory.
    bytes: u64,
    files: BTreeMap<String, ModelFile>,
    compute: Compute,
}

impl Model {
    /// Loads an unmodified diffusers folder or a single file, for the CPU.
    ///
    /// # Errors
    /// As [`Model::load_on`].
    pub fn load(folder: &Folder) -> Result<Self> {
        Self::load_on(folder, &Compute::cpu())
    }

    /// Loads an unmodified diffusers folder or a single file to where it will compute.
    ///
    /// # Errors
    /// If a file is missing, damaged, or asks for something this pipeline does not do; the error
    /// names file, key, expected and found shape. If a GPU has too little memory for it.
    pub fn load_on(folder: &Folder, compute: &Compute) -> Result<Self> {
        if let Some(free) = compute.free_bytes()? {
            Outline::read(folder)?.require_room(compute, free)?;
        }
        let mut loader = Loader::new(folder, compute)?;
        let pipeline = Pipeline::read(folder, &mut loader)?;
        let text = Text::load(&mut loader, pipeline.second_encoder)?;
        let unet = UNet::load(&mut loader)?;
        let wrong = |message: String| Error::Config { file: "unet/config.json".into(), message };
        if unet.context() != text.width() {
            let (context, width) = (unet.context(), text.width());
            return Err(wrong(format!(
                "`cross_attention_dim` is {context}, but the states of the text have {width}"
            )));
        }
        if unet.pooled().is_some() && unet.pooled() != text.pooled_width() {
            let (pooled, width) = (unet.pooled().unwrap_or(0), text.pooled_width().unwrap_or(0));
            return Err(wrong(format!(
                "`projection_class_embeddings_input_dim` leaves {pooled} for the pooled text, \
                 which has {width}"
            )));
        }
        let vae = Vae::load(&mut loader)?;
        let schedulers = SchedulerConfig::load(&mut loader)?;
        let guessed = loader.single_file().is_some_and(|single| !single.prediction_known());
        let mut model = Self {
            name: format!("{}@{}", loader.model(), loader.digest()),
            family: family(text.pooled_width().is_some(), text.pads_with_zero()),
            schedulers,
            bytes: loader.memory_bytes(),
            components: loader.components().to_vec(),
            files: loader.into_files(),
            text,
            unet,
            vae,
            compute: compute.clone(),
        };
        if guessed {
            model.settle_prediction()?;
        }
        // Whichever thread computes with it, the weights are there.
        compute.finish()?;
        Ok(model)
    }

    /// A single file of SD 2.x does not say whether its UNet predicts noise or velocity, but the
    /// UNet does: of latents that are mostly noise, predicted noise is about the latents, predicted
    /// velocity about minus the picture, which is much less (the test that web UIs make).
    fn settle_prediction(&mut self) -> Result<()> {
        let latents = Tensor::full(0.5f32, (1, 4, 8, 8), &Device::Cpu)?;
        let states = Tensor::full(0.5f32, (1, 2, self.unet.context()), &Device::Cpu)?;
        let text = TextStates { states, pooled: None };
        let conditioning = self.unet.condition(&text, (64, 64))?;
        let last = (self.schedulers.train_timesteps() - 1) as f32;
        let predicted = self.unet.noise(&latents, last, &conditioning)?;
        let excess = (predicted - latents)?.mean_all()?.to_dtype(DType::F32)?.to_scalar::<f32>()?;
        if excess < -1. {
            self.schedulers.set_velocity();
            self.unet.set_sample_size(96);
        }
        Ok(())
    }

    /// `name@digest`; the digest covers the files that were loaded.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Of which family, as people call it: "SD 1.x", "SD 2.x" or "SDXL".
    pub fn family(&self) -> &'static str {
        self.family
    }

    /// How large each component is and how its weights are stored, by the folder's name.
    pub fn components(&self) -> &[(String, Stored)] {
        &self.components
    }

    /// Bytes that the weights take in memory.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What it computes on.
    pub fn compute(&self) -> &Compute {
        &self.compute
    }

    /// Exactly the files that were loaded, by their path in the folder; the digest is
    /// [`excite_jobs::ModelCard::digest_of`] them.
    pub fn files(&self) -> &BTreeMap<String, ModelFile> {
        &self.files
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
            side_min: self.unet.side_min() as u32 * factor,
            train_timesteps: self.schedulers.train_timesteps(),
            scheduler: self.schedulers.own(),
            prompt_only_tokens: self.text.pads_with_zero(),
        }
    }

    /// The CLIP tokenizer; where there are two, words have the same positions in both.
    pub fn tokenizer(&self) -> &Tokenizer {
        self.text.tokenizer()
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
        self.text.encode(&self.name, prompt)
    }

    /// The states of a prompt.
    ///
    /// # Errors
    /// If the tensor library fails.
    pub fn text_states(&self, prompt: &str) -> Result<TextStates> {
        self.text.states(&self.name, prompt)
    }

    /// The states of a negative prompt; "" is none, which SDXL sees as zeros.
    ///
    /// # Errors
    /// If the tensor library fails.
    pub fn negative_text_states(&self, prompt: &str) -> Result<TextStates> {
        self.text.negative_states(&self.name, prompt)
    }
}

/// A family as people call it, by whether it has a second text encoder, and whether pads are "!".
pub(crate) fn family(second_encoder: bool, pads_with_zero: bool) -> &'static str {
    match (second_encoder, pads_with_zero) {
        (true, _) => "SDXL",
        (false, true) => "SD 2.x",
        (false, false) => "SD 1.x",
    }
}

/// What `model_index.json` says.
pub(crate) struct Pipeline {
    pub(crate) class: String,
    pub(crate) second_encoder: Option<ZerosForNothing>,
}

impl Pipeline {
    /// # Errors
    /// If there is no such file, or it names a pipeline of another family.
    pub(crate) fn read(folder: &Folder, loader: &mut Loader<'_>) -> Result<Self> {
        if let Folder::Directory(path) = folder {
            require_folder(path, &folder.name())?;
        }
        let index: serde_json::Map<String, Value> = loader.json(INDEX)?;
        let class = index.get("_class_name").and_then(Value::as_str).unwrap_or("absent");
        let second_encoder = match class {
            "StableDiffusionPipeline" | "StableDiffusionAttendAndExcitePipeline" => None,
            "StableDiffusionXLPipeline" => {
                let zeros = index.get("force_zeros_for_empty_prompt").and_then(Value::as_bool);
                Some(ZerosForNothing(zeros.unwrap_or(true)))
            }
            class => {
                return Err(Error::Unsupported {
                    file: INDEX.into(),
                    field: "_class_name".into(),
                    value: format!("`{class}`"),
                    remedy: "Use a StableDiffusionPipeline (SD 1.x, 2.x) or \
                             StableDiffusionXLPipeline (SDXL base)."
                        .into(),
                });
            }
        };
        Ok(Self { class: class.to_owned(), second_encoder })
    }
}

fn require_folder(path: &Path, model: &str) -> Result<()> {
    let unreadable =
        |source| Error::Read { model: model.to_owned(), file: INDEX.to_owned(), source };
    std::fs::metadata(path.join(INDEX)).map(|_| ()).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use candle_core::Var;
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::device::Precision;
    use crate::layers::testing::composed;
    use crate::unet::Conditioning;

    fn emoji() -> PathBuf {
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/emoji"))
    }

    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            let target = to.join(path.file_name().unwrap());
            if path.is_dir() {
                copy(&path, &target);
            } else {
                std::fs::copy(&path, &target).unwrap();
            }
        }
    }

    /// Whoever has the files can check that they are the model.
    #[test]
    fn the_digest_follows_from_the_files() {
        let model = Model::load(&Folder::Directory(emoji())).unwrap();
        let digest = excite_jobs::ModelCard::digest_of(model.files());
        assert_eq!(model.name(), format!("emoji@{digest}"));
        for (path, file) in model.files() {
            let bytes = std::fs::read(emoji().join(path)).unwrap();
            assert_eq!(file.bytes, bytes.len() as u64, "{path}");
            assert_eq!(file.sha256, format!("{:x}", Sha256::digest(&bytes)), "{path}");
        }
        assert!(model.files().contains_key("unet/config.json"));
        assert!(!model.files().contains_key("README.md"), "what is not loaded is no part of it");
    }

    /// Text, noise, map, the gradient of a loss on the map, and picture, for latents of some size.
    fn numbers(model: &Model) -> Vec<(&'static str, Tensor)> {
        let text = model.text_states("a lion and a elephant").unwrap();
        let conditioning = model.unet.condition(&text, (64, 64)).unwrap();
        let values: Vec<f32> =
            (0..2 * 4 * 64).map(|i| ((i * 37 % 101) as f32 - 50.) / 30.).collect();
        let latents = Tensor::from_vec(values, (2, 4, 8, 8), &Device::Cpu).unwrap();
        let both = Conditioning::batch(&[&conditioning, &conditioning]).unwrap();
        let noise = model.unet.noise(&latents, 981., &both).unwrap();
        let leaf = Var::from_tensor(&latents).unwrap();
        let map = model.unet.map(leaf.as_tensor(), 981., &both).unwrap();
        let loss = map.narrow(2, 2, 4).unwrap().sqr().unwrap().sum_all().unwrap();
        let gradient = loss.backward().unwrap().remove(leaf.as_tensor()).unwrap();
        let picture = model.vae.decode(&latents).unwrap();
        let states = text.states;
        let map = map.detach();
        vec![
            ("text", states),
            ("noise", noise),
            ("map", map),
            ("gradient", gradient),
            ("picture", picture),
        ]
    }

    /// The way that a GPU takes, on the CPU: composed layers, what lies between them in f32 or f16,
    /// f32 at the ends. What differs in f16 is what its 11 bits cannot hold. (candle multiplies no
    /// bf16 on a CPU.)
    #[test]
    fn composed_layers_give_the_numbers_of_the_kernels_as_far_as_the_bits_go() {
        let wanted = numbers(&Model::load(&Folder::Directory(emoji())).unwrap());
        for (precision, tolerance) in [(Precision::F32, 2e-5), (Precision::F16, 5e-3)] {
            let compute = Compute::composed(precision);
            let got = composed(|| {
                let model = Model::load_on(&Folder::Directory(emoji()), &compute).unwrap();
                numbers(&model)
            });
            for ((name, want), (_, got)) in wanted.iter().zip(got) {
                assert_eq!(got.dtype(), DType::F32, "{name}");
                let largest = |t: &Tensor| {
                    let flat = t.abs().unwrap().flatten_all().unwrap();
                    flat.max(0).unwrap().to_scalar::<f32>().unwrap()
                };
                let off = largest(&(want - &got).unwrap()) / largest(want);
                // The autoencoder computes in f32 whatever the others do.
                let tolerance = if *name == "picture" { 2e-5 } else { tolerance };
                assert!(off <= tolerance, "{precision}: {name} is off by {off}");
            }
        }
    }

    /// A UNet whose predictions are far below its input predicts velocity, one whose predictions
    /// are about its input does not.
    #[test]
    fn what_a_unet_predicts_shows_in_its_predictions() {
        let folder = tempfile::tempdir().unwrap();
        copy(&emoji(), folder.path());
        for (shift, velocity) in [(0f32, false), (-5., true)] {
            let path = folder.path().join("unet/diffusion_pytorch_model.safetensors");
            let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
            let shifted = Tensor::new(&[shift; 4], &Device::Cpu).unwrap();
            tensors.insert("conv_out.bias".into(), shifted);
            candle_core::safetensors::save(&tensors, &path).unwrap();
            let mut model = Model::load(&Folder::Directory(folder.path().to_owned())).unwrap();
            assert_eq!(model.facts().width, 128);
            model.settle_prediction().unwrap();
            assert_eq!(model.schedulers().predicts_velocity(), velocity);
            assert_eq!(model.facts().width, if velocity { 768 } else { 128 });
        }
    }
}
