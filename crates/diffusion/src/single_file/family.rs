//! Which kind of checkpoint a file is, by the keys that only that kind has.

use crate::error::{Error, Result};
use crate::weights::File;

/// A family whose layout is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// Stable Diffusion 1.x: CLIP ViT-L.
    Sd1,
    /// Stable Diffusion 2.x: OpenCLIP ViT-H.
    Sd2,
    /// Stable Diffusion XL base: both CLIP ViT-L and OpenCLIP ViT-bigG.
    Sdxl,
}

/// A key prefix, what has it, and what to do instead. The first that fits counts.
const OTHERS: &[(&str, &str, &str)] = &[
    ("model.diffusion_model.joint_blocks.", "Stable Diffusion 3", ""),
    ("joint_blocks.", "Stable Diffusion 3", ""),
    ("model.diffusion_model.double_blocks.", "FLUX", ""),
    ("double_blocks.", "FLUX", ""),
    ("conditioner.embedders.0.model.", "SDXL refiner", "Use the SDXL base checkpoint."),
    ("control_model.", "ControlNet", "Name the checkpoint that it is made for."),
    ("lora_", "LoRA", "Merge it into its checkpoint with a tool of its community."),
    ("down_blocks.", "diffusers component", "Name the folder that has its model_index.json."),
    ("text_model.", "diffusers component", "Name the folder that has its model_index.json."),
];

impl Family {
    pub(super) fn of(file: &File) -> Result<Self> {
        let has = |prefix: &str| {
            let first = file.tensors().range(prefix.to_owned()..).next();
            first.is_some_and(|(key, _)| key.starts_with(prefix))
        };
        let refuse = |value: String, remedy: &str| {
            let general = "Use a checkpoint of Stable Diffusion 1.x, 2.x or XL base.";
            let remedy = if remedy.is_empty() { general } else { remedy };
            Err(Error::Unsupported {
                file: file.name().to_owned(),
                field: "family".into(),
                value,
                remedy: remedy.into(),
            })
        };
        for (prefix, name, remedy) in OTHERS {
            if has(prefix) {
                return refuse((*name).to_owned(), remedy);
            }
        }
        if !has("model.diffusion_model.input_blocks.") {
            return refuse("unknown (no UNet was found)".into(), "");
        }
        if !has("first_stage_model.decoder.") {
            let remedy = "Use a full checkpoint: this one was pruned of its autoencoder.";
            return refuse("a UNet without autoencoder".into(), remedy);
        }
        if has("conditioner.embedders.1.model.") {
            Ok(Self::Sdxl)
        } else if has("cond_stage_model.model.") {
            Ok(Self::Sd2)
        } else if has("cond_stage_model.transformer.") {
            Ok(Self::Sd1)
        } else {
            let remedy = "Use a full checkpoint: this one was pruned of its text encoder.";
            refuse("a UNet without text encoder".into(), remedy)
        }
    }

    /// Folders of its tokenizers.
    pub(super) fn tokenizers(self) -> &'static [&'static str] {
        match self {
            Self::Sd1 | Self::Sd2 => &["tokenizer"],
            Self::Sdxl => &["tokenizer", "tokenizer_2"],
        }
    }
}

/// Whether the UNet predicts velocity, if the file says so: in the texts of its header (the
/// `modelspec` convention) or by a tensor that only marks it.
pub(super) fn predicts_velocity(family: Family, file: &File) -> Result<Option<bool>> {
    if file.tensors().contains_key("ztsnr") {
        return Err(Error::Unsupported {
            file: file.name().to_owned(),
            field: "ztsnr".into(),
            value: "set (betas rescaled to zero terminal SNR)".into(),
            remedy: "Use a checkpoint that was trained without it.".into(),
        });
    }
    if file.tensors().contains_key("v_pred") {
        return Ok(Some(true));
    }
    let said = file.text("modelspec.prediction_type").map(|said| said.starts_with('v'));
    let named = file.text("modelspec.architecture").filter(|name| name.contains("-v2-"));
    let known = said.or(named.map(|name| name.contains("768-v")));
    Ok(known.or((family != Family::Sd2).then_some(false)))
}
