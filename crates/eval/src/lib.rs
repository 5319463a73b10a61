//! Whether images show what their prompts say: the metrics of the Attend-and-Excite paper.
//!
//! Not here: making the images (`excite_diffusion`), fetching them, the command line.

pub mod binding;
pub mod blip;
pub mod clip;
mod error;
mod folder;
pub mod images;
pub mod measure;
pub mod plots;
pub mod preprocess;
pub mod report;
pub mod scores;
pub mod sheets;
pub mod statistics;
pub mod templates;
mod transformer;

pub use error::{Error, Result};
