//! `excite batch`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use excite_jobs::api::BatchState;

use super::ServerArgs;
use super::submit::weight;

/// Look at batches, steer them, fetch their images
#[derive(Debug, Subcommand)]
pub(crate) enum BatchCommand {
    List(BatchListArgs),
    /// Print what a batch is and how far it is
    Show(BatchOneArgs),
    /// Follow a batch until it is finished
    Watch(BatchOneArgs),
    /// Begin no more jobs of a batch; those that run go on
    Pause(BatchOneArgs),
    /// Go on with a paused batch
    Resume(BatchOneArgs),
    /// Make nothing more of a batch; what is finished stays
    Cancel(BatchOneArgs),
    Weight(WeightArgs),
    Fetch(FetchArgs),
    Delete(DeleteArgs),
}

impl BatchCommand {
    pub(crate) fn json(&self) -> bool {
        match self {
            Self::List(args) => args.json,
            Self::Show(args) | Self::Watch(args) | Self::Pause(args) => args.json,
            Self::Resume(args) | Self::Cancel(args) => args.json,
            Self::Weight(args) => args.json,
            Self::Fetch(args) => args.json,
            Self::Delete(args) => args.json,
        }
    }
}

const LIST_EXAMPLES: &str = "\
Examples:
  excite batch list
  excite batch list --state active --json";

/// List batches, the newest first
#[derive(Debug, Args)]
#[command(after_help = LIST_EXAMPLES)]
pub(crate) struct BatchListArgs {
    /// Only those that are active, paused, finished or cancelled
    #[arg(long, value_name = "STATE")]
    pub(crate) state: Option<BatchState>,

    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) limit: u32,

    #[command(flatten)]
    pub(crate) server: ServerArgs,

    /// Print one JSON object a line instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

const ONE_EXAMPLES: &str = "\
Examples:
  excite batch show 0193a1b2-7c3d-7e4f-8a5b-6c7d8e9f0a1b
  excite batch watch 0193a1b2 --json
  excite batch pause 0193a1b2

Exit status of `watch`: 0 all jobs succeeded, 1 none, 3 some, 130 interrupted (the batch goes on).";

/// A batch.
#[derive(Debug, Args)]
#[command(after_help = ONE_EXAMPLES)]
pub(crate) struct BatchOneArgs {
    /// Its id, or as much of it as no other has
    #[arg(value_name = "ID")]
    pub(crate) id: String,

    #[command(flatten)]
    pub(crate) server: ServerArgs,

    /// Print one JSON object a line instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

const WEIGHT_EXAMPLES: &str = "\
Examples:
  excite batch weight 0193a1b2 10      # ten jobs to one of a batch of weight 1";

/// Change a batch's share beside others
#[derive(Debug, Args)]
#[command(after_help = WEIGHT_EXAMPLES)]
pub(crate) struct WeightArgs {
    /// Its id, or as much of it as no other has
    #[arg(value_name = "ID")]
    pub(crate) id: String,

    /// From 1 to 100
    #[arg(value_name = "N", value_parser = weight)]
    pub(crate) weight: u32,

    #[command(flatten)]
    pub(crate) server: ServerArgs,

    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

const FETCH_EXAMPLES: &str = "\
Examples:
  excite batch fetch 0193a1b2 --out images
  excite batch fetch 0193a1b2 --out images --layout paper --sidecars
  excite batch fetch 0193a1b2 --out images --watch

`flat` names images as `excite generate` does: PROMPT-SEED.png, or their custom_id. `paper` makes a
folder a prompt, PROMPT/SEED.png, as the Attend-and-Excite repository does. Every image is checked
against its SHA-256; what is there already is not fetched again.

Exit status: 0 all images are there, 1 failed, 3 some jobs did not succeed or could not be fetched,
130 interrupted.";

/// Fetch the images of a batch
#[derive(Debug, Args)]
#[command(after_help = FETCH_EXAMPLES)]
pub(crate) struct FetchArgs {
    /// Its id, or as much of it as no other has
    #[arg(value_name = "ID")]
    pub(crate) id: String,

    /// Where the images go
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,

    /// How files are named: flat, or a folder a prompt
    #[arg(long, value_name = "LAYOUT", value_enum, default_value = "flat")]
    pub(crate) layout: Layout,

    /// Downloads at the same time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) jobs: u32,

    /// Also fetch the JSON beside each image
    #[arg(long)]
    pub(crate) sidecars: bool,

    /// Keep fetching until the batch is finished
    #[arg(long)]
    pub(crate) watch: bool,

    #[command(flatten)]
    pub(crate) server: ServerArgs,

    /// Print one JSON object a line instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// How fetched files are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Layout {
    /// PROMPT-SEED.png
    Flat,
    /// PROMPT/SEED.png
    Paper,
}

const DELETE_EXAMPLES: &str = "\
Examples:
  excite batch delete 0193a1b2         # says what would go
  excite batch delete 0193a1b2 --yes   # deletes it";

/// Delete a batch with its images
#[derive(Debug, Args)]
#[command(after_help = DELETE_EXAMPLES)]
pub(crate) struct DeleteArgs {
    /// Its id, or as much of it as no other has
    #[arg(value_name = "ID")]
    pub(crate) id: String,

    /// Really do it
    #[arg(long)]
    pub(crate) yes: bool,

    #[command(flatten)]
    pub(crate) server: ServerArgs,

    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}
