//! `cargo xtask cuda-check`: the CUDA build on a machine that need have neither CUDA nor a GPU.
//!
//! CUDA's compiler and libraries come as Python packages (`toolkit`), the driver's library is a stub
//! to link against. candle's kernels for quantised models, which take most of the time of a CUDA
//! build and are not used here, are left out of a copy that cargo takes instead of the crate;
//! neither the lock file nor the ordinary target folder changes. Not here: running on a GPU, which
//! `tests/gpu/run` does with what `--pack` makes.

mod kernels;
mod pack;
mod toolkit;

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::project::{self, Project};
use toolkit::Toolkit;

pub(crate) const EXAMPLES: &str = "\
Examples:
  cargo xtask cuda-check                       compiles everything that GPUs are used by, links `excite`
  cargo xtask cuda-check --check-only          types only, and the kernels
  cargo xtask cuda-check --pack                also release builds for a machine with a GPU: tests/gpu/run
  CUDA_HOME=/usr/local/cuda cargo xtask cuda-check

Without CUDA_HOME it takes the packages of tests/gpu/cuda-requirements.txt, 1.2 GB, once. What is built
lies in target/cuda. A program that is built so needs NVIDIA's driver to start, so nothing is run here.";

/// Everything below it is made here.
const FOLDER: &str = "target/cuda";
/// The oldest GPUs that the kernels are compiled for; newer ones translate them when they are loaded.
const COMPUTE_CAPABILITY: &str = "80";

/// Check and build the CUDA path without a GPU
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CudaCheckArgs {
    /// Check types and compile the kernels, but link nothing
    #[arg(long, conflicts_with = "pack")]
    check_only: bool,

    /// Also make target/cuda/pack: what tests/gpu/run needs on a machine without Rust
    #[arg(long)]
    pack: bool,
}

pub(crate) fn run(project: &Project, args: &CudaCheckArgs) -> Result<()> {
    let mut progress = Progress { done: Vec::new() };
    let result = steps(project, args, &mut progress);
    println!("\n{}", progress.table());
    result
}

fn steps(project: &Project, args: &CudaCheckArgs, progress: &mut Progress) -> Result<()> {
    let folder = project.path(FOLDER);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {FOLDER}"))?;
    let crates = crates(project)?;
    let toolkit = progress.step("CUDA's compiler and libraries", || {
        Toolkit::find(project, &folder, &crates.cudarc)
    })?;
    println!("{}", toolkit.version(project)?);
    let kernels = progress.step("candle's kernels without those for quantised models", || {
        kernels::copy(&crates.kernels, &folder.join("candle-kernels"))
    })?;
    let build = Build { project, toolkit, kernels, target: folder.join("build") };
    progress.step("types: cargo check, all targets", || {
        build.cargo("check", &[&PACKAGES[..], &["--all-targets"]].concat())
    })?;
    if args.check_only {
        return Ok(());
    }
    progress.step("linking: excite, dev profile", || build.cargo("build", &["-p", "excite"]))?;
    if args.pack {
        progress.step("target/cuda/pack, release", || pack::make(&build, &folder.join("pack")))?;
    }
    Ok(())
}

/// What computes on GPUs, or starts what does.
const PACKAGES: [&str; 6] = ["-p", "excite-diffusion", "-p", "excite-worker", "-p", "excite"];
const FEATURES: &str = "excite-diffusion/cuda,excite-worker/cuda,excite/cuda";

/// How cargo builds with CUDA.
struct Build<'a> {
    project: &'a Project,
    toolkit: Toolkit,
    /// The copy of candle-kernels.
    kernels: PathBuf,
    target: PathBuf,
}

