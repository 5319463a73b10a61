//! `excite eval`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use excite_worker::BatchSize;

use super::{ComputeArgs, ServerArgs};
use crate::models::BUNDLED;

const EVAL_EXAMPLES: &str = "\
Examples:
  excite eval paper --seeds 0..4 --out evaluation
  excite eval paper --batch 01a2255c --out evaluation
  excite eval report scores.ndjson
  excite eval images --clip clip-vit-base-patch16 --blip blip-image-captioning-base

A folder of images is one that `excite generate` or `excite batch fetch --sidecars` wrote, or in the
paper's layout: a folder a prompt, named as the prompt, or such folders in a folder a method.

Similarity of image and prompt (80 templates) and the lesser one of its two halves; with a BLIP, of its
caption and the prompt. The bundled judge knows the bundled model's world alone, and also says which
subjects are there; any CLIP compares. Models are folders as transformers writes them. An evaluation
that was interrupted goes on where it stopped.

In the folder --out: report.json, report.csv, scores.ndjson (a line an image), charts and, with --sheets,
a contact sheet a prompt.

Exit status: 0 done, 1 failed, 2 wrong usage, 3 images are missing or broken (listed), 130 interrupted.";

/// Measure whether images show what their prompts say
#[derive(Debug, Args)]
#[command(after_help = EVAL_EXAMPLES, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct EvalArgs {
    #[command(subcommand)]
    pub(crate) command: Option<EvalCommand>,

    /// A folder of images
    #[arg(value_name = "PATH", required = true)]
    pub(crate) path: Option<PathBuf>,

    /// What made the images, if neither they nor their folder say so
    #[arg(long, value_name = "NAME")]
    pub(crate) method: Option<String>,

    #[command(flatten)]
    pub(crate) metrics: MetricArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EvalCommand {
    Paper(Box<PaperArgs>),
    Ablate(Box<AblateArgs>),
    Report(RowsArgs),
}

/// With what is measured, and where it goes
#[derive(Debug, Clone, Args)]
pub(crate) struct MetricArgs {
    /// Folder of a CLIP [default: the judge of the bundled model]
    #[arg(long, value_name = "DIR")]
    pub(crate) clip: Option<PathBuf>,

    /// Folder of a BLIP, which describes the images; it takes a while
    #[arg(long, value_name = "DIR")]
    pub(crate) blip: Option<PathBuf>,

    /// Also draw a contact sheet for each prompt
    #[arg(long)]
    pub(crate) sheets: bool,

    #[command(flatten)]
    pub(crate) report: ReportArgs,
}

/// What is reported, and where it goes
#[derive(Debug, Clone, Args)]
pub(crate) struct ReportArgs {
    /// The method that the others are compared with
    #[arg(long, value_name = "METHOD", default_value = "none")]
    pub(crate) baseline: String,

    /// Where report, scores and charts go
    #[arg(long, value_name = "DIR", default_value = "evaluation")]
    pub(crate) out: PathBuf,

    /// Print the report as JSON instead of tables
    #[arg(long)]
    pub(crate) json: bool,
}

const ROWS_EXAMPLES: &str = "\
Examples:
  excite eval report north/scores.ndjson south/scores.ndjson --out evaluation
  zcat docs/faithfulness/scores.ndjson.gz | excite eval report -

Of rows of the same method, prompt and seed the last one counts. No image is looked at, so contact sheets
are not drawn.";

/// Report on images that were measured before, here or elsewhere
#[derive(Debug, Args)]
#[command(after_help = ROWS_EXAMPLES)]
pub(crate) struct RowsArgs {
    /// Files of scores (scores.ndjson); - for standard input
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,

    #[command(flatten)]
    pub(crate) report: ReportArgs,
}

const PAPER_EXAMPLES: &str = "\
Examples:
  excite eval paper --seeds 0..4
  excite eval paper --model sd14 --clip clip-vit-base-patch16 --blip blip-image-captioning-base
  excite submit --set paper --seeds 0..4 --methods none,attend_and_excite
  excite eval paper --batch 01a2255c --server https://excite.example

Without --batch the images are made here, into OUT/images; what is there already is kept. With it they
are fetched from a cluster, whatever batches they are of: --batch can be given several times.";

/// The paper's comparison: 276 prompts, several methods, the same seeds
#[derive(Debug, Args)]
#[command(after_help = PAPER_EXAMPLES)]
pub(crate) struct PaperArgs {
    /// Methods to compare
    #[arg(long, value_name = "METHODS", default_value = "none,composable,structure,attend_and_excite", value_parser = super::submit::methods)]
    pub(crate) methods: String,

    /// Seeds, one image each
    #[arg(long, value_name = "SEEDS", default_value = "0..4", value_parser = super::submit::seeds)]
    pub(crate) seeds: String,

    /// A model: a name that `excite model list` shows, a folder, or a .safetensors file
    #[arg(long, value_name = "MODEL", default_value = BUNDLED)]
    pub(crate) model: String,

    /// Denoising steps [default: 50]
    #[arg(long, value_name = "N")]
    pub(crate) steps: Option<u32>,

    /// Images that are made together; `auto` finds out how many are fast and fit into memory
    #[arg(long, value_name = "N", default_value = "4", value_parser = super::batch_size)]
    pub(crate) batch_size: BatchSize,

    /// Take the images of this batch instead of making them
    #[arg(long, value_name = "ID", conflicts_with_all = ["methods", "seeds", "model", "steps"])]
    pub(crate) batch: Vec<String>,

    #[command(flatten)]
    pub(crate) server: ServerArgs,

    #[command(flatten)]
    pub(crate) compute: ComputeArgs,

    #[command(flatten)]
    pub(crate) metrics: MetricArgs,
}

const ABLATE_EXAMPLES: &str = "\
Examples:
  excite eval ablate
  excite eval ablate --prompts 276 --seeds 0..4 --out ablation

Variants: official, no smoothing, no refinement, updates up to step 5, 10 and 50, half and twice the step
size. Images go to OUT/images/VARIANT; what is there already is kept.";

/// What each part of Attend-and-Excite does: it left out or changed, on the same prompts and seeds
#[derive(Debug, Args)]
#[command(after_help = ABLATE_EXAMPLES)]
pub(crate) struct AblateArgs {
    /// How many of the paper's prompts, spread evenly over its sets
    #[arg(long, value_name = "N", default_value_t = 48, value_parser = clap::value_parser!(u16).range(1..=276))]
    pub(crate) prompts: u16,

    /// Seeds, one image each
    #[arg(long, value_name = "SEEDS", default_value = "0..2", value_parser = super::submit::seeds)]
    pub(crate) seeds: String,

    /// A model: a name that `excite model list` shows, a folder, or a .safetensors file
    #[arg(long, value_name = "MODEL", default_value = BUNDLED)]
    pub(crate) model: String,

    /// Denoising steps [default: 50]
    #[arg(long, value_name = "N")]
    pub(crate) steps: Option<u32>,

    #[command(flatten)]
    pub(crate) compute: ComputeArgs,

    #[command(flatten)]
    pub(crate) metrics: MetricArgs,
}

impl EvalArgs {
    pub(crate) fn json(&self) -> bool {
        match &self.command {
            Some(EvalCommand::Paper(args)) => args.metrics.report.json,
            Some(EvalCommand::Ablate(args)) => args.metrics.report.json,
            Some(EvalCommand::Report(args)) => args.report.json,
            None => self.metrics.report.json,
        }
    }
}
