//! One job's life, as the dispatcher sees it.
//!
//! [`step`] is the only place where a job changes state. It is pure: the caller hands in one event
//! and stores the answer. The table in `docs/architecture.md` is printed from it by a test.
//!
//! Invariants: succeeded and cancelled are final; a preemption costs no attempt; leases only grow;
//! an event applied twice counts once. Not here: which rung (`retry`), publishing (the dispatcher).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::spec::names;

/// Where a job is. The codes are the 4 bits that Redis keeps of it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum State {
    /// In the manifest.
    Waiting = 0,
    /// In the broker.
    Queued = 1,
    /// A worker has it.
    Running = 2,
    /// On a rung, after a failure.
    Retrying = 3,
    /// Image and sidecar are stored.
    Succeeded = 4,
    /// Given up; kept for replay.
    Dead = 5,
    /// Its batch was cancelled.
    Cancelled = 6,
}

names!(State {
    Waiting = "waiting",
    Queued = "queued",
    Running = "running",
    Retrying = "retrying",
    Succeeded = "succeeded",
    Dead = "dead",
    Cancelled = "cancelled",
});

impl State {
    /// All, in the order of their codes.
    pub const ALL: [Self; 7] = [
        Self::Waiting,
        Self::Queued,
        Self::Running,
        Self::Retrying,
        Self::Succeeded,
        Self::Dead,
        Self::Cancelled,
    ];

    /// The 4 bits.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The state of a code.
    pub fn of_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// Whether nothing more is expected of the job; only a dead one can come back.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Dead | Self::Cancelled)
    }
}

/// What a job's future depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobState {
    /// Where it is.
    pub state: State,
    /// Its last publication, from 1; 0 while waiting.
    pub lease: u32,
    /// Its current try that may fail, from 1.
    pub attempt: u32,
}

impl JobState {
    /// A job that was accepted.
    pub const WAITING: Self = Self { state: State::Waiting, lease: 0, attempt: 1 };
    /// A job that was published once.
    pub const QUEUED: Self = Self { state: State::Queued, lease: 1, attempt: 1 };
}

/// Something that happened to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The feeder published it for the first time.
    Fed,
    /// A worker runs it.
    Started {
        /// The publication.
        lease: u32,
        /// Its try.
        attempt: u32,
    },
    /// Image and sidecar are stored.
    Succeeded,
    /// The try failed.
    Failed {
        /// The publication.
        lease: u32,
        /// Its try.
        attempt: u32,
        /// Whether there is another try.
        retry: bool,
    },
    /// The worker had to stop.
    Preempted {
        /// The publication.
        lease: u32,
        /// Its try.
        attempt: u32,
    },
    /// Its batch was cancelled.
    Cancelled,
    /// Somebody wants it tried again.
    Replayed,
}

/// Why a job is in its state, where several ways lead there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// By submission.
    Submitted,
    /// A worker said so.
    Reported,
    /// After a failure.
    Failed,
    /// After a preemption.
    Preempted,
    /// By a replay.
    Replayed,
    /// By a cancellation.
    Cancelled,
}

names!(Reason {
    Submitted = "submitted",
    Reported = "reported",
    Failed = "failed",
    Preempted = "preempted",
    Replayed = "replayed",
    Cancelled = "cancelled",
});

