//! A server that can be killed, stopped, paused and started again where it was.

use std::ffi::OsStr;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::poll::{Try, eventually};
use crate::process::{Log, Process, Recipe};

/// A server of which we know how to start it.
#[derive(Debug)]
pub(crate) struct Server {
    recipe: Recipe,
    process: Mutex<Option<Process>>,
    log: Log,
}

impl Server {
    pub(crate) fn new(recipe: Recipe) -> Self {
        Self { recipe, process: Mutex::new(None), log: Log::default() }
    }

    /// Starts it, and asks until it answers.
    pub(crate) async fn start(
        &self,
        limit: Duration,
        mut probe: impl AsyncFnMut() -> Result<()>,
    ) -> Result<()> {
        let process = Process::start(&self.recipe, &self.log)?;
        *self.lock() = Some(process);
        let up = eventually(limit, self.recipe.name(), async || {
            match self.lock().as_mut().map(Process::ended) {
                Some(Ok(None)) => {}
                Some(Ok(Some(status))) => return Try::Never(anyhow::anyhow!("it ended: {status}")),
                Some(Err(error)) => return Try::Never(error),
                None => return Try::Never(anyhow::anyhow!("it was killed")),
            }
            match probe().await {
                Ok(()) => Try::Done(()),
                Err(error) => Try::Again(format!("{error:#}")),
            }
        });
        let up = up.await;
        up.with_context(|| {
            format!("{} is not up; it said:\n{}", self.recipe.name(), self.log.tail())
        })
    }

    /// Kills it and all that it started, as a power cut would.
    pub(crate) fn kill(&self) {
        drop(self.lock().take());
    }

    /// Asks it to end, and waits until it has.
    pub(crate) async fn stop(&self, limit: Duration) -> Result<()> {
        // Taken out, for a lock is not held over a wait.
        let Some(mut process) = self.lock().take() else { return Ok(()) };
        process.signal(Signal::SIGTERM)?;
        process.wait(limit).await?;
        Ok(())
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let mut process = self.lock();
        let process = process.as_mut();
        process.with_context(|| format!("{} does not run", self.recipe.name()))?.signal(signal)
    }

    /// Another program with the server's environment.
    pub(crate) fn beside(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        self.recipe.surround(&mut command);
        command
    }

    /// What it has printed, over all its starts.
    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    fn lock(&self) -> MutexGuard<'_, Option<Process>> {
        // There is a process or there is none, after a panic too.
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