impl Build<'_> {
    /// `cargo COMMAND --features ... ARGS`, of the chosen packages alone.
    fn command(&self, command: &str, args: &[&str]) -> Result<Command> {
        let kernels = self.kernels.to_str().context("the path of the checkout is no Unicode")?;
        let mut cargo = self.project.cargo(&[command, "--locked"]);
        // A path override: unlike a patch, it leaves Cargo.lock as it is.
        cargo.args(["--config", &format!("paths=[{kernels:?}]")]);
        cargo.arg("--target-dir").arg(&self.target).args(args);
        let features = features(args);
        cargo.args(["--features", &features]);
        self.toolkit.set(&mut cargo);
        cargo.env("CUDA_COMPUTE_CAP", COMPUTE_CAPABILITY);
        Ok(cargo)
    }

    fn cargo(&self, command: &str, args: &[&str]) -> Result<()> {
        project::run(&mut self.command(command, args)?)
    }
}

/// Features of the packages that are named, since cargo knows no others then.
fn features(args: &[&str]) -> String {
    let named =
        |feature: &&str| feature.split_once('/').is_some_and(|(name, _)| args.contains(&name));
    FEATURES.split(',').filter(named).collect::<Vec<_>>().join(",")
}

/// Where cargo keeps the sources of crates that only this build uses.
struct Crates {
    cudarc: PathBuf,
    kernels: PathBuf,
}

fn crates(project: &Project) -> Result<Crates> {
    let metadata = project::output(&mut project.cargo(&[
        "metadata",
        "--format-version",
        "1",
        "--locked",
        "--all-features",
    ]))?;
    let metadata: Value = serde_json::from_str(&metadata).context("what cargo metadata printed")?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let source = |name: &str| {
        let package = packages.iter().find(|package| package["name"] == name);
        let manifest = package.and_then(|package| package["manifest_path"].as_str());
        let folder = manifest.and_then(|path| PathBuf::from(path).parent().map(PathBuf::from));
        folder.with_context(|| format!("Cargo.lock has no `{name}`"))
    };
    Ok(Crates { cudarc: source("cudarc")?, kernels: source("candle-kernels")? })
}

/// What was done and how long it took.
struct Progress {
    done: Vec<(&'static str, f64, bool)>,
}

impl Progress {
    fn step<T>(&mut self, name: &'static str, act: impl FnOnce() -> Result<T>) -> Result<T> {
        println!("== {name} ==");
        let start = Instant::now();
        let result = act();
        self.done.push((name, start.elapsed().as_secs_f64(), result.is_ok()));
        match result {
            Ok(value) => Ok(value),
            Err(error) => bail!("{name}: {error:#}"),
        }
    }

    fn table(&self) -> String {
        let width = self.done.iter().map(|(name, ..)| name.chars().count()).max().unwrap_or(0);
        let line = |(name, seconds, worked): &(&str, f64, bool)| {
            let mark = if *worked { "ok" } else { "FAILED" };
            format!("{name:<width$}  {seconds:>6.1} s  {mark}")
        };
        self.done.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_those_of_the_packages_that_are_named() {
        assert_eq!(features(&["-p", "excite"]), "excite/cuda");
        assert_eq!(features(&PACKAGES), FEATURES);
    }

    /// A machine without a driver has no `nvidia-smi` on its path.
    #[test]
    fn without_a_gpu_the_script_for_gpus_says_so_at_once() {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/gpu/run");
        let mut bash = Command::new("/bin/bash");
        let said = bash.arg(script).env("PATH", "/no/such/folder").output().unwrap();
        let message = String::from_utf8_lossy(&said.stderr);
        assert_eq!(said.status.code(), Some(1), "{message}");
        assert!(message.contains("no GPU that can be used"), "{message}");
        assert!(message.contains("help: Run this on a machine with an NVIDIA GPU"), "{message}");
    }

    #[test]
    fn the_table_shows_how_far_it_got() {
        let mut progress = Progress { done: Vec::new() };
        progress.step("one", || Ok(())).unwrap();
        let error = progress.step("another", || -> Result<()> { bail!("no nvcc") }).unwrap_err();
        assert_eq!(error.to_string(), "another: no nvcc");
        assert_eq!(progress.table(), "one         0.0 s  ok\nanother     0.0 s  FAILED");
    }
}
