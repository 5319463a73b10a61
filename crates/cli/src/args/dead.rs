//! `excite dead`.

use clap::{Args, Subcommand};
use excite_jobs::DeadReason;

use super::ServerArgs;

/// Look at jobs that were given up, and try them again
#[derive(Debug, Subcommand)]
pub(crate) enum DeadCommand {
    List(DeadListArgs),
    Show(DeadShowArgs),
    Replay(ReplayArgs),
}

impl DeadCommand {
    pub(crate) fn json(&self) -> bool {
        match self {
            Self::List(args) => args.json,
            Self::Show(args) => args.json,
            Self::Replay(args) => args.json,
        }
    }
}

const LIST_EXAMPLES: &str = "\
Examples:
  excite dead list
  excite dead list --batch 0193a1b2 --json";

/// List dead jobs by batch, reason and code
#[derive(Debug, Args)]
#[command(after_help = LIST_EXAMPLES)]
pub(crate) struct DeadListArgs {
    /// Only of this batch: its id, or as much of it as no other has
    #[arg(long, value_name = "ID")]
    pub(crate) batch: Option<String>,

    #[command(flatten)]
    pub(crate) server: ServerArgs,

    /// Print one JSON object a line instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

const SHOW_EXAMPLES: &str = "\
Examples:
  excite dead show 0193a1b2            # all dead jobs of the batch
  excite dead show 0193a1b2 17 4711";

/// Print dead jobs: what they are and what they died of
#[derive(Debug, Args)]
#[command(after_help = SHOW_EXAMPLES)]
pub(crate) struct DeadShowArgs {
    /// The batch: its id, or as much of it as no other has
    #[arg(value_name = "BATCH")]
    pub(crate) batch: String,

    /// Places of jobs in the batch, as `excite dead list` shows them [default: all]
    #[arg(value_name = "INDEX")]
    pub(crate) indices: Vec<u32>,

    #[command(flatten)]
    pub(crate) server: ServerArgs,

    /// Print one JSON object a line instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

const REPLAY_EXAMPLES: &str = "\
Examples:
  excite dead replay 0193a1b2                     # all dead jobs of the batch
  excite dead replay 0193a1b2 --reason capacity   # after workers with more memory have come
  excite dead replay 0193a1b2 --index 17 --index 4711";

/// Try dead jobs again
#[derive(Debug, Args)]
#[command(after_help = REPLAY_EXAMPLES)]
pub(crate) struct ReplayArgs {
    /// The batch: its id, or as much of it as no other has
    #[arg(value_name = "BATCH")]
    pub(crate) batch: String,

    /// Only those that died of this: invalid, attempts, capacity, timeout, poison, incompatible
    /// or broker
    #[arg(long, value_name = "REASON")]
    pub(crate) reason: Option<DeadReason>,

    /// Only those whose last failure has this code
    #[arg(long, value_name = "CODE")]
    pub(crate) code: Option<String>,

    /// Only these places in the batch
    #[arg(long = "index", value_name = "N", num_args = 1..)]
    pub(crate) indices: Vec<u32>,

    #[command(flatten)]
    pub(crate) server: ServerArgs,

    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}
