//! Lists models in Hugging Face layout over HTTP, and selects what of them is needed.
//!
//! A [`Hub`] lists a repository at a revision as a [`Snapshot`], and a selection says which of its
//! files a Stable Diffusion pipeline needs.

mod digest;
mod environment;
mod error;
mod http;
mod hub;
pub mod limits;
mod paths;
mod retry;
mod selection;
mod snapshot;

pub use error::{Error, Result};
pub use hub::{ENDPOINT, Hub};
pub use retry::Waits;
pub use selection::{MODEL_INDEX, Precision};
pub use snapshot::{RemoteFile, Snapshot};
