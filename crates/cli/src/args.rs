//! The command line.

mod batch;
mod compute;
mod dead;
mod eval;
mod serve;
mod server;
mod submit;
mod token;

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use excite_jobs::{Accept, Line, MethodName, Noise, SchedulerName, SubjectRequest};
use excite_worker::BatchSize;
use serde_json::{Map, Value};

use crate::models::BUNDLED;
use crate::parity::golden;
use crate::prompt_set::PromptSet;
pub(crate) use batch::{BatchCommand, BatchListArgs, BatchOneArgs, DeleteArgs, FetchArgs, Layout};
pub(crate) use compute::ComputeArgs;
pub(crate) use dead::{DeadCommand, DeadListArgs, DeadShowArgs, ReplayArgs};
pub(crate) use eval::{
    AblateArgs, EvalArgs, EvalCommand, MetricArgs, PaperArgs, ReportArgs, RowsArgs,
};
pub(crate) use serve::ServeArgs;
pub(crate) use server::{DoctorArgs, PushArgs, ServerArgs};
pub(crate) use submit::{Format, SubmitArgs};
pub(crate) use token::TokenCommand;

/// More images at a time are no faster anywhere.
const BATCH_SIZE_MAX: u16 = 64;

/// Images that show what their prompts say.
///
/// Text-to-image models forget subjects ("a cat and a frog" gives two cats). Excite mends that
/// while the image is made (Attend-and-Excite, SIGGRAPH 2023).
#[derive(Debug, Parser)]
#[command(name = "excite", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Generate(Box<GenerateArgs>),
    Explain(ExplainArgs),
    #[command(subcommand)]
    Model(ModelCommand),
    Parity(ParityArgs),
    Eval(Box<EvalArgs>),
    Serve(ServeArgs),
    Submit(Box<SubmitArgs>),
    #[command(subcommand)]
    Batch(BatchCommand),
    #[command(subcommand)]
    Dead(DeadCommand),
    #[command(subcommand)]
    Token(TokenCommand),
    Doctor(DoctorArgs),
    Completions(CompletionsArgs),
}

impl Command {
    /// Whether it may make images here, with what the environment says of threads and instructions.
    pub(crate) fn computes(&self) -> bool {
        match self {
            // With a number it starts itself again.
            Self::Generate(args) => args.threads.is_none(),
            Self::Explain(_) | Self::Parity(_) | Self::Serve(_) | Self::Doctor(_) => true,
            Self::Eval(_) => true,
            Self::Model(command) => matches!(command, ModelCommand::Check(_)),
            Self::Submit(_) | Self::Batch(_) | Self::Dead(_) | Self::Token(_) => false,
            Self::Completions(_) => false,
        }
    }
}

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  excite completions bash > ~/.local/share/bash-completion/completions/excite
  excite completions zsh > ~/.zfunc/_excite
  excite completions fish > ~/.config/fish/completions/excite.fish";

/// Print what makes a shell complete commands and options
#[derive(Debug, Args)]
#[command(after_help = COMPLETIONS_EXAMPLES)]
pub(crate) struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

impl Cli {
    pub(crate) fn json(&self) -> bool {
        match &self.command {
            Command::Generate(args) => args.json,
            Command::Explain(args) => args.json,
            Command::Model(ModelCommand::List(args)) => args.json,
            Command::Model(ModelCommand::Show(args) | ModelCommand::Check(args)) => args.json,
            Command::Model(ModelCommand::Pull(args)) => args.json,
            Command::Model(ModelCommand::Push(args)) => args.json,
            Command::Parity(args) => args.json,
            Command::Eval(args) => args.json(),
            Command::Serve(args) => args.json,
            Command::Submit(args) => args.json,
            Command::Batch(command) => command.json(),
            Command::Dead(command) => command.json(),
            Command::Token(TokenCommand::New(args)) => args.json,
            Command::Doctor(args) => args.json,
            Command::Completions(_) => false,
        }
    }
}

const GENERATE_EXAMPLES: &str = "\
Examples:
  excite generate \"a cat and a frog\"
  excite generate \"a cat and a frog\" --seeds 0..8 --compare
  excite generate \"a cat and a red car\" --compare none,composable,structure,attend_and_excite
  excite generate \"a photo of a bear with a balloon\" --subjects bear,balloon --attention
  excite generate \"a cat and a frog\" --min-score 0.7 --max-seeds 8
  excite generate --file prompts.jsonl --out images --batch-size 8 --json
  excite generate --set paper --seeds 0..4 --out paper
  excite generate \"a cat and a frog\" --device cuda:1 --precision bf16

