//! What a model is, without its weights in memory: configurations, and the headers of its files.

use excite_jobs::SchedulerName;

use crate::folder::{Folder, Loader};
use crate::model::{Pipeline, family};
use crate::scheduler::SchedulerConfig;
use crate::text::load_tokenizer;
use crate::unet;
use crate::vae;
use crate::weights::Stored;

/// Bytes of a weight in memory (f32).
const WEIGHT_BYTES: u64 = 4;

/// A model as `excite model show` prints it.
#[derive(Debug, Clone)]
pub struct Outline {
    /// Of the folder or file; the digest is not known without reading all of it.
    pub name: String,
    /// "SD 1.x", "SD 2.x" or "SDXL".
    pub family: &'static str,
    /// `_class_name` of its pipeline.
    pub class: String,
    /// Width and height in pixels where nobody says otherwise.
    pub side: u32,
    /// Pixels that both sides must be a multiple of.
    pub size_multiple: u32,
    /// Side of the maps that guidance reads, at that size.
    pub map_side: u32,
    /// The model's own scheduler, or its class if that is none of ours.
    pub scheduler: Result<SchedulerName, String>,
    /// Whether the UNet predicts velocity instead of noise; `None` if the files do not say.
    pub velocity: Option<bool>,
    /// How large each component is and how its weights are stored.
    pub components: Vec<(String, Stored)>,
    /// Bytes of the weight files.
    pub file_bytes: u64,
}

impl Outline {
    /// # Errors
    /// As [`crate::Model::load`], but for what only shows in the weights themselves.
    pub fn read(folder: &Folder) -> crate::Result<Self> {
        let mut loader = Loader::for_outline(folder)?;
        let pipeline = Pipeline::read(folder, &mut loader)?;
        let mut pads_with_zero = load_tokenizer(&mut loader, "tokenizer")?.pad() == 0;
        loader.weights("text_encoder", "model")?;
        if pipeline.second_encoder.is_some() {
            pads_with_zero |= load_tokenizer(&mut loader, "tokenizer_2")?.pad() == 0;
            loader.weights("text_encoder_2", "model")?;
        }
        let unet = unet::Shape::read(&mut loader)?;
        loader.weights("unet", unet::STEM)?;
        let factor = vae::factor(&mut loader)? as u32;
        loader.weights("vae", vae::STEM)?;
        let schedulers = SchedulerConfig::load(&mut loader)?;
        let known = loader.single_file().is_none_or(|single| single.prediction_known());
        Ok(Self {
            name: loader.model().to_owned(),
            family: family(pipeline.second_encoder.is_some(), pads_with_zero),
            class: pipeline.class,
            side: unet.sample_size as u32 * factor,
            size_multiple: unet.size_multiple as u32 * factor,
            map_side: unet.map_side as u32,
            scheduler: schedulers.own(),
            velocity: known.then(|| schedulers.predicts_velocity()),
            components: loader.components().to_vec(),
            file_bytes: loader.weight_bytes(),
        })
    }

    /// Weights of all components.
    pub fn parameters(&self) -> u64 {
        self.components.iter().map(|(_, stored)| stored.parameters).sum()
    }

    /// Bytes that the weights take in memory, to which come those of the images in progress.
    pub fn memory_bytes(&self) -> u64 {
        self.parameters() * WEIGHT_BYTES
    }
}
