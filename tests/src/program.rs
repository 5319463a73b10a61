//! Our own programs as users run them: started, read, signalled, waited for.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::poll::{Try, eventually};
use crate::process::{Log, Process, Recipe};

/// How long one question over HTTP may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Where cargo put a program of this workspace: beside the one that runs.
pub fn built(name: &str) -> Result<PathBuf> {
    let here = std::env::current_exe().context("where this program lies")?;
    // Tests lie one folder deeper than programs.
    let folders = here.ancestors().skip(1).take(2);
    let found = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
    found.with_context(|| {
        format!(
            "{name} is not built, or not beside this test: run `cargo build --workspace --bins`"
        )
    })
}

/// One of our programs, running. When a test fails, its lines are shown; when the test ends, it
/// ends.
#[derive(Debug)]
pub struct Program {
    name: String,
    process: Process,
    log: Log,
}

impl Program {
    /// Starts a program with arguments and, besides our own, these variables.
    pub fn start<A: AsRef<OsStr>, K: AsRef<OsStr>, V: AsRef<OsStr>>(
        path: impl AsRef<Path>,
        args: impl IntoIterator<Item = A>,
        env: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self> {
        let path = path.as_ref();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut recipe = Recipe::new(&name, path).args(args);
        for (variable, value) in env {
            recipe = recipe.env(variable, value);
        }
        let log = Log::default();
        Ok(Self { name, process: Process::start(&recipe, &log)?, log })
    }

    /// What it has printed, on both outputs.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Waits for a line, which may have come already.
    pub async fn wait_for_line(
        &mut self,
        what: &str,
        wanted: impl Fn(&str) -> bool,
        limit: Duration,
    ) -> Result<String> {
        let what = format!("{what} from {}", self.name);
        let found = eventually(limit, &what, async || {
            // In this order, for the last line may come right before the end.
            let ended = self.process.ended();
            match (self.log.find(&wanted), ended) {
                (Some(line), _) => Try::Done(line),
                (None, Ok(Some(status))) if self.log.closed() => Try::Never(ended_with(status)),
                (None, Err(error)) => Try::Never(error),
                (None, _) => Try::Again("other lines".to_owned()),
            }
        });
        let found = found.await;
        found.with_context(|| format!("{} said:\n{}", self.name, self.log.tail()))
    }

    /// Waits until a URL answers with success, and gives what it answers.
    pub async fn wait_http(&mut self, url: &str, limit: Duration) -> Result<String> {
        crate::choose_cryptography();
        let client = reqwest::Client::builder().timeout(ANSWER_LIMIT).no_proxy().build();
        let client = client.context("the HTTP client")?;
        let what = format!("{url} of {}", self.name);
        let answered = eventually(limit, &what, async || {
            match self.process.ended() {
                Ok(None) => {}
                Ok(Some(status)) => return Try::Never(ended_with(status)),
                Err(error) => return Try::Never(error),
            }
            match get(&client, url).await {
                Ok(text) => Try::Done(text),
                Err(error) => Try::Again(format!("{error:#}")),
            }
        });
        let answered = answered.await;
        answered.with_context(|| format!("{} said:\n{}", self.name, self.log.tail()))
    }

    /// Sends it a signal.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Kills it, as a power cut would.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.process.ended()
    }

    /// Waits for its end.
    pub async fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.process.wait(limit).await
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("-- {} said:", self.name);
            for line in self.log.lines() {
                eprintln!("{line}");
            }
            eprintln!("-- end of {}", self.name);
        }
    }
}

fn ended_with(status: ExitStatus) -> anyhow::Error {
    anyhow::anyhow!("it ended: {status}")
}

async fn get(client: &reqwest::Client, url: &str) -> Result<String> {
    let response = client.get(url).send().await?;
    let status = response.status();
    let text = response.text().await?;
    if !status.is_success() {
        bail!("{status}: {text}");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> Program {
        Program::start("/bin/sh", ["-c", script], [("GREETING", "hello")]).unwrap()
    }

    #[tokio::test]
    async fn lines_are_found_even_when_it_has_ended() {
        let mut program = shell("echo $GREETING");
        let line = program.wait_for_line("a greeting", |line| line == "hello", LIMIT).await;
        assert_eq!(line.unwrap(), "hello");
        assert!(program.wait(LIMIT).await.unwrap().success());
    }

    #[tokio::test]
    async fn an_early_end_is_told_with_what_was_said() {
        let mut program = shell("echo no such setting >&2; exit 2");
        let error = program.wait_for_line("its address", |_| false, LIMIT).await.unwrap_err();
        let error = format!("{error:#}");
        for part in ["no such setting", "its address from sh", "exit status: 2"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        let mut program = shell("exit 2");
        let error = program.wait_http("http://127.0.0.1:1/", LIMIT).await.unwrap_err();
        assert!(format!("{error:#}").contains("exit status: 2"), "{error:#}");
    }

    #[test]
    fn a_program_that_is_not_built_is_told_with_the_command() {
        let error = built("no-such-program").unwrap_err().to_string();
        assert!(error.contains("cargo build --workspace --bins"), "{error}");
    }
}
