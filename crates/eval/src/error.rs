//! What can go wrong between a model's folder and a figure about a picture.
//!
//! Every message names the file, field or key and what was found; `advice` adds a stable code for
//! programs and the remedy for people. Not here: what goes wrong while images are made
//! (`excite_diffusion::Error`).

use std::path::PathBuf;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of the evaluation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of a model's folder could not be read.
    #[error("cannot read `{path}`", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("`{path}`: {message}", path = .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the field and its value.
        message: String,
    },
    /// A configuration asks for something that is not done here.
    #[error("`{path}`: `{field}` is {value}, which is not supported", path = .path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// Field of the configuration.
        field: String,
        /// Its value.
        value: String,
        /// What to do instead.
        remedy: String,
    },
    /// A tensor is missing from the weights.
    #[error("`{path}` has no tensor `{key}` (expected shape {expected:?})", path = .path.display())]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// Key of the tensor.
        key: String,
        /// Shape the configuration implies.
        expected: Vec<usize>,
    },
    /// A tensor's shape contradicts the configuration.
    #[error(
        "`{path}`: tensor `{key}` has shape {found:?}, expected {expected:?}",
        path = .path.display()
    )]
    Shape {
        /// The file.
        path: PathBuf,
        /// Key of the tensor.
        key: String,
        /// Shape the configuration implies.
        expected: Vec<usize>,
        /// Shape in the file.
        found: Vec<usize>,
    },
    /// The weights have more than their configuration knows.
    #[error(
        "`{path}` has {count} tensors that its configuration does not know, such as `{key}`",
        path = .path.display()
    )]
    UnusedTensors {
        /// The file.
        path: PathBuf,
        /// How many.
        count: usize,
        /// One of them.
        key: String,
    },
    /// A tokenizer's files are not usable.
    #[error("the tokenizer of `{path}`: {message}", path = .path.display())]
    Tokenizer {
        /// The model's folder.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A picture has a size that the model does not take.
    #[error("a picture has {width} x {height} pixels, {wrong}")]
    Picture {
        /// Pixels.
        width: usize,
        /// Pixels.
        height: usize,
        /// What is wrong with that.
        wrong: String,
    },
    /// A feature has no direction: NaN, infinity or all zeros.
    #[error("the feature of {0} is not finite or has no length")]
    NoDirection(String),
    /// A caption says nothing, so it resembles nothing.
    #[error("the caption is empty")]
    EmptyCaption,
    /// An operation of the tensor library failed.
    #[error("tensor operation failed")]
    Candle(#[from] candle_core::Error),
}

impl Error {
    /// A stable code for programs and an imperative for people.
    pub fn advice(&self) -> (&'static str, String) {
        let (code, remedy) = match self {
            Self::Read { .. } => (
                "model_unreadable",
                "Name a complete transformers folder: config.json, model.safetensors, \
                 preprocessor_config.json and the tokenizer's files.",
            ),
            Self::Malformed { .. } | Self::Tokenizer { .. } => {
                ("model_config", "Fetch the model again; its files are damaged or incomplete.")
            }
            Self::Unsupported { remedy, .. } => ("unsupported", remedy.as_str()),
            Self::MissingTensor { .. } | Self::Shape { .. } | Self::UnusedTensors { .. } => (
                "weights_mismatch",
                "Check that the weights belong to the config.json beside them; fetch both again.",
            ),
            Self::Picture { .. } => {
                ("picture_size", "Give pictures of that size, or a model that resizes them.")
            }
            Self::NoDirection(_) => {
                ("not_finite", "Fetch the model again; its weights are damaged.")
            }
            Self::EmptyCaption => {
                ("empty_caption", "Leave this picture out of the text-text similarity, and say so.")
            }
            Self::Candle(_) => ("tensor", "Report this with the command that led to it."),
        };
        (code, remedy.to_owned())
    }
}
