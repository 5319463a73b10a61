//! A pipeline that tests can hold, and make fail.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use excite_jobs::{Class, Failure};
use excite_worker::pipeline::{Empty, Pipeline, Row, RunError};
use excite_worker::{Task, Watch};

/// Makes images of one pixel when the gate is open.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    shut: bool,
    broken: bool,
    self_test_fails: bool,
    tests: u32,
    /// Indices of the jobs of each run.
    runs: Vec<Vec<u32>>,
}

impl Gate {
    pub(crate) fn shut() -> Self {
        let gate = Self::default();
        gate.set(|state| state.shut = true);
        gate
    }

    pub(crate) fn open(&self) {
        self.set(|state| state.shut = false);
    }

    pub(crate) fn break_down(&self, broken: bool) {
        self.set(|state| state.broken = broken);
    }

    pub(crate) fn fail_self_test(&self) {
        self.set(|state| state.self_test_fails = true);
    }

    pub(crate) fn runs(&self) -> Vec<Vec<u32>> {
        self.0.state.lock().unwrap().runs.clone()
    }

    pub(crate) fn tests(&self) -> u32 {
        self.0.state.lock().unwrap().tests
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.state.lock().unwrap());
        self.0.changed.notify_all();
    }
}

impl Pipeline for Gate {
    fn render(&mut self, tasks: &[Task], watch: &Watch) -> Result<Vec<Row>, RunError> {
        watch.begin(tasks, 0, 1);
        let mut state = self.0.state.lock().unwrap();
        state.runs.push(tasks.iter().map(|task| task.job.index).collect());
        while state.shut {
            // As the guided pipeline asks before each pass.
            watch.pass(tasks).map_err(RunError::Stopped)?;
            let turn = Duration::from_millis(5);
            state = self.0.changed.wait_timeout(state, turn).unwrap().0;
        }
        if state.broken {
            return Err(RunError::Model(Failure::new(Class::Transient, "broken", "it is broken")));
        }
        drop(state);
        Empty.render(tasks, watch)
    }

    fn free_memory(&mut self, _tasks: &[Task]) -> bool {
        false
    }

    fn self_test(&mut self) -> Result<(), String> {
        let mut state = self.0.state.lock().unwrap();
        state.tests += 1;
        if state.self_test_fails { Err("no pixels".into()) } else { Ok(()) }
    }
}
