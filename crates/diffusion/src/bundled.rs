//! The model that is part of the program.

use excite_prompt::{CLIP_MERGES, CLIP_VOCAB};

use crate::folder::{EmbeddedFiles, Folder};

/// Name of the bundled model.
pub const BUNDLED: &str = "emoji";

macro_rules! files {
    ($($file:literal),+ $(,)?) => {
        &[
            ("tokenizer/vocab.json", CLIP_VOCAB),
            ("tokenizer/merges.txt", CLIP_MERGES),
            $((
                $file,
                include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/emoji/", $file)),
            )),+
        ]
    };
}

const FILES: EmbeddedFiles = files!(
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/special_tokens_map.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
);

/// The bundled model's files.
pub fn bundled() -> Folder {
    Folder::Embedded { name: BUNDLED, files: FILES }
}
