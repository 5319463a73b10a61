//! Which model: the bundled one, which is part of the program, or a folder.

use std::path::PathBuf;

use excite_diffusion::{EmbeddedFiles, Folder, Model};

use crate::fault::{Fault, Status};
use crate::printer::Printer;

/// Name of the bundled model.
pub(crate) const BUNDLED: &str = "emoji";

macro_rules! files {
    ($($file:literal),+ $(,)?) => {
        &[$((
            $file,
            include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/emoji/", $file)),
        )),+]
    };
}

const FILES: EmbeddedFiles = files!(
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/vocab.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
);

/// Loads the bundled model by its name, any other from its folder.
pub(crate) fn load(model: &str, printer: &Printer) -> Result<Model, Fault> {
    let path = PathBuf::from(model);
    let folder = if path.is_dir() {
        Folder::Directory(path)
    } else if model == BUNDLED {
        Folder::Embedded { name: BUNDLED, files: FILES }
    } else {
        return Err(Fault::new(
            Status::Failed,
            "model_not_found",
            format!("there is no model `{model}`"),
            format!("Name the folder of a model in diffusers layout, or `{BUNDLED}`."),
        ));
    };
    let spinner = printer.spinner(format!("loading {model}"));
    let loaded = Model::load(&folder);
    drop(spinner);
    Ok(loaded?)
}
