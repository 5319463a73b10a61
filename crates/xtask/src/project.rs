//! The checkout this program works on, and other programs run in it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A checkout of the project.
#[derive(Debug)]
pub(crate) struct Project {
    root: PathBuf,
}

impl Project {
    /// The checkout whose `cargo xtask` this is, wherever in it that was typed.
    pub(crate) fn find() -> Result<Self> {
        let here = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let root = here.as_deref().and_then(Path::parent).and_then(Path::parent);
        let root = root.context("start this program as `cargo xtask`, in the project")?;
        Ok(Self { root: root.to_owned() })
    }

    /// A path in the checkout.
    pub(crate) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    /// A program to run at the root, without input.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root).stdin(Stdio::null());
        // What cargo told this program of itself is not for others: build scripts that look at it
        // would run again, and all that depends on them be compiled anew.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text == "CARGO_MANIFEST_DIR"
                || text == "CARGO_MANIFEST_PATH"
                || text.starts_with("CARGO_PKG_")
            {
                command.env_remove(&name);
            }
        }
        command
    }

    /// Where cargo puts a program that it builds with a profile.
    pub(crate) fn built(&self, profile: &str, program: &str) -> Result<PathBuf> {
        // This one lies in `debug` beside it, wherever CARGO_TARGET_DIR is.
        let here = std::env::current_exe().context("where this program lies")?;
        let target = here.ancestors().nth(2).context("this program lies in no target folder")?;
        Ok(target.join(profile).join(program))
    }

    /// The cargo that started this program, with arguments.
    pub(crate) fn cargo(&self, args: &[&str]) -> Command {
        let mut command = self.command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(args);
        command
    }

    /// What git prints.
    pub(crate) fn git(&self, args: &[&str]) -> Result<String> {
        // In a container the checkout often belongs to another user, which git distrusts.
        let trusted = format!("safe.directory={}", self.root.display());
        output(self.command("git").args(["-c", &trusted]).args(args))
    }
}

/// Runs a program whose output is for the reader.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| cannot_start(command))?;
    if !status.success() {
        bail!("{} ended with {status}", name(command));
    }
    Ok(())
}

/// Runs a program and takes what it prints; what it complains about is shown if it fails.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| cannot_start(command))?;
    if !output.status.success() {
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        bail!("{} ended with {}", name(command), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("what {} printed", name(command)))
}

fn cannot_start(command: &Command) -> String {
    format!("cannot start {}: is it installed?", name(command))
}

fn name(command: &Command) -> String {
    format!("`{}`", command.get_program().display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_fails_is_named() {
        let error = run(Command::new("git").arg("--no-such-option").stderr(Stdio::null()));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("`git`") && error.contains("129"), "{error}");
        let error = run(&mut Command::new("no-such-program")).unwrap_err().to_string();
        assert_eq!(error, "cannot start `no-such-program`: is it installed?");
        let error = output(&mut Command::new("no-such-program")).unwrap_err().to_string();
        assert!(error.contains("no-such-program"), "{error}");
    }
}
