//! `cargo xtask`: what people who work on Excite run, and what CI runs.
//!
//! Not for users: the program they run is `excite` (crates/cli).

#![expect(clippy::print_stdout, reason = "a program that is read in a terminal")]

mod api;
mod bench;
mod cuda_check;
mod docs;
mod faults;
mod full_size;
mod ops;
mod peers;
mod project;
mod servers;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use project::Project;

const EXAMPLES: &str = "\
Examples:
  cargo xtask test                 before a commit; CI runs the same
  cargo xtask bench pipeline       seconds and memory, beside diffusers and the goals
  cargo xtask bench queue          jobs a second, beside the goals
  cargo xtask api                  whether the API keeps to its description
  cargo xtask faults --minutes 30  whether anything is lost when everything fails
  cargo xtask ops                  the chart, alerts, dashboards, images, a release
  cargo xtask cuda-check           whether it builds for GPUs, on a machine without one
  cargo xtask docs                 after a change of what pictures look like";

/// Check, measure and illustrate Excite
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask", arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    Test(TestArgs),
    /// Check the house rules alone: headers, lengths, left-overs, links
    Tidy,
    Bench(BenchArgs),
    Faults(faults::FaultsArgs),
    /// Ask `excite serve` for all that the API's description allows, and for much that it does not
    Api,
    FullSize(full_size::FullSizeArgs),
    Ops(ops::OpsArgs),
    CudaCheck(cuda_check::CudaCheckArgs),
    /// Draw the pictures of docs/images again, with the release build
    Docs,
}

const TEST_EXAMPLES: &str = "\
Examples:
  cargo xtask test
  cargo xtask test --all
  EXCITE_PEERS_PYTHON=/path/to/python cargo xtask test --all

Stops at the first failure with exit status 1 and the command that repeats it.";

/// Check formatting, lints, tests, documentation and house rules
#[derive(Debug, Args)]
#[command(after_help = TEST_EXAMPLES)]
struct TestArgs {
    /// Also run what takes long, test the release build, the golden data against diffusers and the
    /// API against its description, where Python has what that takes
    #[arg(long)]
    all: bool,
}

/// Measure
#[derive(Debug, Args)]
#[command(arg_required_else_help = true, after_help = bench::EXAMPLES)]
struct BenchArgs {
    #[command(subcommand)]
    what: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    Pipeline(bench::pipeline::PipelineArgs),
    Queue(bench::queue::QueueArgs),
}

fn main() -> ExitCode {
    let task = Cli::parse().task;
    match Project::find().and_then(|project| run(&project, &task)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(project: &Project, task: &Task) -> anyhow::Result<()> {
    match task {
        Task::Test(args) => test::run(project, args.all),
        Task::Tidy => tidy::run(project),
        Task::Bench(BenchArgs { what: Bench::Pipeline(args) }) => {
            bench::pipeline::pipeline(project, args)
        }
        Task::Bench(BenchArgs { what: Bench::Queue(args) }) => bench::queue::queue(project, args),
        Task::Faults(args) => faults::faults(project, args),
        Task::Api => api::fuzz(project),
        Task::FullSize(args) => full_size::run(project, args),
        Task::Ops(args) => ops::run(project, args),
        Task::CudaCheck(args) => cuda_check::run(project, args),
        Task::Docs => docs::run(project),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
