//! `excite submit`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use excite_jobs::api::BatchOptions;
use excite_jobs::{Lane, MethodName, Seeds, limits};
use serde_json::{Map, Value};

use super::{JsonObject, ServerArgs};
use crate::prompt_set::PromptSet;

const SUBMIT_EXAMPLES: &str = "\
Examples:
  excite submit prompts.txt --seeds 0..64 --watch
  excite submit prompts.jsonl --model stable-diffusion-v1-4 --name evaluation --attention
  excite submit prompts.csv --dry-run
  excite submit --set paper --seeds 0..4 --methods none,attend_and_excite --name paper
  zcat prompts.jsonl.gz | excite submit - --format jsonl

A .txt file has one prompt a line, a .jsonl file one JSON object a line with the fields that
`excite generate --help` lists, a .csv file the same fields in its first row. What a line leaves
out comes from the options. Every line is checked before anything is made.

The id of the batch goes to standard output. A reply that is lost is asked for again under the
same idempotency key, so nothing is submitted twice; standard input cannot be read again. A file
of more than 32 MiB is sent in parts: with the same --idempotency-key, whatever has arrived is not
sent again for a day.

Exit status: 0 accepted (with --watch: all succeeded), 1 failed, 2 wrong usage or lines, 3 some
jobs did not succeed, 130 interrupted.";

/// Give a file of prompts to a cluster
#[derive(Debug, Args)]
#[command(after_help = SUBMIT_EXAMPLES)]
pub(crate) struct SubmitArgs {
    /// A file of prompts (.txt) or jobs (.jsonl, .csv); `-` reads standard input
    #[arg(value_name = "FILE", required_unless_present = "set")]
    pub(crate) file: Option<PathBuf>,

    /// A set of prompts that is part of the program, instead of a file
    #[arg(long, value_name = "SET", value_enum, conflicts_with_all = ["file", "format"])]
    pub(crate) set: Option<PromptSet>,

    /// What the file is [default: by its ending, or for standard input by its first letter]
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub(crate) format: Option<Format>,

    /// The model's name on the server [default: the server's]
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Option<String>,

    /// What to call the batch
    #[arg(long, value_name = "TEXT")]
    pub(crate) name: Option<String>,

    /// Seeds, one image each: `0..64` (0 to 63), `0..=63` or `1,5,9` [default: 0]
    #[arg(long, value_name = "SEEDS", value_parser = seeds)]
    pub(crate) seeds: Option<String>,

    #[command(flatten)]
    pub(crate) image: super::ImageArgs,

    /// Pixels [default: the model's]
    #[arg(long, value_name = "N", conflicts_with = "size")]
    pub(crate) width: Option<u32>,

    /// Pixels [default: the model's]
    #[arg(long, value_name = "N", conflicts_with = "size")]
    pub(crate) height: Option<u32>,

    /// express goes in front of bulk [default: express up to 100 jobs]
    #[arg(long, value_name = "LANE")]
    pub(crate) lane: Option<Lane>,

    /// Share beside other batches, 1 to 100 [default: 1]
    #[arg(long, value_name = "N", value_parser = weight)]
    pub(crate) weight: Option<u32>,

    /// Tries of a job before it is dead, 1 to 20 [default: 8]
    #[arg(long, value_name = "N", value_parser = attempts)]
    pub(crate) max_attempts: Option<u32>,

    /// Also draw where the model looked for each subject
    #[arg(long)]
    pub(crate) attention: bool,

    /// Also store what every step recorded
    #[arg(long)]
    pub(crate) trace: bool,

    /// Also make each image plain, with the same seed
    #[arg(long)]
    pub(crate) compare: bool,

    /// Make each image with each of these methods, e.g. none,composable,structure
    #[arg(long, value_name = "METHODS", value_parser = methods, conflicts_with = "method")]
    pub(crate) methods: Option<String>,

    /// Check every line and estimate, submit nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Follow the batch until it is finished
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) watch: bool,

    /// Submits the same at most once under this key [default: a new one]
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,

    #[command(flatten)]
    pub(crate) server: ServerArgs,

    /// Print one JSON object a line instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a file of prompts or jobs is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One prompt a line.
    Txt,
    /// One JSON object a line.
    Jsonl,
    /// A table whose first row names the fields.
    Csv,
}

