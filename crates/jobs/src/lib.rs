//! What an image is, and how people ask for it.
//!
//! A [`Line`] is what a person writes: words, ranges of seeds, whatever they leave out. Checked
//! against a model it becomes one [`Spec`] a seed: everything that decides the pixels and nothing
//! about how they came to be. No tensors and no network here.

mod error;
pub mod limits;
mod line;
mod method;
mod resolve;
mod seeds;
mod spec;

pub use error::LineError;
pub use excite_prompt::FoundSubject;
pub use line::{FIELDS, Line, SubjectRequest};
pub use method::{AttendAndExcite, Method, MethodName, Pieces, Refinement, Smoothing, TokenRange};
pub use resolve::{ModelFacts, Resolved, Warning};
pub use seeds::{Seeds, SeedsError};
pub use spec::{ENGINE, Noise, SchedulerName, Spec, UnknownName};
