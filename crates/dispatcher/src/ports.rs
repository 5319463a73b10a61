//! The three ports a dispatcher works with, handed round together.

use std::sync::Arc;

use excite_jobs::progress::Progress;
use excite_jobs::queue::Queue;
use excite_jobs::store::Store;

/// Queue, store and progress; cheap to clone.
#[derive(Clone)]
pub struct Ports {
    /// Jobs, outcomes, ticks.
    pub queue: Arc<dyn Queue>,
    /// The truth.
    pub store: Arc<dyn Store>,
    /// The mirror that people look at.
    pub progress: Arc<dyn Progress>,
}
