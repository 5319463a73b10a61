//! What the compute thread tries before a job fails: give up other models, halve the micro-batch,
//! run each job alone.

use excite_jobs::{Class, Failure};
use tracing::{info, warn};

use crate::metrics::Metrics;
use crate::pipeline::{Pipeline, Row, RowError, RunError};
use crate::task::Task;
use crate::watch::{Stop, Watch};

/// Makes the images of a micro-batch, an entry a job.
pub(crate) fn run(
    pipeline: &mut dyn Pipeline,
    tasks: &[Task],
    watch: &Watch,
    metrics: &Metrics,
) -> Vec<Row> {
    // Each turn frees memory or splits the micro-batch, so there is an end.
    let error = match pipeline.render(tasks, watch) {
        Ok(rows) => return rows,
        Err(error) => error,
    };
    let all = |error: RowError| tasks.iter().map(|_| Err(error.clone())).collect();
    match error {
        RunError::Stopped(Stop::Cancelled) => all(RowError::Cancelled),
        RunError::Stopped(Stop::Abandoned) => all(RowError::Abandoned),
        RunError::Stopped(Stop::Deadline) => {
            let message = "it took far longer than its like";
            all(RowError::Failed(Failure::new(Class::Timeout, "deadline", message)))
        }
        RunError::Model(failure) => all(RowError::Failed(failure)),
        RunError::TooMany { fits } if tasks.len() > 1 => {
            info!(jobs = tasks.len(), fits, "memory is free for fewer; a micro-batch is split");
            split(pipeline, tasks, fits.clamp(1, tasks.len() - 1), watch, metrics)
        }
        RunError::TooMany { .. } => {
            let message = "memory is free for no job";
            all(RowError::Failed(Failure::new(Class::Capacity, "out_of_memory", message)))
        }
        RunError::OutOfMemory(message) => {
            let act = |action: &str| {
                metrics.oom.with_label_values(&[action]).inc();
                warn!(jobs = tasks.len(), action, message, "out of memory");
            };
            if pipeline.free_memory(tasks) {
                act("evict");
                return run(pipeline, tasks, watch, metrics);
            }
            if let [first, _, ..] = tasks {
                act("halve");
                let choice = watch.sizes().out_of_memory(&first.job.spec, tasks.len());
                warn!(model = first.job.spec.model, jobs = choice.jobs, "fewer go together now");
                return split(pipeline, tasks, tasks.len().div_ceil(2), watch, metrics);
            }
            act("fail");
            all(RowError::Failed(Failure::new(Class::Capacity, "out_of_memory", message)))
        }
        RunError::Failed(failure) if tasks.len() > 1 => {
            // One of them fails; alone, the others need not.
            warn!(jobs = tasks.len(), code = failure.code, "a micro-batch is run one by one");
            split(pipeline, tasks, 1, watch, metrics)
        }
        RunError::Failed(failure) => all(RowError::Failed(failure)),
    }
}

