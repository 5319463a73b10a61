//! `cargo xtask test`: every check, one after the other, up to the first that fails.
//!
//! Not the checks themselves: those are cargo's, the tests', and `tidy`.

use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::project::{self, Project};
use crate::{api, ops, peers, servers, tidy};

/// Runs the checks; `all` adds those that take long.
pub(crate) fn run(project: &Project, all: bool) -> Result<()> {
    let start = Instant::now();
    let cargo = |args: &[&str]| project::run(&mut project.cargo(args));
    step("set-up", "cargo xtask test", || {
        tools(project)?;
        servers::find(project)
    })?;
    step("formatting", "cargo fmt --all --check (`cargo fmt --all` mends it)", || {
        cargo(&["fmt", "--all", "--check"])
    })?;
    step("clippy", "cargo clippy --workspace --all-targets -- -D warnings", || {
        cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])
    })?;
    // Tests start programs of other crates. All of these have tests of their own, so cargo builds
    // them before any test runs; `cargo build` would compile everything a second time, because
    // dependencies have other features there.
    step("tests", "cargo test --workspace", || cargo(&["test", "--workspace"]))?;
    step("documentation", r#"RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps"#, || {
        let mut doc = project.cargo(&["doc", "--workspace", "--no-deps"]);
        project::run(doc.env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    step("tidy", "cargo xtask tidy", || tidy::run(project))?;
    step("what operators get", "cargo xtask ops monitoring release", || ops::quick(project))?;
    if all {
        // With the features that others want it builds even if it names what it does not have.
        step("excite alone", "cargo check -p excite", || cargo(&["check", "-p", "excite"]))?;
        step("long tests", "cargo test --workspace -- --ignored", || {
            cargo(&["test", "--workspace", "--", "--ignored"])
        })?;
        step("tests, release", "cargo test --workspace --release", || {
            cargo(&["test", "--workspace", "--release"])
        })?;
        golden(project)?;
        step("API against its description", "cargo xtask api", || api::fuzz(project))?;
    }
    println!("all passed in {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Announces a check, runs it, and says how long it took or how to repeat it.
fn step(name: &str, repeat: &str, check: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("== {name} ==");
    let start = Instant::now();
    let result = check();
    let seconds = start.elapsed().as_secs_f64();
    if let Err(error) = result {
        bail!("{name} failed after {seconds:.1} s: {error:#}\nto repeat it: {repeat}");
    }
    println!("== {name}: passed in {seconds:.1} s ==\n");
    Ok(())
}

/// The parts of Rust that the checks need.
fn tools(project: &Project) -> Result<()> {
    let lacks = |name: &str| {
        let mut version = project.cargo(&[name, "--version"]);
        let status = version.stdout(Stdio::null()).stderr(Stdio::null()).status();
        !status.is_ok_and(|status| status.success())
    };
    require([("fmt", "rustfmt"), ("clippy", "clippy")].into_iter().filter(|tool| lacks(tool.0)))
}

/// Says which components of Rust to add for the cargo commands that are missing.
fn require<'a>(missing: impl Iterator<Item = (&'a str, &'a str)>) -> Result<()> {
    let (commands, components): (Vec<_>, Vec<_>) =
        missing.map(|(command, component)| (format!("`cargo {command}`"), component)).unzip();
    if commands.is_empty() {
        return Ok(());
    }
    bail!("missing: {}; run: rustup component add {}", commands.join(", "), components.join(" "));
}

/// Computes the first step of the guided golden cases again, with diffusers.
fn golden(project: &Project) -> Result<()> {
    let Some(python) = peers::DIFFUSERS.python(project)? else {
        println!("== golden data: skipped, there is no Python with diffusers ==\n");
        return Ok(());
    };
    for case in guided_cases(project)? {
        let args = ["tests/peers/check_golden.py", "--case", &case];
        let repeat = format!("{} {}", python.display(), args.join(" "));
        step(&format!("golden data, {case}"), &repeat, || {
            project::run(project.command(&python).args(args))
        })?;
    }
    Ok(())
}

fn guided_cases(project: &Project) -> Result<Vec<String>> {
    let listed = std::fs::read_dir(project.path("golden")).context("cannot list golden/")?;
    let names = listed.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names = names.collect::<std::io::Result<Vec<_>>>().context("cannot list golden/")?;
    let cases = names.iter().filter_map(|name| name.strip_suffix(".safetensors"));
    let mut cases: Vec<String> =
        cases.filter(|case| case.starts_with("guided_")).map(ToOwned::to_owned).collect();
    cases.sort();
    Ok(cases)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_how_long_and_how_to_repeat_it() {
        step("one", "cargo one", || Ok(())).unwrap();
        let error = step("two", "cargo two", || bail!("it is broken")).unwrap_err().to_string();
        let (first, second) = error.split_once('\n').unwrap();
        assert!(first.starts_with("two failed after 0.0 s: it is broken"), "{first}");
        assert_eq!(second, "to repeat it: cargo two");
    }

    #[test]
    fn what_is_missing_is_named_with_the_command_that_adds_it() {
        require([].into_iter()).unwrap();
        let error = require([("fmt", "rustfmt"), ("clippy", "clippy")].into_iter()).unwrap_err();
        let want = "missing: `cargo fmt`, `cargo clippy`; run: rustup component add rustfmt clippy";
        assert_eq!(error.to_string(), want);
    }
}
