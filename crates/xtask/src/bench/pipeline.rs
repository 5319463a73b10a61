//! `cargo xtask bench pipeline`: what images cost, beside diffusers and beside the goals.
//!
//! Here is what is measured and in which order; each part has a file of its own.

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde_json::Value;

use super::machine::Machine;
use super::rounds::{Reports, Setting};
use super::table::{self, Row};
use super::{PAGE, build_cluster, bundled, busy, full_size, publish, start};
use crate::project::{self, Project};
use crate::{full_size as weights, peers};

const EXAMPLES: &str = "\
Examples:
  cargo xtask bench pipeline
  cargo xtask bench pipeline --threads 2 --repeats 5
  cargo xtask bench pipeline --write
  cargo xtask bench pipeline --only bundled --only start
  cargo xtask bench pipeline --only bundled --no-peer --json
  EXCITE_PEERS_PYTHON=/path/to/python cargo xtask bench pipeline

The model of the size of SD 1.4 is written into target/full-size once: 2 GB, and 10 GB of memory are
needed to measure it. All parts take about half an hour.";

/// Measure images, passes, memory and waiting, ours and diffusers' by turns
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PipelineArgs {
    /// Measure this part alone, or these [default: all]
    #[arg(long, value_name = "PART", value_enum)]
    only: Vec<Part>,

    /// Threads of each side
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: u32,

    /// Rounds; in each, first ours is measured, then diffusers
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeats: u32,

    /// Measure ours alone; needs no Python, but the weights of `full-size` must be there
    #[arg(long)]
    no_peer: bool,

    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,

    /// Also put the table into docs/performance.md; it must be whole
    #[arg(long, conflicts_with = "only")]
    write: bool,
}

/// What is measured, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Steps, images and a batch of the bundled model
    Bundled,
    /// Passes of a model of the size of SD 1.4
    FullSize,
    /// Memory of an image of that size
    Memory,
    /// From the start of the program to its first step
    Start,
    /// How busy a worker is between two images
    Worker,
}

/// Family of the model of the true size.
const FAMILY: &str = "sd14";
const MARK: &str = "cargo xtask bench pipeline --write";

/// What was measured so far.
#[derive(Debug, Default)]
struct Found {
    rows: Vec<Row>,
    /// Of the programs, as they said; one may come several times.
    versions: Vec<Value>,
}

impl Found {
    fn add(&mut self, reports: &Reports, rows: impl IntoIterator<Item = Row>) {
        self.rows.extend(rows);
        self.versions.extend(reports.versions());
    }
}

/// Measures and prints.
pub(crate) fn pipeline(project: &Project, args: &PipelineArgs) -> Result<()> {
    let parts: &[Part] = if args.only.is_empty() { Part::value_variants() } else { &args.only };
    let python = if args.no_peer { None } else { peers::DIFFUSERS.python(project)? };
    let PipelineArgs { threads, repeats, .. } = *args;
    let setting = Setting { project, python: python.as_deref(), threads, repeats };
    let folder = prepare(&setting, parts)?;
    let mut found = Found::default();
    // What is measured is shown even if a later part fails: it took its time.
    let ended = parts.iter().try_for_each(|part| measure(&setting, *part, &folder, &mut found));
    let machine = Machine::look(project, threads, repeats)?;
    if args.json {
        println!("{}", json(&found, &machine));
    } else if !found.rows.is_empty() {
        println!("{}\n{}", table::text(&found.rows), machine.line(&found.versions));
    }
    ended?;
    if args.write {
        let table = format!("{}\n\n{}", table::text(&found.rows), machine.line(&found.versions));
        publish(&project.path(PAGE), MARK, &table)?;
        eprintln!("written to {PAGE}");
    }
    Ok(())
}

/// Makes everything that is made once, before anything is timed; gives the folder of the model of
/// the true size if a part needs it.
fn prepare(setting: &Setting<'_>, parts: &[Part]) -> Result<String> {
    let Setting { project, python, .. } = *setting;
    let has = |part| parts.contains(&part);
    let full = has(Part::FullSize) || has(Part::Memory);
    if has(Part::Bundled) || full {
        let mut build = project.cargo(&["bench", "-p", "excite-diffusion", "--no-run", "--quiet"]);
        build.args(["--bench", bundled::BENCH, "--bench", full_size::BENCH]);
        project::run(&mut build).context("the benchmarks do not build")?;
    }
    if has(Part::Worker) {
        build_cluster(project)?;
    }
    if has(Part::Start) {
        // Last: the cluster's build leaves a program with the features of the cluster there.
        start::build(setting)?;
    }
    if !full {
        return Ok(String::new());
    }
    let folder = weights::folder(project, python, FAMILY)
        .context("to measure the other parts: --only bundled --only start --only worker")?;
    // Cargo runs a benchmark in the folder of its crate.
    let folder = project.path(folder);
    Ok(folder.to_str().context("the name of the project's folder is no text")?.to_owned())
}

fn measure(setting: &Setting<'_>, part: Part, folder: &str, found: &mut Found) -> Result<()> {
    match part {
        Part::Bundled => {
            let reports = bundled::measure(setting)?;
            found.add(&reports, bundled::rows(&reports)?);
        }
        Part::FullSize => {
            let reports = full_size::measure(setting, folder)?;
            found.add(&reports, full_size::rows(&reports)?);
        }
        Part::Memory => {
            let reports = full_size::measure_memory(setting, folder)?;
            found.add(&reports, [full_size::memory_row(&reports)?]);
        }
        Part::Start => found.rows.push(start::measure(setting)?),
        Part::Worker => found.rows.push(busy::measure(setting)?),
    }
    Ok(())
}

fn json(found: &Found, machine: &Machine) -> Value {
    let mut out = machine.json(&found.versions);
    for row in &found.rows {
        out[row.name] = row.json();
    }
    out
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::super::table::{Measured, Unit};
    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: PipelineArgs,
    }

    #[test]
    fn parts_are_chosen_and_only_a_whole_table_is_written() {
        let args = |line: &[&str]| Cli::try_parse_from([&["bench"], line].concat());
        let only = args(&["--only", "bundled", "--only", "full-size"]).unwrap().args.only;
        assert_eq!(only, [Part::Bundled, Part::FullSize]);
        assert!(args(&["--write"]).unwrap().args.write);
        assert!(args(&["--write", "--only", "memory"]).is_err());
        assert!(args(&["--only", "everything"]).is_err());
    }

    #[test]
    fn the_object_has_every_row() {
        let measured = Measured { min: 1., median: 2. };
        let row = Row {
            name: "start",
            label: "a start",
            unit: Unit::Seconds,
            ours: measured,
            peer: None,
            goal: None,
        };
        let versions = vec![json!({ "tool": "1" }), json!({ "tool": "1" })];
        let found = Found { rows: vec![row], versions };
        let object = super::json(&found, &Machine::example());
        assert_eq!(object["start"]["excite"], json!({ "min": 1., "median": 2. }));
        assert_eq!(object["start"]["diffusers"], Value::Null);
        assert_eq!(object["versions"]["tool"], "1");
    }
}
