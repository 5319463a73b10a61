//! The compute thread: one plain thread that runs one micro-batch at a time, never the runtime's.
//!
//! Hand-offs: to it by a channel of capacity 1 (the next micro-batch is formed when it has room, so
//! one command is under way at most); from it by a oneshot with each command.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use excite_jobs::{Class, Failure};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info};

use crate::ladder;
use crate::metrics::Metrics;
use crate::pipeline::{Pipeline, Row, RowError};
use crate::task::Task;
use crate::watch::Watch;

/// What the compute thread is told.
enum Command {
    Run(Vec<Task>, oneshot::Sender<Vec<Row>>),
    SelfTest(oneshot::Sender<Result<(), String>>),
}

/// The compute thread. Dropped, it ends after what it runs.
#[derive(Debug, Clone)]
pub(crate) struct Executor {
    commands: mpsc::Sender<Command>,
}

/// The compute thread ended by itself, which it never should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the compute thread ended by itself")]
pub(crate) struct Ended;

impl Executor {
    /// Starts it.
    ///
    /// # Errors
    /// If the operating system gives no thread.
    pub(crate) fn start(
        mut pipeline: Box<dyn Pipeline>,
        watch: Arc<Watch>,
        metrics: Metrics,
    ) -> std::io::Result<Self> {
        let (commands, mut received) = mpsc::channel(1);
        std::thread::Builder::new().name("compute".into()).spawn(move || {
            while let Some(command) = received.blocking_recv() {
                match command {
                    // Whoever asked may be gone; then nobody wants the answer.
                    Command::Run(tasks, answer) => {
                        let rows = run(pipeline.as_mut(), &tasks, &watch, &metrics);
                        watch.idle();
                        let _ = answer.send(rows);
                    }
                    Command::SelfTest(answer) => {
                        let passed = self_test(pipeline.as_mut(), &metrics);
                        let _ = answer.send(passed);
                    }
                }
            }
        })?;
        Ok(Self { commands })
    }

    /// Runs a micro-batch; an entry a job.
    ///
    /// # Errors
    /// If the thread is gone.
    pub(crate) async fn run(&self, tasks: Vec<Task>) -> Result<Vec<Row>, Ended> {
        let (answer, rows) = oneshot::channel();
        self.commands.send(Command::Run(tasks, answer)).await.map_err(|_| Ended)?;
        rows.await.map_err(|_| Ended)
    }

    /// Makes the image whose pixels are known.
    ///
    /// # Errors
    /// What is wrong.
    pub(crate) async fn self_test(&self) -> Result<(), String> {
        let (answer, passed) = oneshot::channel();
        let sent = self.commands.send(Command::SelfTest(answer)).await;
        sent.map_err(|_| Ended.to_string())?;
        passed.await.map_err(|_| Ended.to_string())?
    }
}

fn run(pipeline: &mut dyn Pipeline, tasks: &[Task], watch: &Watch, metrics: &Metrics) -> Vec<Row> {
    metrics.micro_batch_size.observe(tasks.len() as f64);
    let made = catch_unwind(AssertUnwindSafe(|| ladder::run(pipeline, tasks, watch, metrics)));
    let rows = made.unwrap_or_else(|panic| {
        // The pipeline keeps nothing between two runs but models, which nothing changes.
        let message = message_of(panic.as_ref());
        error!(jobs = tasks.len(), message, "the pipeline panicked");
        let failure = Failure::new(Class::Transient, "panic", message);
        tasks.iter().map(|_| Err(RowError::Failed(failure.clone()))).collect()
    });
    metrics.images.inc_by(rows.iter().filter(|row| row.is_ok()).count() as u64);
    rows
}

fn self_test(pipeline: &mut dyn Pipeline, metrics: &Metrics) -> Result<(), String> {
    let began = Instant::now();
    let passed = catch_unwind(AssertUnwindSafe(|| pipeline.self_test()))
        .unwrap_or_else(|panic| Err(message_of(panic.as_ref())));
    metrics.self_test_ok.set(i64::from(passed.is_ok()));
    match &passed {
        Ok(()) => info!(seconds = began.elapsed().as_secs_f64(), "the self-test passed"),
        Err(message) => error!(message, "the self-test failed"),
    }
    passed
}

fn message_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "the pipeline panicked".into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::examples::task;
    use crate::pipeline::{Empty, RunError};

    struct Panics;

    impl Pipeline for Panics {
        fn render(&mut self, tasks: &[Task], watch: &Watch) -> Result<Vec<Row>, RunError> {
            assert_ne!(tasks[0].job.index, 0, "job 0 is bad");
            Empty.render(tasks, watch)
        }

        fn free_memory(&mut self, _tasks: &[Task]) -> bool {
            false
        }

        fn self_test(&mut self) -> Result<(), String> {
            panic!("no pixels");
        }
    }

    #[tokio::test]
    async fn a_panic_fails_its_jobs_and_no_others() {
        let watch = Arc::new(Watch::new(4., Duration::from_secs(120)));
        let metrics = Metrics::new("test").unwrap();
        let executor = Executor::start(Box::new(Panics), watch, metrics.clone()).unwrap();
        let rows = executor.run(vec![task(0)]).await.unwrap();
        assert!(
            matches!(&rows[0], Err(RowError::Failed(f)) if f.code == "panic" && f.message.contains("job 0")),
            "{rows:?}"
        );
        assert!(executor.run(vec![task(1)]).await.unwrap()[0].is_ok());
        assert_eq!(executor.self_test().await, Err("no pixels".into()));
        assert_eq!((metrics.images.get(), metrics.self_test_ok.get()), (1, 0));
    }
}