A file of jobs (.jsonl) has one JSON object a line, with the fields prompt, negative_prompt,
subjects, seed or seeds, noise, width, height, steps, guidance_scale, scheduler, method,
method_params, accept, custom_id and labels. What a line leaves out comes from the options. A table
(.csv) has the same fields in its first row; there `;` stands between subjects, and `labels.NAME` is a
column for each label.

Each image is written as NAME.png with its settings inside, and NAME.json with its losses. A rerun
makes only what is missing.

Exit status: 0 done, 1 failed, 2 wrong usage or input, 3 some images failed, 130 interrupted.";

/// What an image is, beside its prompt and seed
#[derive(Debug, Default, Args)]
pub(crate) struct ImageArgs {
    /// Denoising steps [default: 50]
    #[arg(long, value_name = "N")]
    pub(crate) steps: Option<u32>,

    /// Weight of classifier-free guidance; 1 is off [default: 7.5]
    #[arg(long, value_name = "X")]
    pub(crate) guidance_scale: Option<f64>,

    /// What is done for the subjects: attend_and_excite, composable, structure, syngen or none
    /// [default: attend_and_excite]
    #[arg(long, value_name = "METHOD")]
    pub(crate) method: Option<MethodName>,

    /// Options of the method as JSON, e.g. '{"preset": "paper"}'
    #[arg(long, value_name = "JSON", value_parser = json_object)]
    pub(crate) method_params: Option<JsonObject>,

    /// pndm, ddim, euler, euler_karras, euler_ancestral, dpmpp_2m or dpmpp_2m_karras
    /// [default: the model's]
    #[arg(long, value_name = "NAME")]
    pub(crate) scheduler: Option<SchedulerName>,

    /// Which generator draws the noise: torch_cpu, or philox as on a GPU [default: torch_cpu]
    #[arg(long, value_name = "NAME")]
    pub(crate) noise: Option<Noise>,

    /// Pixels, as 128 or 128x192 (width x height) [default: the model's]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) size: Option<(u32, u32)>,

    /// What to steer away from
    #[arg(long, value_name = "TEXT")]
    pub(crate) negative_prompt: Option<String>,

    /// Try further seeds while the weakest subject's score is below this, 0 to 1; the best is kept
    #[arg(long, value_name = "X")]
    pub(crate) min_score: Option<f64>,

    /// Seeds to try at most for an image, 1 to 16 [default: 4]
    #[arg(long, value_name = "N", requires = "min_score")]
    pub(crate) max_seeds: Option<u32>,
}

impl ImageArgs {
    pub(crate) fn accept(&self) -> Option<Accept> {
        let max_seeds = self.max_seeds.unwrap_or(Accept::MAX_SEEDS);
        self.min_score.map(|min_score| Accept { min_score, max_seeds })
    }
}

/// Make images from prompts
#[derive(Debug, Args)]
#[command(after_help = GENERATE_EXAMPLES)]
pub(crate) struct GenerateArgs {
    /// What the image shows; several prompts make several images
    #[arg(value_name = "PROMPT")]
    pub(crate) prompts: Vec<String>,

    /// A file of prompts, one a line, or of jobs (.jsonl, .csv); `-` reads standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,

    /// A set of prompts that is part of the program
    #[arg(long, value_name = "SET", value_enum, conflicts_with = "file")]
    pub(crate) set: Option<PromptSet>,

    /// A model: a name that `excite model list` shows, a folder in diffusers layout, or a
    /// .safetensors file in the original layout
    #[arg(long, value_name = "MODEL", default_value = BUNDLED)]
    pub(crate) model: String,

    /// Seeds, one image each: `0..4` (0 to 3), `0..=3` or `1,5,9` [default: 0]
    #[arg(long, value_name = "SEEDS")]
    pub(crate) seeds: Option<String>,

    #[command(flatten)]
    pub(crate) image: ImageArgs,

    /// Words that must appear: `cat,frog`, `cat#2` for the second cat, `#5` for the token at
    /// position 5 [default: found in the prompt]
    #[arg(long, value_name = "WORDS", value_delimiter = ',')]
    pub(crate) subjects: Option<Vec<String>>,

    /// Where the images go
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub(crate) out: PathBuf,

    /// Images that are made together; `auto` finds out how many are fast and fit into memory
    #[arg(long, value_name = "N", default_value = "4", value_parser = batch_size)]
    pub(crate) batch_size: BatchSize,

