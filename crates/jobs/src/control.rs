//! What travels on the control queue, which one dispatcher reads at a time.

use serde::{Deserialize, Serialize};

use crate::id::BatchId;
use crate::outcome::Outcome;

/// A message of the control queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Control {
    /// Whoever receives it feeds once. Expires.
    Tick {
        /// Which dispatcher sent it.
        from: String,
    },
    /// What a worker says of a job.
    Outcome(Outcome),
    /// A batch is there, or its header was changed: read it again.
    Batch {
        /// The batch.
        batch: BatchId,
    },
    /// Dead jobs are wanted back.
    Replay {
        /// The batch.
        batch: BatchId,
        /// Their places, at most [`crate::limits::REPLAY_INDICES_MAX`].
        indices: Vec<u32>,
    },
    /// The broker gave a job up.
    DeadLetter {
        /// The broker's word: `delivery_limit`, `maxlen`, `rejected`.
        reason: String,
        /// The message, as text; what is no UTF-8 is replaced.
        body: String,
    },
    /// A batch is to be taken away.
    Delete {
        /// The batch.
        batch: BatchId,
    },
}

impl Control {
    /// The message's type in the broker.
    pub const TYPE: &'static str = "excite.control.v1";

    /// Its name in metrics and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Tick { .. } => "tick",
            Self::Outcome(_) => "outcome",
            Self::Batch { .. } => "batch",
            Self::Replay { .. } => "replay",
            Self::DeadLetter { .. } => "dead_letter",
            Self::Delete { .. } => "delete",
        }
    }
}
