//! A worker that fails every job must stop taking them.
//!
//! Failures in a row that are not the jobs' own open the breaker: the worker tests itself, and goes
//! on with one job at a time until one succeeds. Pure: the caller acts on it.

use excite_jobs::{Class, OutcomeKind};

/// Counts failures in a row.
#[derive(Debug)]
pub(crate) struct Breaker {
    limit: u32,
    failures: u32,
    /// It tested itself, and nothing succeeded since.
    careful: bool,
}

impl Breaker {
    /// Opens after `limit` failures in a row.
    pub(crate) fn new(limit: u32) -> Self {
        Self { limit, failures: 0, careful: false }
    }

    /// Takes notice of an outcome of a job that ran; `true` if the worker must test itself.
    pub(crate) fn note(&mut self, kind: &OutcomeKind) -> bool {
        match kind {
            OutcomeKind::Succeeded(_) => (self.failures, self.careful) = (0, false),
            OutcomeKind::Failed(failure) => {
                self.failures += u32::from(is_ours(failure.class));
            }
            OutcomeKind::Started | OutcomeKind::Cancelled | OutcomeKind::Preempted { .. } => {}
        }
        self.failures >= self.limit
    }

    /// The worker passed its test.
    pub(crate) fn passed(&mut self) {
        (self.failures, self.careful) = (0, true);
    }

    /// How many of its slots the worker should use.
    pub(crate) fn slots(&self, slots: u16) -> u16 {
        if self.careful { 1 } else { slots }
    }
}

/// Whether a failure says something of the worker rather than of the job.
fn is_ours(class: Class) -> bool {
    match class {
        Class::Transient | Class::Timeout => true,
        Class::Invalid | Class::Capacity | Class::Lost | Class::Incompatible | Class::Cancelled => {
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use excite_jobs::{Failure, Success};

    use super::*;

    fn failed(class: Class) -> OutcomeKind {
        OutcomeKind::Failed(Failure::new(class, "x", "x"))
    }

    fn succeeded() -> OutcomeKind {
        OutcomeKind::Succeeded(Success {
            key: String::new(),
            sha256: String::new(),
            bytes: 0,
            seconds: 0.,
            steps: 1,
            loss: None,
            scores: Vec::new(),
            weakest: None,
            tries: 1,
            found: false,
            accepted: true,
        })
    }

    #[test]
    fn only_its_own_failures_in_a_row_open_it() {
        let mut breaker = Breaker::new(2);
        assert!(!breaker.note(&failed(Class::Transient)));
        assert!(!breaker.note(&succeeded()));
        for class in [Class::Invalid, Class::Capacity, Class::Lost, Class::Incompatible] {
            assert!(!breaker.note(&failed(class)), "{class}");
        }
        assert!(!breaker.note(&failed(Class::Timeout)));
        assert!(breaker.note(&failed(Class::Transient)));
    }

    #[test]
    fn after_a_test_one_job_at_a_time_until_one_succeeds() {
        let mut breaker = Breaker::new(1);
        assert_eq!(breaker.slots(4), 4);
        assert!(breaker.note(&failed(Class::Transient)));
        breaker.passed();
        assert_eq!(breaker.slots(4), 1);
        assert!(!breaker.note(&OutcomeKind::Cancelled));
        assert_eq!(breaker.slots(4), 1);
        breaker.note(&succeeded());
        assert_eq!(breaker.slots(4), 4);
    }
}
