//! `cargo xtask ops`: what operators get, checked: the chart, alerts and dashboards, images, the files
//! of a release; the tests on the next servers; and how many workers pools get, compared.
//!
//! Not the checks themselves: those are programs of their own below tests/ops, each with `--help`.

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::peers;
use crate::project::{self, Project};
use crate::servers;

pub(crate) const EXAMPLES: &str = "\
Examples:
  cargo xtask ops                    all but what is compared; some minutes, and as root for the images;
                                     images and `live` take programs that are built already, and
                                     `servers` is run as root, with mmdebstrap
  cargo xtask ops chart monitoring   these alone
  cargo xtask ops scaling --write    docs/scaling.md again: its table and its plots";

/// Check the chart, alerts and dashboards, images and the files of a release
///
/// Needs Python; what else is needed comes from Debian's packages and from PyPI, once, into target/ops.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct OpsArgs {
    /// Only these; all but `scaling` if none is named
    parts: Vec<Part>,

    /// Put what `scaling` found into docs/scaling.md
    #[arg(long)]
    write: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The Helm chart, rendered and checked without a cluster
    Chart,
    /// Alert rules and their tests, dashboards, runbooks
    Monitoring,
    /// One version, workflows, notices of others' work
    Release,
    /// Images built, started and stopped; the stack of docker/compose.yaml
    Images,
    /// Real Prometheus and Alertmanager beside real processes, under load and without servers
    Live,
    /// The tests of servers and clusters on RabbitMQ 4 and Valkey 8, from Debian 13's packages
    Servers,
    /// Pools under the dispatcher's numbers and under common autoscalers, simulated
    Scaling,
}

/// What these checks end with if their tools cannot be had.
const NO_TOOLS: i32 = 3;

const CHECKS: [(Part, &[&str]); 7] = [
    (Part::Chart, &["tests/ops/chart/check.py"]),
    (Part::Monitoring, &["tests/ops/monitoring/check.py"]),
    (Part::Release, &["tests/ops/release/version.py"]),
    (Part::Release, &["tests/ops/release/workflows.py"]),
    (Part::Release, &["tests/ops/release/notices.py", "--check"]),
    (Part::Images, &["tests/ops/images/check.py"]),
    (Part::Live, &["tests/ops/live/check.py"]),
];

/// Runs the checks.
pub(crate) fn run(project: &Project, args: &OpsArgs) -> Result<()> {
    let wanted = |part| {
        if args.parts.is_empty() { part != Part::Scaling } else { args.parts.contains(&part) }
    };
    if args.write && !wanted(Part::Scaling) {
        bail!("`--write` is of `scaling`: cargo xtask ops scaling --write");
    }
    for (part, check) in CHECKS {
        if wanted(part) && !passes(project, check)? {
            bail!("the tools of {} cannot be had here", check[0]);
        }
    }
    if wanted(Part::Servers) {
        on_next_servers(project)?;
    }
    if wanted(Part::Scaling) { scaling(project, args.write) } else { Ok(()) }
}

/// All other tests run on the oldest servers that are supported.
fn on_next_servers(project: &Project) -> Result<()> {
    servers::find(project)?;
    let mut tests = project.cargo(&["test", "--workspace"]);
    tests.args(["--test", "servers", "--test", "queue", "--test", "progress", "--test", "cluster"]);
    // Tests start programs of other packages, which those four do not build.
    project::run(&mut project.cargo(&["test", "--workspace", "--no-run", "--quiet"]))?;
    project::run(tests.env("EXCITE_TEST_SERVERS", "debian-13"))
}

/// Runs what takes seconds, where its tools can be had.
pub(crate) fn quick(project: &Project) -> Result<()> {
    for (part, check) in CHECKS {
        if matches!(part, Part::Monitoring | Part::Release) && !passes(project, check)? {
            println!("skipped: {}, its tools cannot be had here", check[0]);
        }
    }
    Ok(())
}

/// Whether a check passed; not if its tools cannot be had.
fn passes(project: &Project, check: &[&str]) -> Result<bool> {
    let mut python = project.command("python3");
    let status = python.args(check).status().context("cannot start python3: is it installed?")?;
    match status.code() {
        Some(0) => Ok(true),
        Some(NO_TOOLS) => Ok(false),
        _ => bail!("{} ended with {status}", check[0]),
    }
}

fn scaling(project: &Project, write: bool) -> Result<()> {
    let python = peers::MATPLOTLIB.python(project)?.context("plots need Python with matplotlib")?;
    // The features of the whole workspace, so that nothing is compiled a second time.
    let build = ["build", "--release", "--workspace", "--bin", "excite-scaling"];
    project::run(&mut project.cargo(&build))?;
    let simulation = project.built("release", "excite-scaling")?;
    let found = project::output(&mut project.command(simulation)).context("excite-scaling")?;
    let report = project.path("target/ops/scaling.json");
    std::fs::create_dir_all(project.path("target/ops")).context("cannot make target/ops")?;
    std::fs::write(&report, found).with_context(|| format!("cannot write {}", report.display()))?;
    let mut compare = project.command(python);
    compare.arg("tests/ops/scaling/compare.py").arg(report);
    if write {
        compare.args(["--write", "docs"]);
    }
    project::run(&mut compare)
}
