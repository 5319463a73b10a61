//! The job protocol: what an image is, how people ask for it, how it travels, and the three ports
//! it travels through.
//!
//! A [`Line`] is what a person writes: words, ranges of seeds, whatever they leave out. Checked
//! against a model it becomes one [`Spec`] a seed: everything that decides the pixels and nothing
//! about how they came to be. A [`Job`] is a spec on its way, an [`Outcome`] what a worker says of
//! it, [`step`] what that makes of its [`State`]. With the feature `ports`: [`queue`], [`store`] and
//! [`progress`], each with two back ends. No tensors here.

pub mod api;
mod batch;
#[cfg(feature = "conformance")]
pub mod conformance;
mod control;
mod done;
mod error;
mod id;
mod job;
pub mod keys;
pub mod limits;
mod line;
mod method;
mod model_card;
mod outcome;
#[cfg(feature = "ports")]
pub mod progress;
#[cfg(feature = "ports")]
pub mod queue;
mod resolve;
mod retry;
mod reuse;
mod seeds;
mod sidecar;
mod spec;
mod state;
#[cfg(feature = "ports")]
pub mod store;
mod tries;
mod warning;

pub use batch::{Batch, Cursor, Idempotency, Leader, Part, StoredLine, Work};
pub use control::Control;
pub use done::{Done, Summary, Tally};
pub use error::LineError;
pub use excite_prompt::FoundSubject;
pub use id::{BatchId, IdError, JobId, UploadId};
pub use job::{About, Job, JobOutputs, Lane, MessageError, VERSION};
pub use line::{FIELDS, Line, SubjectRequest};
pub use method::{
    AttendAndExcite, Composable, Method, MethodName, NounPhrase, NounSet, Pieces, Refinement,
    Smoothing, Structure, SynGen, TokenRange, WeightedPhrase,
};
pub use model_card::{ModelCard, ModelFile};
pub use outcome::{Class, Failure, Outcome, OutcomeKind, Run, Success};
pub use resolve::{ModelFacts, Resolved};
pub use retry::{DeadReason, MAX_ATTEMPTS, Next, Rung, next};
pub use reuse::Reuse;
pub use seeds::{Seeds, SeedsError};
pub use sidecar::{Attention, HeatMap, Number, Sidecar, StepLine};
pub use spec::{ENGINE, Noise, SchedulerName, Spec, UnknownName};
pub use state::{Event, JobState, Reason, State, step};
pub use tries::{Accept, Tries, Try};
pub use warning::Warning;
