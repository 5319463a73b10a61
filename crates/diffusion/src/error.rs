//! What can go wrong between a model folder and a finished image.
//!
//! Every message names the file, key or field and what was found; `advice` adds a stable code for
//! programs and the remedy for people. Not here: mistakes in a job (`excite_jobs::LineError`).

use std::path::PathBuf;

use crate::device::Precision;

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
    /// A weight is too large for the chosen precision.
    #[error("`{file}`: tensor `{key}` holds {value}, more than f16 can hold")]
    WeightOverflow {
        /// Path relative to the model folder.
        file: String,
        /// Key of the tensor.
        key: String,
        /// The largest of its weights.
        value: f32,
    },
    /// A device was asked for that this program does not find.
    #[error("there is no device `{device}`: {why}")]
    NoDevice {
        /// As it was asked for.
        device: String,
        /// What was found instead.
        why: String,
        /// What to do.
        remedy: String,
    },
    /// A precision was asked for that the device does not compute in.
    #[error("the precision {precision} is not for {device}")]
    Precision {
        /// As it was asked for.
        precision: Precision,
        /// Which device.
        device: String,
        /// What to do.
        remedy: String,
    },
    /// A model does not fit into a GPU's memory.
    #[error(
        "the model `{model}` needs about {} GB of memory on {device} ({} for weights in {precision}, \
         about {} for one image of {side}x{side} pixels), and {} GB are free",
        gigabytes(.weights + .activations), gigabytes(*.weights), gigabytes(*.activations),
        gigabytes(*.free)
    )]
    DeviceMemory {
        /// Model name.
        model: String,
        /// Which device.
        device: String,
        /// Number format of the weights.
        precision: Precision,
        /// Bytes of the weights.
        weights: u64,
        /// Bytes of what a pass keeps, estimated.
        activations: u64,
        /// Side of the images in pixels.
        side: u32,
        /// Bytes that are free.
        free: u64,
    },
    /// Memory was short while it computed.
    #[error("out of memory: {0}")]
    OutOfMemory(String),
    /// NaN or infinity appeared while an image was made.
    #[error(
        "{what} is not finite at step {step} (row {row}, seed {seed}){}",
        layer.as_ref().map_or_else(String::new, |layer| format!("; `{layer}` is the first layer"))
    )]
    NonFinite {
        /// "the loss", "the gradient", "the noise prediction", "the latents" or "the picture".
        what: &'static str,
        /// Step, from 0.
        step: usize,
        /// Which image of its run, from 0.
        row: usize,
        /// Seed of the image.
        seed: u32,
        /// The first layer whose output is not finite, by its path in the weight files, if it is
        /// one of the UNet's or the autoencoder's.
        layer: Option<String>,
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
    /// A variable of the environment that cannot be meant.
    #[error("{variable} is `{value}`, which {wrong}")]
    Environment {
        /// Its name.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with that, as "is no number".
        wrong: String,
        /// What to do instead.
        remedy: String,
    },
    /// Vector instructions were asked for that cannot be had.
    #[error(transparent)]
    Instructions(#[from] excite_kernels::InstructionsError),
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
    Candle(#[source] candle_core::Error),
}

impl From<candle_core::Error> for Error {
    /// Short memory is told from other failures here, in one place for all callers.
    fn from(error: candle_core::Error) -> Self {
        let text = without_backtrace(&error).to_string();
        if says_out_of_memory(&text) { Self::OutOfMemory(text) } else { Self::Candle(error) }
    }
}

fn without_backtrace(error: &candle_core::Error) -> &candle_core::Error {
    match error {
        candle_core::Error::WithBacktrace { inner, .. } => without_backtrace(inner),
        error => error,
    }
}

/// The back ends of the tensor library say only in words that memory is short.
fn says_out_of_memory(text: &str) -> bool {
    let text = text.to_lowercase();
    let phrases = ["out of memory", "out_of_memory", "outofmemory", "cublas_status_alloc_failed"];
    let mut words = text.split(|c: char| !c.is_alphanumeric());
    phrases.iter().any(|said| text.contains(said)) || words.any(|word| word == "oom")
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e9)
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
            Self::WeightOverflow { .. } => {
                ("weights_overflow", "Set `--precision` to bf16 or f32.".into())
            }
            Self::NoDevice { remedy, .. } => ("no_device", remedy.clone()),
            Self::Precision { remedy, .. } => ("precision", remedy.clone()),
            Self::DeviceMemory { .. } => (
                "device_memory",
                "Stop what else uses the GPU, take a smaller precision or model, or `--device cpu`."
                    .into(),
            ),
            Self::OutOfMemory(_) => (
                "out_of_memory",
                "Make fewer images together or smaller ones, or stop what else uses the memory."
                    .into(),
            ),
            Self::NonFinite { .. } => (
                "not_finite",
                "Try another seed, or a smaller `scale_factor`; if every seed fails, check the model."
                    .into(),
            ),
            Self::Steps { max, .. } => ("steps", format!("Set `steps` to 1..={max}.")),
            Self::Spec(_) => ("spec", "Change the field that the message names.".into()),
            Self::Checkpoint(_) => ("checkpoint", "Start this image again from step 0.".into()),
            Self::Tensors { .. } => ("tensors", "Write the file anew.".into()),
            Self::Instructions(_) => (
                "environment",
                "Set EXCITE_INSTRUCTIONS to one of those, or unset it for the best of them.".into(),
            ),
            Self::Environment { remedy, .. } => ("environment", remedy.clone()),
            Self::Cancelled => ("cancelled", "Run the same command again to go on.".into()),
            Self::Png { .. } => ("png", "Name a PNG that excite wrote.".into()),
            Self::Tokenizer { .. } => ("tokenizer", fetch.into()),
            Self::Candle(_) => ("tensor", "Report this with the command that led to it.".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_memory_is_told_from_its_words() {
        for words in [
            "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")",
            "CublasError(CUBLAS_STATUS_ALLOC_FAILED)",
            "Metal error OOM while allocating",
            "kIOGPUCommandBufferCallbackErrorOutOfMemory",
        ] {
            // As the back end wraps it: what a driver says, with a backtrace behind it.
            let error = candle_core::Error::Cuda(words.into()).bt();
            let error = Error::from(error);
            assert!(matches!(&error, Error::OutOfMemory(said) if said == words), "{error:?}");
            assert_eq!(error.advice().0, "out_of_memory");
        }
        for words in ["shape mismatch in matmul", "a bathroom and a zoom lens"] {
            let error = Error::from(candle_core::Error::Msg(words.into()));
            assert!(matches!(error, Error::Candle(_)), "{words}");
        }
    }

    #[test]
    fn a_model_that_does_not_fit_says_how_much_it_needs() {
        let error = Error::DeviceMemory {
            model: "sd".into(),
            device: "Some GPU".into(),
            precision: Precision::F16,
            weights: 2_300_000_000,
            activations: 2_000_000_000,
            side: 512,
            free: 3_900_000_000,
        };
        let text = error.to_string();
        for part in ["4.3 GB", "2.3 for weights in f16", "2.0 for one image of 512x512", "3.9 GB"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
