//! The guided pipeline of Excite: Stable Diffusion whose latents are moved, while the image is
//! made, until every subject of the prompt is attended to (Generative Semantic Nursing, Chefer et
//! al., SIGGRAPH 2023).
//!
//! [`Model::load`] reads a diffusers folder, [`Run`] makes a micro-batch of images step by step,
//! [`Search`] tries further seeds until an image is good enough, [`Checkpoint`] carries one image across an interruption, [`Trace`] keeps what was seen. No
//! async and no network here; whoever waits, fetches or stores calls this crate.

mod bundled;
mod checkpoint;
mod device;
mod error;
mod folder;
mod guidance;
mod kind;
mod layers;
mod model;
mod noise;
mod outline;
pub mod picture;
mod probe;
mod run;
mod scheduler;
mod search;
mod sidecar;
mod single_file;
mod tensors;
mod text;
mod threads;
mod trace;
mod unet;
mod vae;
mod weights;

pub use bundled::{BUNDLED, bundled};
pub use candle_core::Tensor;
pub use checkpoint::Checkpoint;
pub use device::{Compute, DeviceChoice, Precision};
pub use error::{Error, Result};
pub use excite_kernels::Instructions;
pub use folder::{EmbeddedFiles, Folder};
pub use guidance::attend_and_excite::{Evaluation, Stages, Subjects};
pub use kind::kind;
pub use model::Model;
pub use noise::Generator;
pub use outline::{Needs, Outline};
pub use run::{Outputs, Rendered, Run, StepReport};
pub use scheduler::{Scheduler, SchedulerConfig};
pub use search::{Search, Wanted};
pub use sidecar::{attention, sidecar, step_lines, weakest};
pub use text::TextStates;
pub use threads::{THREADS_MAX, THREADS_VARIABLE, Threads, ThreadsFrom, threads};
pub use trace::{Observed, Record, Step, Trace};
pub use unet::{Conditioning, UNet};
pub use vae::Vae;
pub use weights::Stored;
