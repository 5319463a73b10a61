//! A process that ends with the test, however the test ends.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::poll::eventually;

/// Becomes the program, and leaves beside it a shell that kills the whole group once our end of
/// the pipe closes: when we say so, and also when the test is killed and can say nothing. That
/// shell passes over the signals that are meant for the program.
const WATCH: &str = r#"
exec 3<&0 </dev/null
(trap '' HUP INT TERM; read -r _ <&3; kill -KILL 0) >/dev/null 2>&1 &
exec 3<&-
exec "$@"
"#;

/// How many of the last lines a failure shows.
const TAIL: usize = 40;

/// What to run, as often as one likes.
#[derive(Debug, Clone)]
pub struct Recipe {
    name: String,
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    inherits: bool,
}

impl Recipe {
    /// A program under the name that messages call it by.
    pub fn new(name: &str, program: impl AsRef<Path>) -> Self {
        let program = program.as_ref().to_owned();
        Self { name: name.to_owned(), program, args: Vec::new(), env: Vec::new(), inherits: true }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Adds a variable of the environment.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Leaves of our own environment only what every program needs.
    #[must_use]
    pub(crate) fn alone(mut self) -> Self {
        self.inherits = false;
        self
    }

    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds the environment to a command.
    pub(crate) fn surround(&self, command: &mut Command) {
        if !self.inherits {
            command.env_clear().env("LANG", "C.UTF-8");
            command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
    }
}

/// The lines that a process has printed so far, on both outputs.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Mutex<Said>>);

#[derive(Debug, Default)]
struct Said {
    lines: Vec<String>,
    /// How many outputs may still say more.
    open: usize,
}

impl Log {
    /// All lines, oldest first.
    pub fn lines(&self) -> Vec<String> {
        self.lock().lines.clone()
    }

    /// The first line that is wanted.
    pub fn find(&self, wanted: impl Fn(&str) -> bool) -> Option<String> {
        self.lock().lines.iter().find(|line| wanted(line)).cloned()
    }

    /// The last lines as one text.
    pub fn tail(&self) -> String {
        let said = self.lock();
        said.lines[said.lines.len().saturating_sub(TAIL)..].join("\n")
    }

    /// Whether no more lines can come.
    pub fn closed(&self) -> bool {
        self.lock().open == 0
    }

    /// Takes lines from an output until it ends.
    fn take(&self, output: impl Read + Send + 'static) {
        self.lock().open += 1;
        let log = self.clone();
        std::thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = Vec::new();
            // Bytes, for what is not UTF-8 must not stop it.
            while output.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                log.lock().lines.push(String::from_utf8_lossy(&line).trim_end().to_owned());
                line.clear();
            }
            log.lock().open -= 1;
        });
    }

    fn lock(&self) -> MutexGuard<'_, Said> {
        // Lines are whole after a panic too.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running process and all that it started, in a group of their own.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: Log,
    /// The group is gone, and its number may be someone else's.
    killed: bool,
}

impl Process {
    /// Starts it; its lines go to `log`.
    pub fn start(recipe: &Recipe, log: &Log) -> Result<Self> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", WATCH, &recipe.name]).arg(&recipe.program).args(&recipe.args);
        recipe.surround(&mut command);
        command.process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn();
        let mut child = child.with_context(|| format!("cannot start {}", recipe.name))?;
        if let Some(output) = child.stdout.take() {
            log.take(output);
        }
        if let Some(output) = child.stderr.take() {
            log.take(output);
        }
        Ok(Self { name: recipe.name.clone(), child, log: log.clone(), killed: false })
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("cannot ask for {}", self.name))
    }

    /// Sends it a signal; nothing else in the group gets it.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.ended()? {
            anyhow::bail!("{} has ended ({status}): no {signal} for it", self.name);
        }
        kill(self.group(), signal).with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// Waits for its end.
    pub async fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        let log = self.log.clone();
        let ended = eventually(limit, &what, async || match self.child.try_wait() {
            Ok(status) => status.ok_or_else(|| "it runs".to_owned()),
            Err(error) => Err(error.to_string()),
        });
        ended.await.with_context(|| log.tail())
    }

    /// Kills the group, now, and sees it off.
    pub fn kill(&mut self) {
        if self.killed {
            return;
        }
        self.killed = true;
        // The watching shell is in the group, so its number is ours until this.
        let _ = killpg(self.group(), Signal::SIGKILL);
        let _ = self.child.wait();
    }

    /// The program leads the group, so both have one number.
    fn group(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> (Process, Log) {
        let log = Log::default();
        let recipe = Recipe::new("script", "/bin/sh").args(["-c", script]);
        (Process::start(&recipe, &log).unwrap(), log)
    }

    async fn line(log: &Log, wanted: &str) -> String {
        eventually(LIMIT, wanted, async || log.find(|line| line.starts_with(wanted))).await.unwrap()
    }

    async fn is_gone(pid: i32) {
        // A zombie is still there, but no longer ours to see off.
        let gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
            kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH)
                || stat.is_ok_and(|stat| stat.contains(") Z "))
        };
        eventually(LIMIT, "the end of a child's child", async || gone()).await.unwrap();
    }

    #[tokio::test]
    async fn what_it_started_goes_with_it() {
        let (process, log) = shell("sleep 1000 & echo child $!; wait");
        let child = line(&log, "child ").await["child ".len()..].parse().unwrap();
        drop(process);
        is_gone(child).await;
    }

    #[tokio::test]
    async fn it_goes_when_the_pipe_closes_as_when_the_test_is_killed() {
        let (mut process, log) = shell("sleep 1000 & echo child $!; wait");
        let child = line(&log, "child ").await["child ".len()..].parse().unwrap();
        drop(process.child.stdin.take());
        let status = process.wait(LIMIT).await.unwrap();
        assert_eq!(status.to_string(), "signal: 9 (SIGKILL)");
        is_gone(child).await;
    }

    #[tokio::test]
    async fn both_outputs_and_the_status_are_told() {
        let (mut process, log) = shell("echo out; echo err >&2; exit 3");
        assert_eq!(process.wait(LIMIT).await.unwrap().code(), Some(3));
        line(&log, "out").await;
        line(&log, "err").await;
        let error = process.signal(Signal::SIGTERM).unwrap_err().to_string();
        assert!(error.contains("script has ended"), "{error}");
    }

    #[tokio::test]
    async fn a_signal_reaches_the_program() {
        let script = "trap 'echo asked; exit 0' TERM; echo ready; while :; do sleep 0.01; done";
        let (mut process, log) = shell(script);
        line(&log, "ready").await;
        process.signal(Signal::SIGTERM).unwrap();
        assert!(process.wait(LIMIT).await.unwrap().success());
        line(&log, "asked").await;
    }
}
