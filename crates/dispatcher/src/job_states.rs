//! States of all jobs of a batch: 4 bits each, and a map of what those do not say.
//!
//! A batch of a million jobs takes half a megabyte. Not here: what changes a state
//! (`excite_jobs::step`), where they come from (`done_log`).

use std::collections::HashMap;

use excite_jobs::progress::unpack;
use excite_jobs::{JobState, State, Tally};

/// Where every job of a batch is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobStates {
    jobs: u32,
    packed: Vec<u8>,
    /// Lease and attempt of jobs whose state does not tell: neither waiting nor at their first.
    later: HashMap<u32, (u32, u32)>,
}

impl JobStates {
    /// A batch of which nothing was published.
    pub fn waiting(jobs: u32) -> Self {
        let packed = vec![0; (jobs as usize).div_ceil(2)];
        Self { jobs, packed, later: HashMap::new() }
    }

    /// How many jobs there are.
    pub fn jobs(&self) -> u32 {
        self.jobs
    }

    /// 4 bits a job, as the mirror has them: job 0 in the high half of byte 0.
    pub fn packed(&self) -> &[u8] {
        &self.packed
    }

    /// Where a job is; waiting if there is no such job.
    pub fn get(&self, index: u32) -> JobState {
        let state = unpack(&self.packed, index);
        let first = if state == State::Waiting { JobState::WAITING } else { JobState::QUEUED };
        let (lease, attempt) =
            self.later.get(&index).copied().unwrap_or((first.lease, first.attempt));
        JobState { state, lease, attempt }
    }

    /// Puts a job somewhere else. There must be such a job.
    pub fn set(&mut self, index: u32, job: JobState) {
        let Some(byte) = self.packed.get_mut(index as usize / 2) else { return };
        let code = job.state.code();
        *byte =
            if index.is_multiple_of(2) { *byte & 0x0f | code << 4 } else { *byte & 0xf0 | code };
        let first = if job.state == State::Waiting { JobState::WAITING } else { JobState::QUEUED };
        // A cancelled job that was never published keeps lease 0 nowhere: nobody asks for it.
        let told = job.state == State::Cancelled || (job.lease, job.attempt) == (first.lease, 1);
        if told {
            self.later.remove(&index);
        } else {
            self.later.insert(index, (job.lease, job.attempt));
        }
    }

    /// Jobs in each state.
    pub fn tally(&self) -> Tally {
        let mut counts = [0_u64; State::ALL.len()];
        for index in 0..self.jobs {
            counts[usize::from(unpack(&self.packed, index).code())] += 1;
        }
        let states = State::ALL.into_iter().zip(counts).filter(|(_, count)| *count > 0);
        Tally { states: states.collect(), ..Tally::default() }
    }

    /// Every job that is not terminal becomes cancelled; says which, with what they were.
    pub fn cancel_all(&mut self) -> Vec<(u32, State)> {
        let open = |index: &u32| !unpack(&self.packed, *index).is_terminal();
        let open: Vec<u32> = (0..self.jobs).filter(open).collect();
        let mut were = Vec::with_capacity(open.len());
        for index in open {
            let job = self.get(index);
            were.push((index, job.state));
            self.set(index, JobState { state: State::Cancelled, ..job });
        }
        were
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_reads_back_beside_its_neighbours() {
        let mut states = JobStates::waiting(7);
        let all = State::ALL.into_iter().enumerate();
        for (index, state) in all.clone() {
            let (lease, attempt) = if state == State::Waiting { (0, 1) } else { (index as u32, 2) };
            states.set(index as u32, JobState { state, lease, attempt });
        }
        for (index, state) in all {
            let got = states.get(index as u32);
            assert_eq!(got.state, state);
            if !matches!(state, State::Waiting | State::Cancelled) {
                assert_eq!((got.lease, got.attempt), (index as u32, 2));
            }
        }
        assert_eq!(states.tally().states.len(), 7);
        states.set(4, JobState::QUEUED);
        assert_eq!(states.get(4), JobState::QUEUED);
        assert_eq!(states.get(3).state, State::Retrying);
        assert_eq!(states.get(5).state, State::Dead);
    }

    #[test]
    fn cancelling_spares_what_is_terminal() {
        let mut states = JobStates::waiting(3);
        states.set(1, JobState { state: State::Succeeded, ..JobState::QUEUED });
        states.set(2, JobState { state: State::Retrying, lease: 4, attempt: 3 });
        assert_eq!(states.cancel_all(), [(0, State::Waiting), (2, State::Retrying)]);
        let tally = states.tally();
        assert_eq!((tally.of(State::Cancelled), tally.of(State::Succeeded)), (2, 1));
        assert_eq!(states.get(9), JobState::WAITING);
    }
}
