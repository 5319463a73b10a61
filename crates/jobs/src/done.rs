//! What was concluded of jobs: the lines of the `done/` parts, from which everything else about a
//! batch's jobs can be computed again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::id::BatchId;
use crate::job::VERSION;
use crate::outcome::{Failure, Run, Success};
use crate::retry::DeadReason;
use crate::state::{JobState, Reason, State};

/// One conclusion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// [`VERSION`].
    pub v: u32,
    /// Place in the batch.
    pub index: u32,
    /// Where the job is now.
    pub state: State,
    /// How it came there.
    pub reason: Reason,
    /// Its last publication.
    pub lease: u32,
    /// Its try.
    pub attempt: u32,
    /// Who reported it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// When, by the dispatcher's clock: shown, never compared.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Of a job that succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success: Option<Success>,
    /// Of a job that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Of a job that is dead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead: Option<DeadReason>,
    /// Of a job that was preempted: where to go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
    /// The run that led to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
}

impl Done {
    /// What the conclusion makes of a job that was at `known`, whichever of the two came first:
    /// parts of two dispatchers may lie in any order.
    pub fn absorbed_by(&self, known: JobState) -> JobState {
        let mine = JobState { state: self.state, lease: self.lease, attempt: self.attempt };
        match known.state {
            State::Cancelled => known,
            State::Succeeded if self.state != State::Cancelled => known,
            _ if self.state == State::Succeeded || self.state == State::Cancelled => mine,
            _ if self.lease >= known.lease => mine,
            _ => known,
        }
    }
}

/// Sums over the jobs of a batch.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Tally {
    /// Jobs by state; states without jobs may be absent.
    pub states: BTreeMap<State, u64>,
    /// Failures by code, whatever followed.
    pub failures: BTreeMap<String, u64>,
    /// Dead jobs by reason.
    pub dead: BTreeMap<DeadReason, u64>,
    /// Compute time of the images, in seconds.
    pub seconds: f64,
    /// Bytes of the images.
    pub bytes: u64,
    /// Retries.
    pub retries: u64,
    /// Preemptions.
    pub preemptions: u64,
}

impl Tally {
    /// Jobs in a state.
    pub fn of(&self, state: State) -> u64 {
        self.states.get(&state).copied().unwrap_or(0)
    }

    /// Jobs of which nothing more is expected.
    pub fn terminal(&self) -> u64 {
        State::ALL.into_iter().filter(|state| state.is_terminal()).map(|state| self.of(state)).sum()
    }

    /// A job goes from one state to another.
    pub fn moved(&mut self, from: State, to: State) {
        if let Some(count) = self.states.get_mut(&from) {
            *count = count.saturating_sub(1);
            // Equal sums are equal, whichever way the jobs went.
            if *count == 0 {
                self.states.remove(&from);
            }
        }
        *self.states.entry(to).or_default() += 1;
    }

    /// What a conclusion adds beside the states.
    pub fn add(&mut self, done: &Done) {
        if let Some(failure) = &done.failure {
            *self.failures.entry(failure.code.clone()).or_default() += 1;
        }
        match (done.state, done.reason) {
            (State::Retrying, _) => self.retries += 1,
            (State::Queued, Reason::Preempted) => self.preemptions += 1,
            _ => {}
        }
        if let Some(success) = &done.success {
            self.seconds += success.seconds;
            self.bytes += success.bytes;
        }
    }
}

/// How a batch ended: `summary.json`. A replay takes it away again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// [`VERSION`].
    pub v: u32,
    /// The batch.
    pub batch: BatchId,
    /// When its last job was concluded.
    #[serde(with = "time::serde::rfc3339")]
    pub finished_at: OffsetDateTime,
    /// Of all its jobs.
    pub tally: Tally,
}

impl Summary {
    /// A batch that ends now.
    pub fn now(batch: BatchId, tally: Tally) -> Self {
        Self { v: VERSION, batch, finished_at: OffsetDateTime::now_utc(), tally }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(state: State, lease: u32) -> Done {
        Done {
            v: VERSION,
            index: 0,
            state,
            reason: Reason::Reported,
            lease,
            attempt: 1,
            worker: None,
            at: OffsetDateTime::UNIX_EPOCH,
            success: None,
            failure: None,
            dead: None,
            checkpoint: None,
            run: None,
        }
    }

    /// Parts are read in the order of their names; two dispatchers at once may write them in
    /// another order than things happened.
    #[test]
    fn the_order_of_terminal_conclusions_does_not_matter() {
        let all: Vec<Done> = State::ALL
            .into_iter()
            .skip(3)
            .flat_map(|state| (1..4).map(move |lease| done(state, lease)))
            .collect();
        for one in &all {
            for two in &all {
                let forth = two.absorbed_by(one.absorbed_by(JobState::QUEUED));
                let back = one.absorbed_by(two.absorbed_by(JobState::QUEUED));
                let same_lease = one.lease == two.lease && !one.state.is_terminal();
                if !same_lease && one.lease != two.lease {
                    assert_eq!(forth.state, back.state, "{one:?} {two:?}");
                }
            }
        }
    }

    #[test]
    fn a_tally_counts_each_job_once() {
        let mut tally = Tally::default();
        tally.states.insert(State::Waiting, 2);
        tally.moved(State::Waiting, State::Queued);
        tally.moved(State::Queued, State::Succeeded);
        assert_eq!((tally.of(State::Waiting), tally.of(State::Queued)), (1, 0));
        assert_eq!(tally.terminal(), 1);
        let json = serde_json::to_value(&tally).unwrap();
        assert_eq!(json["states"]["succeeded"], 1);
        assert_eq!(serde_json::from_value::<Tally>(json).unwrap(), tally);
    }
}