fn split(
    pipeline: &mut dyn Pipeline,
    tasks: &[Task],
    size: usize,
    watch: &Watch,
    metrics: &Metrics,
) -> Vec<Row> {
    tasks.chunks(size).flat_map(|tasks| run(pipeline, tasks, watch, metrics)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::examples::task;
    use crate::pipeline::Empty;

    /// Has memory for so many jobs once other models are gone; the job `bad` fails.
    struct Small {
        room: usize,
        others: bool,
        bad: Option<u32>,
        tried: Vec<usize>,
    }

    impl Pipeline for Small {
        fn render(&mut self, tasks: &[Task], watch: &Watch) -> Result<Vec<Row>, RunError> {
            self.tried.push(tasks.len());
            if self.others || tasks.len() > self.room {
                return Err(RunError::OutOfMemory("out of memory".into()));
            }
            if tasks.iter().any(|task| Some(task.job.index) == self.bad) {
                let failure = Failure::new(Class::Invalid, "not_finite", "NaN");
                return Err(RunError::Failed(failure));
            }
            Empty.render(tasks, watch)
        }

        fn free_memory(&mut self, _tasks: &[Task]) -> bool {
            std::mem::take(&mut self.others)
        }

        fn self_test(&mut self) -> Result<(), String> {
            Ok(())
        }
    }

    fn made(mut small: Small, count: u32) -> (Vec<Result<(), String>>, Vec<usize>) {
        let watch = Watch::new(4., Duration::from_secs(120));
        let tasks: Vec<Task> = (0..count).map(task).collect();
        let rows = run(&mut small, &tasks, &watch, &Metrics::new("test").unwrap());
        let said = |row: Row| match row {
            Ok(_) => Ok(()),
            Err(RowError::Failed(failure)) => Err(failure.code),
            Err(other) => Err(format!("{other:?}")),
        };
        (rows.into_iter().map(said).collect(), small.tried)
    }

    #[test]
    fn short_memory_evicts_then_halves_then_fails() {
        let small = |room, others| Small { room, others, bad: None, tried: Vec::new() };
        assert_eq!(made(small(4, true), 4), (vec![Ok(()); 4], vec![4, 4]));
        assert_eq!(made(small(1, true), 3), (vec![Ok(()); 3], vec![3, 3, 2, 1, 1, 1]));
        let lost = Err("out_of_memory".to_owned());
        assert_eq!(made(small(0, false), 2), (vec![lost.clone(), lost], vec![2, 1, 1]));
    }

    #[test]
    fn what_memory_was_short_for_is_not_tried_again() {
        let watch = Watch::new(4., Duration::from_secs(120));
        let mut small = Small { room: 1, others: false, bad: None, tried: Vec::new() };
        let tasks: Vec<Task> = (0..4).map(task).collect();
        let metrics = Metrics::new("test").unwrap();
        assert!(run(&mut small, &tasks, &watch, &metrics).iter().all(Result::is_ok));
        assert_eq!(small.tried, [4, 2, 1, 1, 2, 1, 1]);
        assert_eq!(watch.sizes().jobs(&tasks[0].job.spec), 1);
    }

    /// Knows beforehand how many it has memory for.
    struct Knowing(usize, Vec<usize>);

    impl Pipeline for Knowing {
        fn render(&mut self, tasks: &[Task], watch: &Watch) -> Result<Vec<Row>, RunError> {
            self.1.push(tasks.len());
            match tasks.len() > self.0 {
                true => Err(RunError::TooMany { fits: self.0 }),
                false => Empty.render(tasks, watch),
            }
        }

        fn free_memory(&mut self, _tasks: &[Task]) -> bool {
            panic!("what is not short need not be freed")
        }

        fn self_test(&mut self) -> Result<(), String> {
            Ok(())
        }
    }

    #[test]
    fn more_than_memory_is_free_for_are_made_in_parts() {
        let watch = Watch::new(4., Duration::from_secs(120));
        let tasks: Vec<Task> = (0..5).map(task).collect();
        let (mut knowing, metrics) = (Knowing(2, Vec::new()), Metrics::new("test").unwrap());
        let rows = run(&mut knowing, &tasks, &watch, &metrics);
        assert!(rows.len() == 5 && rows.iter().all(Result::is_ok), "{rows:?}");
        assert_eq!(knowing.1, [5, 2, 2, 1]);
    }

    #[test]
    fn one_that_fails_does_not_take_the_others_along() {
        let small = Small { room: 4, others: false, bad: Some(1), tried: Vec::new() };
        let (rows, tried) = made(small, 3);
        assert_eq!(rows, [Ok(()), Err("not_finite".into()), Ok(())]);
        assert_eq!(tried, [3, 1, 1, 1]);
    }

    #[test]
    fn a_stop_ends_all_at_once() {
        let watch = Watch::new(4., Duration::from_secs(120));
        watch.abandon();
        let rows = run(&mut Empty, &[task(0), task(1)], &watch, &Metrics::new("test").unwrap());
        assert!(rows.iter().all(|row| matches!(row, Err(RowError::Abandoned))), "{rows:?}");
    }
}
