//! `excite serve`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::ComputeArgs;
use crate::models::BUNDLED;

const SERVE_EXAMPLES: &str = "\
Examples:
  excite serve
  excite serve --model stable-diffusion-v1-4 --slots 1
  excite serve --device cuda --slots 8
  excite serve --listen 0.0.0.0:8080 --tokens tokens.txt

Then open the address in a browser, or use `excite submit`, `excite batch` and `excite dead` as with
a cluster. Batches and images are kept in the data folder: the next start goes on where this one
stopped. Ctrl-C saves what runs and stops; a second one stops at once.

Exit status: 0 stopped, 1 failed, 2 wrong usage, 130 stopped by the second Ctrl-C.";

/// Run the whole system in this process: dashboard, API, and a worker for this machine
#[derive(Debug, Args)]
#[command(after_help = SERVE_EXAMPLES)]
pub(crate) struct ServeArgs {
    /// Where HTTP is served; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,

    /// Where batches, images and models are kept [default: ~/.local/share/excite/serve]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,

    /// A model to offer, as `excite generate --model` takes it; can be given several times, and the
    /// first one is for batches that name none
    #[arg(long = "model", value_name = "MODEL", default_value = BUNDLED)]
    pub(crate) models: Vec<String>,

    /// Jobs at a time; how many of them are made together is measured
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) slots: u16,

    #[command(flatten)]
    pub(crate) compute: ComputeArgs,

    /// A file of tokens, as `excite-dispatcher token new` writes it; without one everybody who
    /// reaches the address may do everything
    #[arg(long, value_name = "FILE")]
    pub(crate) tokens: Option<PathBuf>,

    /// What is logged to standard error: `info`, `excite_worker=debug,warn`
    #[arg(long, value_name = "FILTER", default_value = "warn")]
    pub(crate) log: String,

    /// Print one JSON object with the address instead of text
    #[arg(long)]
    pub(crate) json: bool,
}
