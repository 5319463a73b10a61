//! `cargo xtask bench pipeline`: seconds of ours beside diffusers, measured by turns; and
//! `cargo xtask bench queue`.
//!
//! Not the measuring: that is crates/diffusion/benches/pipeline.rs and
//! tests/peers/bench_diffusers.py, which time the same things in the same number.

mod machine;
pub(crate) mod queue;
mod table;

use std::path::Path;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};

use crate::peers;
use crate::project::{self, Project};
use machine::Machine;
use table::{Row, Timing};

/// The timings that both sides report, and what they are called in the table.
const ROWS: [(&str, &str); 4] = [
    ("plain_step", "plain step"),
    ("guided_step", "guided step"),
    ("plain_image", "plain image"),
    ("guided_image", "guided image"),
];
/// The one that only ours has: seconds of a whole batch.
const BATCH: &str = "guided_batch";

pub(crate) const EXAMPLES: &str = "\
Examples:
  cargo xtask bench pipeline
  cargo xtask bench pipeline --threads 2 --repeats 5
  cargo xtask bench pipeline --write
  cargo xtask bench pipeline --no-peer --json
  EXCITE_PEERS_PYTHON=/path/to/python cargo xtask bench pipeline";

/// Time steps and images of the bundled model, ours and diffusers' by turns
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PipelineArgs {
    /// Threads of each side
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: u32,

    /// Rounds; in each, first ours is measured, then diffusers
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeats: u32,

    /// Measure ours alone; needs no Python
    #[arg(long)]
    no_peer: bool,

    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,

    /// Also put the table into docs/performance.md
    #[arg(long)]
    write: bool,
}

/// Where the tables are published; each between a line that names its command and [`END`].
const PAGE: &str = "docs/performance.md";
const MARK: &str = "cargo xtask bench pipeline --write";
const END: &str = "<!-- end -->";

/// Measures and prints.
pub(crate) fn pipeline(project: &Project, args: &PipelineArgs) -> Result<()> {
    // Everything that is made once is made before anything is timed.
    let build = ["bench", "-p", "excite-diffusion", "--bench", "pipeline", "--no-run", "--quiet"];
    project::run(&mut project.cargo(&build)).context("the benchmark does not build")?;
    let python = if args.no_peer { None } else { peers::DIFFUSERS.python(project)? };
    let (ours, peer) = rounds(project, python.as_deref(), args)?;
    let machine = Machine::look(project, args.threads, args.repeats)?;
    let versions = [Some(&ours), peer.as_ref()].into_iter().flatten().map(|r| &r[0]["versions"]);
    let versions: Vec<&Value> = versions.collect();
    let rows = rows(&ours, peer.as_deref())?;
    let images = ours[0][BATCH]["images"].as_f64().context("the batch lacks `images`")?;
    let batch = timing(&ours, BATCH)?;
    if args.json {
        println!("{}", json(&rows, (images, &batch), &machine, &versions));
    } else {
        println!("{}", table::text(&rows, (images, &batch)));
        println!("{}", machine.line(&versions));
    }
    if args.write {
        let table = table::text(&rows, (images, &batch));
        let table = format!("{table}\n\n{}", machine.line(&versions));
        publish(&project.path(PAGE), MARK, &table)?;
        eprintln!("written to {PAGE}");
    }
    Ok(())
}

/// Replaces what stands between the two lines of the page.
fn publish(page: &Path, mark: &str, table: &str) -> Result<()> {
    let text = std::fs::read_to_string(page).with_context(|| format!("cannot read {PAGE}"))?;
    let text = replaced(&text, mark, table)
        .with_context(|| format!("{PAGE} has no line `{}` with `{END}` behind it", begin(mark)))?;
    std::fs::write(page, text).with_context(|| format!("cannot write {PAGE}"))
}

fn begin(mark: &str) -> String {
    format!("<!-- {mark} -->")
}

fn replaced(text: &str, mark: &str, table: &str) -> Option<String> {
    let begin = begin(mark);
    let (before, rest) = text.split_once(&begin)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{begin}\n\n{table}\n\n{END}{after}"))
}

/// What both sides reported, one report a round; diffusers' is `None` if it is not there or failed.
fn rounds(
    project: &Project,
    python: Option<&Path>,
    args: &PipelineArgs,
) -> Result<(Vec<Value>, Option<Vec<Value>>)> {
    let mut ours = Vec::new();
    let mut peer = python.map(|python| (python, Vec::new()));
    for round in 1..=args.repeats {
        eprintln!("round {round} of {}: excite", args.repeats);
        ours.push(measure_ours(project, args.threads)?);
        let Some((python, reports)) = &mut peer else { continue };
        eprintln!("round {round} of {}: diffusers", args.repeats);
        match measure_peer(project, python, args.threads) {
            Ok(report) => reports.push(report),
            Err(error) => {
                eprintln!("note: diffusers cannot be measured, going on without it: {error:#}");
                peer = None;
            }
        }
    }
    Ok((ours, peer.map(|(_, reports)| reports)))
}

