//! Fetches models in Hugging Face layout over HTTP, and checks what was fetched.
//!
//! A [`Hub`] lists a repository at a revision as a [`Snapshot`], a selection says which of its
//! files a Stable Diffusion pipeline needs, [`Hub::fetch`] brings them into a folder, and the
//! [`Source`] it leaves there says what every file must be. No bytes reach their final name before
//! their digest is that of the listing. Not here: what the files mean (`excite-diffusion`).

mod digest;
mod environment;
mod error;
mod fetch;
mod http;
mod hub;
pub mod limits;
mod part;
mod paths;
mod retry;
mod selection;
mod snapshot;
mod source;

pub use error::{Error, Result};
pub use fetch::Progress;
pub use hub::{ENDPOINT, Hub};
pub use retry::Waits;
pub use selection::{MODEL_INDEX, Precision};
pub use snapshot::{RemoteFile, Snapshot};
pub use source::{Damage, Mismatch, SOURCE, Source, SourceFile};
