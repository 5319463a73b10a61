//! What can go wrong between a model folder and a finished image.
//!
//! Every message names the file, key or field and what was found; `advice` adds a stable code for
//! programs and the remedy for people. Not here: mistakes in a job (`excite_jobs::LineError`).

use std::path::PathBuf;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of the pipeline.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of the model folder could not be read.
    #[error("cannot read `{file}` of the model `{model}`")]
    Read {
        /// Model name.
        model: String,
        /// Path relative to the model folder.
        file: String,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// None of the names under which a component's weights are known is there.
    #[error("the model `{model}` has none of {}", list(candidates))]
    NoWeights {
        /// Model name.
        model: String,
        /// Paths tried, relative to the model folder.
        candidates: Vec<String>,
    },
    /// A configuration file is not what it should be.
    #[error("`{file}`: {message}")]
    Config {
        /// Path relative to the model folder.
        file: String,
        /// What is wrong, with the field and its value.
        message: String,
    },
    /// A configuration asks for something this pipeline does not do.
    #[error("`{file}`: `{field}` is {value}, which is not supported")]
    Unsupported {
        /// Path relative to the model folder.
        file: String,
        /// Field of the configuration.
        field: String,
        /// Its value.
        value: String,
        /// What to do instead.
        remedy: String,
    },
    /// A weight file is not valid safetensors.
    #[error("`{file}` is corrupted: {message}")]
    Corrupt {
        /// Path relative to the model folder.
        file: String,
        /// What the reader found.
        message: String,
    },
    /// A tensor is missing from a weight file.
    #[error("`{file}` has no tensor `{key}` (expected shape {expected:?})")]
    MissingTensor {
        /// Path relative to the model folder.
        file: String,
        /// Key of the tensor.
        key: String,
        /// Shape the configuration implies.
        expected: Vec<usize>,
    },
    /// A tensor's shape contradicts the configuration.
    #[error("`{file}`: tensor `{key}` has shape {found:?}, expected {expected:?}")]
    Shape {
        /// Path relative to the model folder.
        file: String,
        /// Key of the tensor.
        key: String,
        /// Shape the configuration implies.
        expected: Vec<usize>,
        /// Shape in the file.
        found: Vec<usize>,
    },
    /// A weight file has more than its configuration knows.
    #[error(
        "`{file}` has {count} tensors that its configuration does not know, such as {}",
        list(keys)
    )]
    UnusedTensors {
        /// Path relative to the model folder.
        file: String,
        /// How many.
        count: usize,
        /// Some of them.
        keys: Vec<String>,
    },
    /// Weights as a pickle, which is a program: opening it runs it.
    #[error("`{file}` is a pickle, which can run any program when it is opened")]
    Pickle {
        /// Path relative to the model folder.
        file: String,
    },
    /// A weight is NaN or infinite.
    #[error("`{file}`: tensor `{key}` holds a value that is not finite")]
    NonFiniteWeights {
        /// Path relative to the model folder.
        file: String,
        /// Key of the tensor.
        key: String,
    },
    /// NaN or infinity appeared while an image was made.
    #[error("{what} is not finite at step {step} (seed {seed})")]
    NonFinite {
        /// "the loss", "the gradient", "the noise prediction" or "the latents".
        what: &'static str,
        /// Step, from 0.
        step: usize,
        /// Seed of the image.
        seed: u32,
    },
    /// The scheduler cannot make that many steps.
    #[error("`steps` is {steps}, but {scheduler} makes at most {max} with this model")]
    Steps {
        /// As asked.
        steps: u32,
        /// Scheduler's name.
        scheduler: &'static str,
        /// Largest number that works.
        max: u32,
    },
    /// Specs that cannot share a run, or a spec that does not fit the model.
    #[error("{0}")]
    Spec(String),
    /// A checkpoint that cannot be continued.
    #[error("the checkpoint cannot be continued: {0}")]
    Checkpoint(String),
    /// A trace or checkpoint file is not what it should be.
    #[error("the tensor file is not usable: {message}")]
    Tensors {
        /// What is wrong.
        message: String,
    },
    /// Someone asked to stop; nothing of the running step was kept.
    #[error("stopped on request")]
    Cancelled,
    /// A PNG could not be encoded or read.
    #[error("{path}: {message}", path = path.display())]
    Png {
        /// File.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The tokenizer's files are not usable.
    #[error("the tokenizer of the model `{model}`")]
    Tokenizer {
        /// Model name.
        model: String,
        /// What is wrong.
        source: excite_prompt::TokenizerError,
    },
    /// An operation of the tensor library failed.
    #[error("tensor operation failed")]
    Candle(#[from] candle_core::Error),
}

fn list(items: &[String]) -> String {
    items.iter().map(|item| format!("`{item}`")).collect::<Vec<_>>().join(", ")
}

impl Error {
    /// A stable code for programs and an imperative for people.
    pub fn advice(&self) -> (&'static str, String) {
        let fetch = "Fetch the model again, or point `--model` at a complete diffusers folder.";
        match self {
            Self::Read { .. } => ("model_unreadable", fetch.into()),
            Self::NoWeights { .. } => ("weights_missing", fetch.into()),
            Self::Config { .. } => ("model_config", fetch.into()),
            Self::Unsupported { remedy, .. } => ("unsupported", remedy.clone()),
            Self::Corrupt { .. } => ("weights_corrupt", fetch.into()),
            Self::Pickle { .. } => (
                "pickle",
                "Use the safetensors file of this model, or convert it: most repositories have one."
                    .into(),
            ),
            Self::MissingTensor { .. } | Self::Shape { .. } | Self::UnusedTensors { .. } => (
                "weights_mismatch",
                "Check that the weights belong to the config.json beside them; fetch both again."
                    .into(),
            ),
            Self::NonFiniteWeights { .. } => ("weights_not_finite", fetch.into()),
            Self::NonFinite { .. } => (
                "not_finite",
                "Try another seed, or a smaller `scale_factor`; if every seed fails, check the model."
                    .into(),
            ),
            Self::Steps { max, .. } => ("steps", format!("Set `steps` to 1..={max}.")),
            Self::Spec(_) => ("spec", "Change the field that the message names.".into()),
            Self::Checkpoint(_) => ("checkpoint", "Start this image again from step 0.".into()),
            Self::Tensors { .. } => ("tensors", "Write the file anew.".into()),
            Self::Cancelled => ("cancelled", "Run the same command again to go on.".into()),
            Self::Png { .. } => ("png", "Name a PNG that excite wrote.".into()),
            Self::Tokenizer { .. } => ("tokenizer", fetch.into()),
            Self::Candle(_) => ("tensor", "Report this with the command that led to it.".into()),
        }
    }
}