fn measure_ours(project: &Project, threads: u32) -> Result<Value> {
    let bench = ["bench", "-p", "excite-diffusion", "--bench", "pipeline", "--quiet"];
    let mut command = project.cargo(&bench);
    command.args(["--", "--json", "--repeats", "1"]);
    // candle and rayon take their number of threads from here.
    command.env("RAYON_NUM_THREADS", threads.to_string());
    report(&project::output(&mut command)?).context("crates/diffusion/benches/pipeline.rs")
}

fn measure_peer(project: &Project, python: &Path, threads: u32) -> Result<Value> {
    let mut command = project.command(python);
    command.args(["tests/peers/bench_diffusers.py", "--json", "--repeats", "1"]);
    command.args(["--threads", &threads.to_string()]);
    report(&project::output(&mut command)?).context("tests/peers/bench_diffusers.py")
}

/// One round's report, which must have every timing.
fn report(text: &str) -> Result<Value> {
    let report: Value = serde_json::from_str(text).context("it did not print one JSON object")?;
    for (name, _) in ROWS {
        times(&report, name)?;
    }
    Ok(report)
}

/// The seconds of one timing in one report.
fn times(report: &Value, name: &str) -> Result<Vec<f64>> {
    let times = report[name]["times"].as_array().filter(|times| !times.is_empty());
    let times = times.and_then(|times| times.iter().map(Value::as_f64).collect());
    times.with_context(|| format!("`{name}` has no `times`"))
}

/// A timing over all rounds.
fn timing(reports: &[Value], name: &str) -> Result<Timing> {
    let each = reports.iter().map(|report| times(report, name));
    let each = each.collect::<Result<Vec<_>>>()?;
    Timing::of(each.concat()).context("there is no round")
}

fn rows(ours: &[Value], peer: Option<&[Value]>) -> Result<Vec<Row>> {
    let row = |(name, label)| {
        let peer = peer.map(|reports| timing(reports, name)).transpose()?;
        Ok(Row { name, label, ours: timing(ours, name)?, peer })
    };
    ROWS.into_iter().map(row).collect()
}

fn json(
    rows: &[Row],
    (images, batch): (f64, &Timing),
    machine: &Machine,
    versions: &[&Value],
) -> Value {
    let mut out = machine.json(versions);
    for row in rows {
        let peer = row.peer.as_ref().map(Timing::json);
        out[row.name] =
            json!({ "excite": row.ours.json(), "diffusers": peer, "ratio": row.ratio() });
    }
    out[BATCH] = json!({
        "images": images,
        "excite": batch.json(),
        "images_per_second": images / batch.min,
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(seconds: f64) -> Value {
        let timing = json!({ "times": [seconds, seconds + 1.] });
        let mut report = json!({ "versions": { "tool": "1" } });
        for (name, _) in ROWS {
            report[name] = timing.clone();
        }
        report
    }

    #[test]
    fn rounds_are_put_together() {
        let (ours, peer) = ([printed(1.), printed(2.)], [printed(4.), printed(3.)]);
        let rows = rows(&ours, Some(&peer)).unwrap();
        assert_eq!(rows.len(), 4);
        for row in rows {
            // 1, 2, 2, 3 and 3, 4, 4, 5
            assert_eq!((row.ours.min, row.ours.median), (1., 2.));
            let peer = row.peer.as_ref().unwrap();
            assert_eq!((peer.min, peer.median), (3., 4.));
            assert_eq!(row.ratio(), Some(1. / 3.));
        }
    }

    #[test]
    fn a_report_must_be_whole() {
        let good = printed(1.);
        assert_eq!(report(&good.to_string()).unwrap(), good);
        let error = report("Traceback").unwrap_err().to_string();
        assert!(error.contains("JSON"), "{error}");
        for bad in [json!(null), json!({ "times": [] }), json!({ "times": ["1"] })] {
            let mut report = good.clone();
            report["guided_step"] = bad;
            let error = super::report(&report.to_string()).unwrap_err().to_string();
            assert_eq!(error, "`guided_step` has no `times`");
        }
    }

    #[test]
    fn only_the_table_of_the_page_is_replaced() {
        let (one, two) = (begin("one"), begin("two"));
        let page = format!("{one}\nold\n{END}\nabove\n{two}\nold\n{END}\nbelow\n");
        let once = replaced(&page, "two", "new").unwrap();
        let want = format!("{one}\nold\n{END}\nabove\n{two}\n\nnew\n\n{END}\nbelow\n");
        assert_eq!(once, want);
        assert_eq!(replaced(&once, "two", "new").unwrap(), once);
        assert_eq!(replaced("no such lines", "two", "new"), None);
    }

    #[test]
    fn without_diffusers_ours_stands_alone() {
        let rows = rows(&[printed(1.)], None).unwrap();
        assert!(rows.iter().all(|row| row.peer.is_none() && row.ratio().is_none()));
    }
}
