//! What makes images of a micro-batch: the guided pipeline, or an empty one that needs no model.
//!
//! Runs on the compute thread and knows no queue. Not here: what follows a failure (`ladder`),
//! where images go (`finish`).

mod empty;
mod guided;

use std::time::Instant;

use excite_diffusion::Rendered;
use excite_jobs::{Class, Failure, Job, Sidecar, Spec};
use sha2::{Digest, Sha256};

pub use empty::{Empty, Paced};
pub use guided::Guided;

use crate::task::Task;
use crate::watch::{Stop, Watch};

/// What became of a job of a micro-batch.
pub type Row = Result<Product, RowError>;

/// Why there is no image of a job.
#[derive(Debug, Clone, PartialEq)]
pub enum RowError {
    /// Its batch was cancelled.
    Cancelled,
    /// The worker stops; another one will make it.
    Abandoned,
    /// It failed.
    Failed(Failure),
}

/// Why a run has no images.
#[derive(Debug)]
pub enum RunError {
    /// It was stopped.
    Stopped(Stop),
    /// Nothing was begun: there is memory for fewer.
    TooMany {
        /// For how many.
        fits: usize,
    },
    /// It needs more memory than there is.
    OutOfMemory(String),
    /// There is no such model here: whatever its jobs are, they fail alike.
    Model(Failure),
    /// One of its jobs failed, and it cannot be told which one.
    Failed(Failure),
}

/// Makes images.
pub trait Pipeline: Send {
    /// Makes the images of jobs that share a run, an entry a task; asks and tells `watch`.
    ///
    /// # Errors
    /// If there is not one image.
    fn render(&mut self, tasks: &[Task], watch: &Watch) -> Result<Vec<Row>, RunError>;

    /// Gives up memory that the tasks do not need; whether there was any.
    fn free_memory(&mut self, tasks: &[Task]) -> bool;

    /// The kind of machine, for results that are found again; `None` if making an image costs less
    /// than looking for it.
    fn kind(&self) -> Option<String> {
        None
    }

    /// Makes a small image whose pixels are known.
    ///
    /// # Errors
    /// What is wrong with it.
    fn self_test(&mut self) -> Result<(), String>;
}

/// An image before it is encoded.
pub struct Product {
    made: Made,
    /// Compute time: its share of the micro-batch's, by the steps that were made for it.
    seconds: f64,
}

enum Made {
    Rendered(Box<Rendered>),
    Empty(Box<Spec>),
}

/// What is stored of an image.
#[derive(Debug)]
pub struct Encoded {
    /// The file.
    pub png: Vec<u8>,
    /// Its sidecar.
    pub sidecar: Sidecar,
    /// A picture of the subjects' maps.
    pub attention: Option<Vec<u8>>,
    /// What every step recorded.
    pub trace: Option<Vec<u8>>,
}

impl Product {
    /// Encodes it as the command line does: the same spec gives the same bytes. Takes a while, so
    /// not for an async task.
    ///
    /// # Errors
    /// If the tensor library fails.
    pub fn encode(&self, job: &Job) -> excite_diffusion::Result<Encoded> {
        let (custom_id, labels) = (job.custom_id.clone(), job.labels.clone());
        match &self.made {
            Made::Empty(spec) => {
                let png = empty::png(spec)?;
                let sidecar = empty::sidecar(spec, sha256(&png), self.seconds, custom_id, labels);
                Ok(Encoded { png, sidecar, attention: None, trace: None })
            }
            Made::Rendered(rendered) => {
                // The seed that was kept is not always the job's.
                let png = rendered.picture.to_png_of(&rendered.spec)?;
                let sha256 = sha256(&png);
                let overview = job.outputs.attention.then(|| {
                    let picture = excite_diffusion::picture::heat::overview(rendered)?;
                    Some(picture.to_png(&[]))
                });
                let trace = job.outputs.trace.then(|| excite_diffusion::Trace::to_bytes(rendered));
                Ok(Encoded {
                    sidecar: excite_diffusion::sidecar(
                        rendered,
                        sha256,
                        self.seconds,
                        custom_id,
                        labels,
                    ),
                    attention: overview.flatten().transpose()?,
                    trace: trace.transpose()?,
                    png,
                })
            }
        }
    }
}

impl std::fmt::Debug for Product {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Product").field("seconds", &self.seconds).finish_non_exhaustive()
    }
}

/// In hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

fn each(since: Instant, images: usize) -> f64 {
    since.elapsed().as_secs_f64() / images.max(1) as f64
}

/// Whether memory was short, while it computed or for a model.
pub(crate) fn is_out_of_memory(error: &excite_diffusion::Error) -> bool {
    use excite_diffusion::Error as E;
    matches!(error, E::OutOfMemory(_) | E::DeviceMemory { .. })
}

/// What an error of the pipeline means for a run.
pub(crate) fn run_error(error: &excite_diffusion::Error, watch: Result<(), Stop>) -> RunError {
    match error {
        excite_diffusion::Error::Cancelled => {
            RunError::Stopped(watch.err().unwrap_or(Stop::Cancelled))
        }
        error if is_out_of_memory(error) => RunError::OutOfMemory(chain(error)),
        error => {
            let class = match error {
                // What the message names is the job's: trying again cannot help.
                excite_diffusion::Error::Spec(_)
                | excite_diffusion::Error::Steps { .. }
                | excite_diffusion::Error::NonFinite { .. }
                | excite_diffusion::Error::Tokenizer { .. } => Class::Invalid,
                _ => Class::Transient,
            };
            RunError::Failed(Failure::new(class, error.advice().0, chain(error)))
        }
    }
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use excite_diffusion::Error;

    use super::*;

    fn library(words: &str) -> Error {
        candle_core::Error::Msg(words.into()).into()
    }

    /// What a GPU's driver says; which words mean it is `excite_diffusion`'s.
    #[test]
    fn short_memory_is_the_ladder_s_and_no_failure_of_a_job() {
        let driver = r#"DriverError(CUDA_ERROR_OUT_OF_MEMORY, "out of memory")"#;
        let device = candle_core::Error::Cuda(driver.into()).bt();
        match run_error(&Error::from(device), Ok(())) {
            RunError::OutOfMemory(message) => assert!(message.contains(driver), "{message}"),
            other => panic!("{other:?}"),
        }
        assert!(!is_out_of_memory(&library("shape mismatch in matmul")));
        assert!(!is_out_of_memory(&Error::Spec("`out of memory` is no scheduler".into())));
    }

    #[test]
    fn what_the_job_is_to_blame_for_is_not_tried_again() {
        let class = |error: &Error| match run_error(error, Ok(())) {
            RunError::Failed(failure) => failure.class,
            other => panic!("{other:?}"),
        };
        assert_eq!(class(&Error::Spec("x".into())), Class::Invalid);
        assert_eq!(class(&library("shape mismatch")), Class::Transient);
        let stopped = run_error(&Error::Cancelled, Err(Stop::Deadline));
        assert!(matches!(stopped, RunError::Stopped(Stop::Deadline)));
    }
}