/// What an event makes of a job. `None`: nothing changes (a duplicate, or too late); the caller
/// counts it, it is no error.
pub fn step(job: JobState, event: Event) -> Option<(JobState, Reason)> {
    use {Event as E, State as S};
    let JobState { state, attempt, lease: current } = job;
    let requeue = |lease: u32, attempt| JobState { state: S::Queued, attempt, lease: lease + 1 };
    let active = matches!(state, S::Waiting | S::Queued | S::Running | S::Retrying);
    match event {
        // Somebody wanted it gone, and paid for nothing since.
        _ if state == S::Cancelled => None,
        // The image is there: nothing can take it back.
        _ if state == S::Succeeded => None,
        // Whoever stored it, and even after it was given up.
        E::Succeeded => Some((JobState { state: S::Succeeded, ..job }, Reason::Reported)),
        E::Replayed => (state == S::Dead).then(|| (requeue(current, 1), Reason::Replayed)),
        // Dead jobs keep their reason.
        _ if !active => None,
        E::Cancelled => Some((JobState { state: S::Cancelled, ..job }, Reason::Cancelled)),
        E::Fed => (state == S::Waiting).then_some((JobState::QUEUED, Reason::Submitted)),
        // Of an older publication: what came of it is known.
        E::Started { lease, .. } | E::Failed { lease, .. } | E::Preempted { lease, .. }
            if lease < current =>
        {
            None
        }
        // A higher lease than known is adopted: an earlier dispatcher gave it and died.
        E::Started { lease, attempt } => {
            let known = state == S::Running && lease == current;
            let running = JobState { state: S::Running, lease, attempt };
            (!known).then_some((running, Reason::Reported))
        }
        E::Preempted { lease, attempt } => Some((requeue(lease, attempt), Reason::Preempted)),
        E::Failed { lease, attempt: failed, retry: true } => {
            let retrying = JobState { state: S::Retrying, lease: lease + 1, attempt: failed + 1 };
            Some((retrying, Reason::Failed))
        }
        E::Failed { lease, retry: false, .. } => {
            Some((JobState { state: S::Dead, lease, attempt }, Reason::Failed))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const ATTEMPTS_MAX: u32 = 3;

    fn events_around(job: JobState) -> Vec<Event> {
        let mut events = vec![Event::Fed, Event::Succeeded, Event::Cancelled, Event::Replayed];
        for lease in job.lease.saturating_sub(1).max(1)..=job.lease + 1 {
            for attempt in job.attempt.saturating_sub(1).max(1)..=job.attempt {
                events.push(Event::Started { lease, attempt });
                events.push(Event::Preempted { lease, attempt });
                let retry = attempt < ATTEMPTS_MAX;
                events.push(Event::Failed { lease, attempt, retry });
            }
        }
        events
    }

    /// The space is small, so it is walked whole: every state that histories of this length reach.
    #[test]
    fn every_history_keeps_the_invariants() {
        let mut jobs = BTreeSet::from([JobState::WAITING]);
        let mut seen = BTreeSet::new();
        for _ in 0..2 * ATTEMPTS_MAX + 4 {
            let mut next = BTreeSet::new();
            for job in jobs {
                for event in events_around(job) {
                    let Some((after, _)) = step(job, event) else { continue };
                    check(job, event, after);
                    seen.insert((job.state, after.state));
                    next.insert(after);
                }
            }
            jobs = next;
        }
        assert!(seen.contains(&(State::Retrying, State::Running)));
        assert!(seen.contains(&(State::Dead, State::Queued)), "replay");
        assert!(seen.contains(&(State::Dead, State::Succeeded)), "a late success");
    }

    fn check(job: JobState, event: Event, after: JobState) {
        let is = |kind: fn(&Event) -> bool| kind(&event);
        let old = match event {
            Event::Started { lease, .. }
            | Event::Preempted { lease, .. }
            | Event::Failed { lease, .. } => lease < job.lease,
            _ => false,
        };
        let final_state = matches!(job.state, State::Succeeded | State::Cancelled);
        let preempted = is(|e| matches!(e, Event::Preempted { .. }));
        let replayed = is(|e| matches!(e, Event::Replayed));
        for (invariant, holds) in [
            ("final states stay", !final_state),
            ("attempts are bounded", after.attempt <= ATTEMPTS_MAX),
            ("leases only grow", job.lease <= after.lease),
            ("an older lease changes nothing", !old),
            ("a preemption is free", !preempted || after.attempt <= job.attempt),
            ("only a replay brings back the dead", {
                job.state != State::Dead || after.state == State::Succeeded || replayed
            }),
            ("only a new publication waits in the broker", {
                let queued = matches!(after.state, State::Queued | State::Retrying);
                !queued || after.lease > job.lease
            }),
            ("twice counts once", step(after, event).is_none()),
        ] {
            assert!(holds, "{invariant}: {job:?} --{event:?}--> {after:?}");
        }
    }

    #[test]
    fn the_cases_that_were_thought_about() {
        let at = |state, lease, attempt| JobState { state, lease, attempt };
        let failed = |lease, attempt, retry| Event::Failed { lease, attempt, retry };
        #[rustfmt::skip]
        let table = [
            // job                            event                                       after
            (JobState::WAITING,               Event::Fed,                                 Some(JobState::QUEUED)),
            (JobState::QUEUED,                Event::Fed,                                 None), // a claim published again
            // A worker may be faster than the dispatcher that fed it, or that came after it.
            (JobState::WAITING,               Event::Started { lease: 1, attempt: 1 },    Some(at(State::Running, 1, 1))),
            // `started` takes the lossy path, so a failure may come before it.
            (at(State::Retrying, 2, 2),       Event::Started { lease: 1, attempt: 1 },    None),
            (at(State::Retrying, 2, 2),       Event::Started { lease: 2, attempt: 2 },    Some(at(State::Running, 2, 2))),
            // Worker A was preempted, B runs the job: A's report again must not requeue it.
            (at(State::Running, 2, 1),        Event::Preempted { lease: 1, attempt: 1 },  None),
            (at(State::Running, 2, 1),        Event::Preempted { lease: 2, attempt: 1 },  Some(at(State::Queued, 3, 1))),
            (at(State::Running, 2, 2),        failed(2, 2, true),                         Some(at(State::Retrying, 3, 3))),
            (at(State::Running, 2, 2),        failed(2, 2, false),                        Some(at(State::Dead, 2, 2))),
            (at(State::Running, 2, 2),        failed(1, 1, true),                         None),
            // An earlier dispatcher published lease 4 and died before it wrote that down.
            (at(State::Running, 3, 2),        failed(4, 3, true),                         Some(at(State::Retrying, 5, 4))),
            (at(State::Dead, 2, 3),           failed(2, 3, false),                        None),
            (at(State::Dead, 2, 3),           Event::Cancelled,                           None),
            (at(State::Dead, 2, 3),           Event::Succeeded,                           Some(at(State::Succeeded, 2, 3))),
            (at(State::Dead, 2, 3),           Event::Replayed,                            Some(at(State::Queued, 3, 1))),
            (at(State::Running, 1, 1),        Event::Replayed,                            None),
            (at(State::Cancelled, 1, 1),      Event::Succeeded,                           None), // late: cancelled absorbs it
            (at(State::Succeeded, 1, 1),      Event::Cancelled,                           None),
        ];
        for (job, event, want) in table {
            assert_eq!(step(job, event).map(|(after, _)| after), want, "{job:?} --{event:?}");
        }
    }

    /// The table of `docs/architecture.md`: what an event of the current lease makes of each state.
    fn table() -> String {
        let (lease, attempt) = (1, 1);
        let events = [
            ("fed", Event::Fed),
            ("started", Event::Started { lease, attempt }),
            ("succeeded", Event::Succeeded),
            ("failed, tries left", Event::Failed { lease, attempt, retry: true }),
            ("failed, none left", Event::Failed { lease, attempt, retry: false }),
            ("preempted", Event::Preempted { lease, attempt }),
            ("cancelled", Event::Cancelled),
            ("replayed", Event::Replayed),
        ];
        let head: Vec<&str> = events.iter().map(|(name, _)| *name).collect();
        let mut lines = vec![format!("| state | {} |", head.join(" | "))];
        lines.push(format!("|{}", "---|".repeat(events.len() + 1)));
        for state in State::ALL {
            let lease = u32::from(state != State::Waiting);
            let job = JobState { state, lease, attempt };
            let cell = |(_, event): &(&str, Event)| {
                step(job, *event).map_or("", |(after, _)| after.state.as_str())
            };
            let cells: Vec<&str> = events.iter().map(cell).collect();
            lines.push(format!("| **{state}** | {} |", cells.join(" | ")));
        }
        lines.join("\n")
    }

    #[test]
    fn the_documents_show_this_table() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/architecture.md");
        let text = std::fs::read_to_string(page).unwrap();
        assert!(text.contains(&table()), "put this into docs/architecture.md:\n{}", table());
    }

    #[test]
    fn codes_are_fixed() {
        for (code, state) in State::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(state.code()), code);
            assert_eq!(State::of_code(code as u8), Some(state));
            assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{state}\""));
        }
        assert_eq!(State::of_code(7), None);
    }
}