    /// Threads to compute with [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) threads: Option<u32>,

    #[command(flatten)]
    pub(crate) compute: ComputeArgs,

    /// Draw where the model looked for each subject: over the image, and over the steps
    #[arg(long)]
    pub(crate) attention: bool,

    /// Make each image with each of these methods, and a contact sheet for each prompt
    /// [default: none and the method]
    #[arg(long, value_name = "METHODS", num_args = 0..=1, default_missing_value = "")]
    pub(crate) compare: Option<String>,

    /// Make each image with each of these methods
    #[arg(long, value_name = "METHODS", value_parser = submit::methods, conflicts_with_all = ["compare", "method"])]
    pub(crate) methods: Option<String>,

    /// Write latents, losses and maps of every step as safetensors (one image only)
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,

    /// Make images anew that are already there
    #[arg(long)]
    pub(crate) overwrite: bool,

    /// Print one JSON object a line instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

impl GenerateArgs {
    /// The methods to compare; empty: plain and the line's own.
    ///
    /// # Errors
    /// If one is no method.
    pub(crate) fn compared(&mut self) -> Result<Option<Vec<MethodName>>, String> {
        if let Some(text) = &self.methods {
            return MethodName::list(text).map(Some);
        }
        let Some(text) = &mut self.compare else { return Ok(None) };
        // No list of methods has spaces in words: what follows `--compare` is the prompt then.
        if text.trim().contains(' ') && MethodName::list(text).is_err() {
            self.prompts.insert(0, std::mem::take(text));
        }
        if text.is_empty() { Ok(Some(Vec::new())) } else { MethodName::list(text).map(Some) }
    }

    /// The options as a line that fills in what lines leave out.
    pub(crate) fn defaults(&self) -> Line {
        let image = &self.image;
        Line {
            negative_prompt: image.negative_prompt.clone(),
            subjects: self
                .subjects
                .clone()
                .map(|words| words.into_iter().map(SubjectRequest::Word).collect()),
            seeds: self.seeds.clone(),
            width: image.size.map(|(width, _)| width),
            height: image.size.map(|(_, height)| height),
            steps: image.steps,
            guidance_scale: image.guidance_scale,
            scheduler: image.scheduler,
            noise: image.noise,
            method: image.method,
            method_params: image.method_params.clone().map(|JsonObject(map)| map),
            accept: image.accept(),
            ..Line::default()
        }
    }
}

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  excite explain out/a-cat-and-a-frog-0.png
  excite explain out/a-cat-and-a-frog-0.png --chart losses.png
  excite explain trace.safetensors --json

If the JSON beside the image is missing, the image is made again from the settings inside it.";

/// Print which subject was weakest at which step of an image
#[derive(Debug, Args)]
#[command(after_help = EXPLAIN_EXAMPLES)]
pub(crate) struct ExplainArgs {
    /// A PNG that excite wrote, or a trace (.safetensors)
    #[arg(value_name = "IMAGE")]
    pub(crate) image: PathBuf,

    /// The model, if the image has to be made again
    #[arg(long, value_name = "MODEL", default_value = BUNDLED)]
    pub(crate) model: String,

    #[command(flatten)]
    pub(crate) compute: ComputeArgs,

    /// Draw the scores over the steps as a PNG
    #[arg(long, value_name = "FILE")]
    pub(crate) chart: Option<PathBuf>,

