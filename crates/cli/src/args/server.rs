//! Which dispatcher, and the commands that are of no batch: `doctor`, `model push`.

use clap::Args;

/// Where the dispatcher is.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServerArgs {
    /// Address of the dispatcher [default: http://127.0.0.1:8080]
    #[arg(long, value_name = "URL", env = "EXCITE_SERVER", hide_env_values = true)]
    pub(crate) server: Option<String>,

    /// Token that the dispatcher asks for
    #[arg(long, value_name = "TOKEN", env = "EXCITE_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
}

const DOCTOR_EXAMPLES: &str = "\
Examples:
  excite doctor
  excite doctor --quick
  excite doctor --server https://excite.example --json

Looks at this machine and what it computes with, and at what the server reaches: broker, store, progress, workers. Without
--server and EXCITE_SERVER a server on this machine is looked at if there is one.

Exit status: 0 if all is well, 1 if something is not.";

/// Check this machine and the server, and say what to do
#[derive(Debug, Args)]
#[command(after_help = DOCTOR_EXAMPLES)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,

    /// Measure nothing: leave out how many images are best made together
    #[arg(long)]
    pub(crate) quick: bool,

    /// Print one JSON object instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

const PUSH_EXAMPLES: &str = "\
Examples:
  excite model push emoji
  excite model push stable-diffusion-v1-4 --server https://excite.example
  excite model push ~/models/v1-5-pruned-emaonly.safetensors --name sd15 --class gpu

Exactly the files that a run loads are sent. Files that the server has are left out, so a push that
was cut off goes on where it stopped.";

/// Give a model to the server, for the workers of a cluster
#[derive(Debug, Args)]
#[command(after_help = PUSH_EXAMPLES)]
pub(crate) struct PushArgs {
    /// A name that `excite model list` shows, a folder, or a .safetensors file
    #[arg(value_name = "MODEL")]
    pub(crate) model: String,

    /// What the server will call it [default: the model's own name]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// Which workers run it
    #[arg(long, value_name = "CLASS", default_value = "default")]
    pub(crate) class: String,

    #[command(flatten)]
    pub(crate) server: ServerArgs,

    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}
