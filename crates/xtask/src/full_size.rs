//! `cargo xtask full-size`: models of the true size with made-up weights, one guided step each.
//!
//! Shows that a family fits into a machine's memory and how long a step takes there. The picture is
//! noise; the numbers are checked on small models by the tests.

use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::peers;
use crate::project::{self, Project};

pub(crate) const EXAMPLES: &str = "\
Examples:
  cargo xtask full-size                 SD 1.4 and SDXL: 9 GB of disk, 9 and 20 GB of memory
  cargo xtask full-size sd14 sd21

Weights are written into target/full-size by diffusers' own classes and kept for the next time.";

/// Families that `tests/peers/make_checkpoints.py` knows.
const FAMILIES: [&str; 3] = ["sd14", "sd21", "sdxl"];
const FOLDER: &str = "target/full-size";
/// Empty, and there once everything else of a folder is: writing takes minutes and may be cut off.
const WRITTEN: &str = ".written";

/// Make one guided step with models of the true size and made-up weights
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct FullSizeArgs {
    /// sd14, sd21, sdxl
    #[arg(value_name = "FAMILY", default_values = ["sd14", "sdxl"], value_parser = FAMILIES)]
    families: Vec<String>,
}

/// The folder of a family, from the root; written if it is not there whole.
///
/// # Errors
/// If it has to be written and there is no Python.
pub(crate) fn folder(project: &Project, python: Option<&Path>, family: &str) -> Result<String> {
    let folder = format!("{FOLDER}/{family}");
    let written = project.path(&folder).join(WRITTEN);
    if written.is_file() {
        return Ok(folder);
    }
    let python = python.with_context(|| {
        format!("{folder} is not there, and there is no Python with diffusers to write it")
    })?;
    eprintln!("writing {folder}");
    let script = "tests/peers/make_checkpoints.py";
    project::run(project.command(python).args([script, family, &folder, "--full"]))?;
    let shown = written.display();
    std::fs::write(&written, "").with_context(|| format!("cannot write {shown}"))?;
    Ok(folder)
}

pub(crate) fn run(project: &Project, args: &FullSizeArgs) -> Result<()> {
    let python =
        peers::DIFFUSERS.python(project)?.context("the weights are written by diffusers")?;
    project::run(&mut project.cargo(&["build", "--release", "-p", "excite"]))?;
    let mut lines = Vec::new();
    for family in &args.families {
        let folder = folder(project, Some(&python), family)?;
        let out = format!("{FOLDER}/{family}-out");
        let printed = project::output(project.command("target/release/excite").args([
            "generate",
            "a cat and a frog",
            "--model",
            &folder,
            "--steps",
            "1",
            "--method-params",
            r#"{"thresholds": {}}"#,
            "--out",
            &out,
            "--overwrite",
            "--json",
        ]))?;
        let objects: Vec<Value> =
            printed.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        let (Some(image), Some(last)) = (objects.first(), objects.last()) else {
            bail!("excite printed nothing");
        };
        let number = |value: &Value| value.as_f64().context("a number is missing");
        let seconds = number(&last["summary"]["seconds"])?;
        let peak = number(&last["summary"]["peak_memory_bytes"])? / 1e9;
        let loss = number(&image["loss"])?;
        lines.push(format!("{family:<6} {seconds:>8.1} s {peak:>7.1} GB  loss {loss:.4}"));
    }
    println!("one guided step and the picture, all cores; peak of the whole process:");
    for line in lines {
        println!("{line}");
    }
    Ok(())
}
