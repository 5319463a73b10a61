//! What a model is, without its weights in memory: configurations, and the headers of its files.

use excite_jobs::SchedulerName;

use crate::device::Compute;
use crate::error::Error;
use crate::folder::{Folder, Loader, memory_bytes};
use crate::model::{Pipeline, family};
use crate::scheduler::SchedulerConfig;
use crate::text::load_tokenizer;
use crate::unet;
use crate::vae;
use crate::weights::Stored;

/// What a guided pass through a UNet keeps for its gradient, in tensors of the size of its first
/// level: 380 as measured on SD 1.4 (2 GB in f32), and a part more where norms and softmax are made
/// of single operations, as on a GPU.
const PASS_TENSORS: u64 = 500;
/// What decoding keeps at a time, in f32 tensors of 256 channels and the picture's size.
const DECODE_TENSORS: u64 = 6;
const DECODE_CHANNELS: u64 = 256;
/// What a program takes on a GPU before it computes: context, kernels, the work space of products.
const CONTEXT_BYTES: u64 = 600 << 20;

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
    /// Values of a tensor of the UNet's first level, at that size.
    first_level: u64,
}

/// About how much memory a model takes on a device, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// The weights, exactly.
    pub weights: u64,
    /// What it takes besides to make one guided image of the model's own size, estimated.
    pub activations: u64,
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
            first_level: (unet.channels * unet.sample_size * unet.sample_size) as u64,
        })
    }

    /// Weights of all components.
    pub fn parameters(&self) -> u64 {
        self.components.iter().map(|(_, stored)| stored.parameters).sum()
    }

    /// Bytes that the weights take in memory on the CPU, to which come those of the images in
    /// progress.
    pub fn memory_bytes(&self) -> u64 {
        self.needs(&Compute::cpu()).weights
    }

    /// About how much memory it takes to make an image.
    pub fn needs(&self, compute: &Compute) -> Needs {
        let precision = |component: &str| compute.of(component).precision();
        let pass = PASS_TENSORS * self.first_level * compute.precision().bytes();
        let pixels = u64::from(self.side) * u64::from(self.side);
        let decode = DECODE_TENSORS * DECODE_CHANNELS * pixels * size_of::<f32>() as u64;
        Needs {
            weights: memory_bytes(&self.components, precision),
            // A picture is decoded when the passes are over.
            activations: pass.max(decode) + if compute.is_gpu() { CONTEXT_BYTES } else { 0 },
        }
    }

    /// Refuses a device on which it cannot make one image.
    pub(crate) fn require_room(&self, compute: &Compute, free: u64) -> crate::Result<()> {
        let Needs { weights, activations } = self.needs(compute);
        if weights + activations <= free {
            return Ok(());
        }
        Err(Error::DeviceMemory {
            model: self.name.clone(),
            device: compute.name().to_owned(),
            precision: compute.precision(),
            weights,
            activations,
            side: self.side,
            free,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Precision;

    #[test]
    fn half_precision_needs_half_the_memory_but_for_the_autoencoder() {
        let outline = Outline::read(&crate::bundled()).unwrap();
        let needs = |precision| outline.needs(&Compute::composed(precision));
        let (full, half) = (needs(Precision::F32), needs(Precision::F16));
        assert_eq!(full.weights, 4 * outline.parameters());
        assert_eq!(outline.memory_bytes(), full.weights);
        let vae = outline.components.iter().find(|(name, _)| name == "vae").unwrap().1.parameters;
        assert_eq!(half.weights, 2 * (outline.parameters() + vae));
        assert!(full.activations > half.activations || full.activations > full.weights);
    }

    #[test]
    fn a_device_with_too_little_memory_is_refused() {
        let outline = Outline::read(&crate::bundled()).unwrap();
        let compute = Compute::composed(Precision::F16);
        let Needs { weights, activations } = outline.needs(&compute);
        outline.require_room(&compute, weights + activations).unwrap();
        let error = outline.require_room(&compute, weights + activations - 1).unwrap_err();
        assert_eq!(error.advice().0, "device_memory");
        assert!(error.to_string().contains("128x128"), "{error}");
    }
}