    /// Print one JSON object instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

/// List, look at, check, fetch and give models
#[derive(Debug, Subcommand)]
pub(crate) enum ModelCommand {
    List(ModelListArgs),
    /// Print what a model is: family, sizes, scheduler, memory
    Show(ModelArgs),
    /// Check every file and every tensor of a model
    Check(ModelArgs),
    Pull(PullArgs),
    Push(PushArgs),
}

/// List the models that `--model` knows by name
#[derive(Debug, Args)]
pub(crate) struct ModelListArgs {
    /// Print one JSON object a line instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

const MODEL_EXAMPLES: &str = "\
Examples:
  excite model show emoji
  excite model show stable-diffusion-v1-4 --json
  excite model check ~/models/v1-5-pruned-emaonly.safetensors

`show` reads configurations and file headers. `check` compares every file with what was fetched and
loads every tensor, as a run would: it needs the model's memory.";

/// A model to look at.
#[derive(Debug, Args)]
#[command(after_help = MODEL_EXAMPLES)]
pub(crate) struct ModelArgs {
    /// A name that `excite model list` shows, a folder, or a .safetensors file
    #[arg(value_name = "MODEL", default_value = BUNDLED)]
    pub(crate) model: String,

    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

const PULL_EXAMPLES: &str = "\
Examples:
  excite model pull CompVis/stable-diffusion-v1-4
  excite model pull stabilityai/stable-diffusion-xl-base-1.0 --precision f16 --name sdxl
  excite model pull OWNER/NAME --file model.safetensors

Downloads go on where they stopped, and every file is checked against its SHA-256. HF_TOKEN is the
token for repositories that ask for one, HF_ENDPOINT another server than huggingface.co. Models are
kept in EXCITE_MODELS, by default ~/.local/share/excite/models.";

/// Fetch a model in Hugging Face layout
#[derive(Debug, Args)]
#[command(after_help = PULL_EXAMPLES)]
pub(crate) struct PullArgs {
    /// Repository, as `owner/name`
    #[arg(value_name = "REPO")]
    pub(crate) repository: String,

    /// Branch, tag or commit
    #[arg(long, value_name = "REVISION", default_value = "main")]
    pub(crate) revision: String,

    /// What `--model` will call it [default: the repository's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// Weights to prefer where there are both: f32, or f16 for half the download
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "f32")]
    pub(crate) precision: Precision,

    /// Only this file, such as a single-file checkpoint; can be given several times
    #[arg(long = "file", value_name = "FILE")]
    pub(crate) files: Vec<String>,

    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// Number format of the weights to fetch.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Precision {
    F32,
    F16,
}

const PARITY_EXAMPLES: &str = "\
Examples:
  excite parity                          # the bundled model replays seven runs of diffusers
  excite parity --case guided_pndm       # one of them
  excite parity stable-diffusion-v1-4    # the 25 published losses beside ours
  excite parity --device cuda --precision f16

Exit status: 0 if the numbers agree or there are none to compare with, 1 if they differ.";

/// Prove that a checkpoint gives the numbers of the references
#[derive(Debug, Args)]
#[command(after_help = PARITY_EXAMPLES)]
pub(crate) struct ParityArgs {
    /// A name that `excite model list` shows, a folder, or a .safetensors file
    #[arg(value_name = "MODEL", default_value = BUNDLED)]
    pub(crate) model: String,

    /// Only this run of the bundled model; can be given several times
    #[arg(long = "case", value_name = "NAME", value_parser = PossibleValuesParser::new(golden::NAMES))]
    pub(crate) cases: Vec<String>,

    #[command(flatten)]
    pub(crate) compute: ComputeArgs,

    /// Print one JSON object a line instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

/// A JSON object given as an option.
#[derive(Debug, Clone)]
pub(crate) struct JsonObject(pub(crate) Map<String, Value>);

fn json_object(text: &str) -> Result<JsonObject, String> {
    serde_json::from_str(text).map(JsonObject).map_err(|e| format!("no JSON object: {e}"))
}

fn batch_size(text: &str) -> Result<BatchSize, String> {
    match text.parse() {
        Ok(BatchSize::Jobs(jobs)) if jobs > BATCH_SIZE_MAX => Err(()),
        size => size.map_err(|_| ()),
    }
    .map_err(|()| format!("write `auto`, or 1..={BATCH_SIZE_MAX}"))
}

fn size(text: &str) -> Result<(u32, u32), String> {
    let number = |side: &str| side.trim().parse::<u32>();
    let (width, height) = text.split_once(['x', 'X']).unwrap_or((text, text));
    match (number(width), number(height)) {
        (Ok(width), Ok(height)) => Ok((width, height)),
        _ => Err("write 128 or 128x192 (width x height, pixels)".into()),
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

    #[test]
    fn images_made_together_are_a_number_or_auto() {
        assert_eq!(batch_size("auto"), Ok(BatchSize::Auto));
        assert_eq!(batch_size("64"), Ok(BatchSize::Jobs(64)));
        for bad in ["0", "65", "-1", "", "many"] {
            let said = batch_size(bad).unwrap_err();
            assert_eq!(said, "write `auto`, or 1..=64", "{bad}");
        }
    }

    #[test]
    fn sizes_are_width_by_height() {
        assert_eq!(size("128"), Ok((128, 128)));
        assert_eq!(size("128x192"), Ok((128, 192)));
        for bad in ["", "x", "128x", "-1", "1x2x3", "128 pixels"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
