//! `excite token`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use excite_dispatcher::tokens::Scope;

const NEW_EXAMPLES: &str = "\
Examples:
  excite token new --name ci --file tokens.txt
  excite token new --name screen --scope read --file tokens.txt
  EXCITE_TOKEN=excite_... excite batch list --server https://excite.example

The token is printed once and kept nowhere: the file has its hash, in a line `name:scope:sha256`. Take
the line out to end the token; servers notice within seconds.";

/// Make tokens for `excite serve --tokens` and `excite-dispatcher`
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    New(TokenNewArgs),
}

/// Make a token, print it, and add its hash to a file
#[derive(Debug, Args)]
#[command(after_help = NEW_EXAMPLES)]
pub(crate) struct TokenNewArgs {
    /// Whose it is
    #[arg(long)]
    pub(crate) name: String,

    /// What it may do: read; submit, which includes read; or admin, which includes both
    #[arg(long, default_value = "submit")]
    pub(crate) scope: Scope,

    /// The file of hashes; it is made if it is not there
    #[arg(long, value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// Print one JSON object instead of the token alone
    #[arg(long)]
    pub(crate) json: bool,
}