impl SubmitArgs {
    /// The query of the request.
    pub(crate) fn options(&self) -> BatchOptions {
        let defaults = self.defaults();
        BatchOptions {
            name: self.name.clone(),
            model: self.model.clone(),
            lane: self.lane,
            weight: self.weight,
            max_attempts: self.max_attempts,
            attention: self.attention,
            trace: self.trace,
            compare: self.compare,
            methods: self.methods.clone(),
            parent: None,
            dry_run: self.dry_run,
            defaults: (!defaults.is_empty()).then(|| Value::Object(defaults).to_string()),
        }
    }

    /// What lines leave out, with the names that lines have.
    fn defaults(&self) -> Map<String, Value> {
        let image = &self.image;
        let (width, height) = match image.size {
            Some((width, height)) => (Some(width), Some(height)),
            None => (self.width, self.height),
        };
        let fields = [
            ("negative_prompt", image.negative_prompt.clone().map(Value::from)),
            ("seeds", self.seeds.clone().map(Value::from)),
            ("noise", image.noise.map(|noise| noise.as_str().into())),
            ("width", width.map(Value::from)),
            ("height", height.map(Value::from)),
            ("steps", image.steps.map(Value::from)),
            ("guidance_scale", image.guidance_scale.map(Value::from)),
            ("scheduler", image.scheduler.map(|scheduler| scheduler.as_str().into())),
            ("method", image.method.map(|method| method.as_str().into())),
            ("method_params", image.method_params.clone().map(|JsonObject(map)| map.into())),
            ("accept", image.accept().and_then(|accept| serde_json::to_value(accept).ok())),
        ];
        let named = |(name, value): (&str, Option<Value>)| Some((name.to_owned(), value?));
        fields.into_iter().filter_map(named).collect()
    }
}

/// Seeds are checked here, and travel as they were written.
pub(super) fn seeds(text: &str) -> Result<String, String> {
    text.parse::<Seeds>().map(|_| text.to_owned()).map_err(|e| e.to_string())
}

/// Checked here, too, and travel as they were written.
pub(super) fn methods(text: &str) -> Result<String, String> {
    MethodName::list(text).map(|_| text.to_owned())
}

pub(super) fn weight(text: &str) -> Result<u32, String> {
    within(text, limits::WEIGHT)
}

fn attempts(text: &str) -> Result<u32, String> {
    within(text, limits::ATTEMPTS)
}

fn within(text: &str, range: std::ops::RangeInclusive<u32>) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("write a number from {} to {}", range.start(), range.end()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use excite_jobs::{Accept, Line, MethodName, Noise, SchedulerName};

    use super::*;
    use crate::args::{Cli, Command};

    fn options(args: &[&str]) -> BatchOptions {
        let all = ["excite", "submit", "x.txt"].iter().chain(args);
        match Cli::try_parse_from(all).unwrap().command {
            Command::Submit(args) => args.options(),
            command => panic!("{command:?}"),
        }
    }

    #[test]
    fn options_become_a_line_of_defaults() {
        assert_eq!(options(&[]), BatchOptions::default());
        #[rustfmt::skip]
        let all = options(&[
            "--seeds", "0..64", "--steps", "20", "--size", "128x192", "--method", "none",
            "--guidance-scale", "5", "--scheduler", "dpmpp_2m", "--negative-prompt", "blurred",
            "--noise", "philox", "--method-params", "{\"gain\": 2}", "--min-score", "0.7",
            "--max-seeds", "8",
        ]);
        let line = Line::parse(&all.defaults.unwrap()).unwrap();
        let want = Line {
            seeds: Some("0..64".into()),
            steps: Some(20),
            width: Some(128),
            height: Some(192),
            method: Some(MethodName::None),
            guidance_scale: Some(5.),
            scheduler: Some(SchedulerName::Dpmpp2m),
            negative_prompt: Some("blurred".into()),
            noise: Some(Noise::Philox),
            method_params: line.method_params.clone(),
            accept: Some(Accept { min_score: 0.7, max_seeds: 8 }),
            ..Line::default()
        };
        assert_eq!(line, want);
        assert!(options(&["--width", "64"]).defaults.unwrap().contains("\"width\":64"));
    }

    #[test]
    fn numbers_outside_their_limits_are_refused() {
        assert_eq!(weight("100"), Ok(100));
        for bad in ["0", "101", "-1", "x", ""] {
            assert!(weight(bad).unwrap_err().contains("1 to 100"), "{bad}");
        }
        assert!(attempts("21").is_err());
        assert!(seeds("4..4").unwrap_err().contains("empty"));
    }
}
