//! Lists models in Hugging Face layout over HTTP.
//!
//! A [`Hub`] lists a repository at a revision as a [`Snapshot`].

mod environment;
mod error;
mod http;
mod hub;
pub mod limits;
mod paths;
mod retry;
mod snapshot;

pub use error::{Error, Result};
pub use hub::{ENDPOINT, Hub};
pub use retry::Waits;
pub use snapshot::{RemoteFile, Snapshot};
