//! What the compute thread is given: a job, and where it goes on.

use std::sync::Arc;

use excite_diffusion::{Checkpoint, Wanted};
use excite_jobs::Job;

/// A job that is to run here.
#[derive(Debug, Clone)]
pub struct Task {
    /// What is to be made.
    pub job: Job,
    /// What was made of it before; none: it begins with its noise.
    pub checkpoint: Option<Arc<Checkpoint>>,
}

impl Task {
    /// A job that begins.
    pub fn new(job: Job) -> Self {
        Self { job, checkpoint: None }
    }

    /// The step it begins with, from 0.
    pub fn first_step(&self) -> usize {
        self.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.next_step())
    }

    /// Steps made for it before, with those of seeds that were not kept.
    pub fn steps_made(&self) -> usize {
        self.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.steps_made())
    }
}

/// What is to be made of a job.
pub(crate) fn wanted(job: &Job) -> Wanted {
    Wanted { spec: job.spec.clone(), accept: job.accept }
}
