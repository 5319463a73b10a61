//! Pythons with packages to measure and check against: diffusers, Schemathesis, matplotlib.
//!
//! Nothing that users run needs them. The scripts are in tests/peers.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::project::{self, Project};

/// What pictures and seconds are compared with.
pub(crate) const DIFFUSERS: Peer = Peer {
    name: "diffusers",
    variable: "EXCITE_PEERS_PYTHON",
    requirements: "tests/peers/requirements.txt",
    environment: "target/peers",
    download: "about 2 GB",
};

/// What asks the API for all that its description allows, and more.
pub(crate) const SCHEMATHESIS: Peer = Peer {
    name: "Schemathesis",
    variable: "EXCITE_API_PYTHON",
    requirements: "tests/peers/api/requirements.txt",
    environment: "target/api-peers",
    download: "about 30 MB",
};

/// What draws plots.
pub(crate) const MATPLOTLIB: Peer = Peer {
    name: "matplotlib",
    variable: "EXCITE_PLOTS_PYTHON",
    requirements: "tests/ops/scaling/requirements.txt",
    environment: "target/ops/plots",
    download: "about 50 MB",
};

/// A virtual environment of Python.
pub(crate) struct Peer {
    /// What is in it.
    name: &'static str,
    /// Names another Python that has it.
    variable: &'static str,
    requirements: &'static str,
    environment: &'static str,
    download: &'static str,
}

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

impl Peer {
    /// The Python that the environment names, else that of a virtual environment in `target`, which
    /// is made if need be. `None`, and a note that says what to do, if it cannot be made.
    pub(crate) fn python(&self, project: &Project) -> Result<Option<PathBuf>> {
        let Self { name, variable, requirements, environment, .. } = self;
        if let Some(named) = std::env::var_os(variable).filter(|named| !named.is_empty()) {
            let named = absolute(PathBuf::from(named))?;
            self.check(project, &named).with_context(|| {
                format!("{variable} is {}; name another one or unset it", named.display())
            })?;
            return Ok(Some(named));
        }
        let python = project.path(environment).join("bin/python");
        if python.exists() && self.check(project, &python).is_ok() {
            return Ok(Some(python));
        }
        match self.make(project, &python) {
            Ok(()) => Ok(Some(python)),
            Err(error) => {
                eprintln!("note: no Python with {name}, going on without it: {error:#}");
                eprintln!("      To make one by hand, in the root of the project:");
                eprintln!("          python3 -m venv {environment}");
                eprintln!("          {environment}/bin/python -m pip install -r {requirements}");
                eprintln!("      or name one that has these packages: {variable}=/path/to/python");
                Ok(None)
            }
        }
    }

    /// Whether a Python has the packages.
    fn check(&self, project: &Project, python: &Path) -> Result<()> {
        let requirements = self.requirements;
        let problems = project::output(project.command(python).args(["-c", CHECK, requirements]))?;
        if !problems.is_empty() {
            let problems = problems.lines().collect::<Vec<_>>().join(", ");
            bail!("it does not have what {requirements} asks for: {problems}");
        }
        Ok(())
    }

    fn make(&self, project: &Project, python: &Path) -> Result<()> {
        let Self { name, variable, requirements, environment, download } = self;
        eprintln!("Installing {name} into {environment}, once.");
        eprintln!("This downloads {download} and takes minutes; {variable} names another Python.");
        // What these print is not part of what the command was asked for.
        let run = |program: &Path, args: &[&str]| {
            let errors = Stdio::from(std::io::stderr());
            project::run(project.command(program).args(args).stdout(errors))
        };
        run(Path::new("python3"), &["-m", "venv", environment])?;
        run(python, &["-m", "pip", "install", "--quiet", "-r", requirements])?;
        self.check(project, python)
    }
}

/// Programs run at the root, so a path must not depend on where this one was started. Links stay:
/// a virtual environment is known by the path of its Python.
fn absolute(program: PathBuf) -> Result<PathBuf> {
    let on_path = program.components().count() == 1;
    if on_path { Ok(program) } else { Ok(std::path::absolute(program)?) }
}
