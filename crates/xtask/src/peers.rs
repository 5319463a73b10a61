//! A Python that has diffusers, to measure and check against.
//!
//! Nothing that users run needs it. The scripts are in tests/peers.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::project::{self, Project};

const VARIABLE: &str = "EXCITE_PEERS_PYTHON";
const REQUIREMENTS: &str = "tests/peers/requirements.txt";
const ENVIRONMENT: &str = "target/peers";
const PYTHON: &str = "target/peers/bin/python";

/// Prints one line for each package of a requirements file that is missing or has another version.
const CHECK: &str = r#"
import sys
from importlib.metadata import PackageNotFoundError, version

for line in open(sys.argv[1]):
    name, _, wanted = line.strip().partition("==")
    try:
        found = version(name).partition("+")[0]  # a local part only says how it was built
    except PackageNotFoundError:
        found = "missing"
    if wanted and found != wanted:
        print(f"{name} is {found}, not {wanted}")
"#;

/// The Python that the environment names, else that of a virtual environment in `target`, which is
/// made if need be. `None`, and a note that says what to do, if it cannot be made.
pub(crate) fn python(project: &Project) -> Result<Option<PathBuf>> {
    if let Some(named) = std::env::var_os(VARIABLE).filter(|named| !named.is_empty()) {
        let named = absolute(PathBuf::from(named))?;
        check(project, &named).with_context(|| {
            format!("{VARIABLE} is {}; name another one or unset it", named.display())
        })?;
        return Ok(Some(named));
    }
    let python = project.path(PYTHON);
    if python.exists() && check(project, &python).is_ok() {
        return Ok(Some(python));
    }
    match make(project, &python) {
        Ok(()) => Ok(Some(python)),
        Err(error) => {
            eprintln!("note: no Python with diffusers, going on without it: {error:#}");
            eprintln!("      To make one by hand, in the root of the project:");
            eprintln!("          python3 -m venv {ENVIRONMENT}");
            eprintln!("          {PYTHON} -m pip install -r {REQUIREMENTS}");
            eprintln!("      or name one that has these packages: {VARIABLE}=/path/to/python");
            Ok(None)
        }
    }
}

/// Programs run at the root, so a path must not depend on where this one was started. Links stay:
/// a virtual environment is known by the path of its Python.
fn absolute(program: PathBuf) -> Result<PathBuf> {
    let on_path = program.components().count() == 1;
    if on_path { Ok(program) } else { Ok(std::path::absolute(program)?) }
}

/// Whether a Python has the packages.
fn check(project: &Project, python: &Path) -> Result<()> {
    let problems = project::output(project.command(python).args(["-c", CHECK, REQUIREMENTS]))?;
    if !problems.is_empty() {
        let problems = problems.lines().collect::<Vec<_>>().join(", ");
        bail!("it does not have what {REQUIREMENTS} asks for: {problems}");
    }
    Ok(())
}

fn make(project: &Project, python: &Path) -> Result<()> {
    eprintln!("Installing diffusers into {ENVIRONMENT}, once.");
    eprintln!("This downloads about 2 GB and takes minutes; {VARIABLE} names another Python.");
    // What these print is not part of what the command was asked for.
    let run = |program: &Path, args: &[&str]| {
        project::run(project.command(program).args(args).stdout(Stdio::from(std::io::stderr())))
    };
    run(Path::new("python3"), &["-m", "venv", ENVIRONMENT])?;
    run(python, &["-m", "pip", "install", "--quiet", "-r", REQUIREMENTS])?;
    check(project, python)
}
