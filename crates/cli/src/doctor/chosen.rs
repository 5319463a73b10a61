//! What this machine computes with, and why: instructions, threads, images made together.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use excite_diffusion::{Instructions, Model, Outputs, Run, Threads, ThreadsFrom};
use excite_jobs::api::Check;
use excite_jobs::{Line, Spec};
use excite_worker::batch_size::{BatchSizes, Choice, STEPS_MIN, Work};
use excite_worker::{BatchSize, Config};
use serde_json::{Value, json};

use super::{failed, well};
use crate::fault::Fault;
use crate::models::{self, BUNDLED};

/// Guided steps are what most of the time goes into.
const LINE: &str = r#"{"prompt": "a cat and a frog", "subjects": ["cat", "frog"], "steps": 50,
    "method_params": {"thresholds": {}}}"#;

/// How long measuring may take; on two idle cores it takes two seconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was chosen.
pub(super) struct Chosen {
    instructions: Instructions,
    threads: Threads,
    /// `None` if it was not to be measured; no choice if that takes too long here.
    images: Option<Result<Option<Choice>, Fault>>,
}

impl Chosen {
    /// # Errors
    /// If the environment sets what cannot be.
    pub(super) fn find(quick: bool) -> Result<Self, Fault> {
        Ok(Self {
            instructions: Instructions::choose().map_err(excite_diffusion::Error::from)?,
            threads: excite_diffusion::threads()?,
            images: (!quick).then(|| images_together(PATIENCE)),
        })
    }

    pub(super) fn checks(&self) -> Vec<Check> {
        let mut checks = vec![
            well("instructions", why_instructions(self.instructions)),
            well("threads", why_threads(self.threads)),
        ];
        checks.extend(self.images.as_ref().map(|images| match images {
            Ok(Some(choice)) => well("batch size", format!("{}: {}", choice.jobs, choice.reason)),
            Ok(None) => {
                let seconds = PATIENCE.as_secs();
                let why =
                    format!("not measured within {seconds} s, so busy or slow is this machine");
                well("batch size", format!("{why}; a worker measures it while it works"))
            }
            Err(fault) => failed("batch size", fault.message.clone(), fault.remedy.clone()),
        }));
        checks
    }

    pub(super) fn json(&self) -> Value {
        let images = self.images.as_ref().and_then(|images| images.as_ref().ok()?.as_ref());
        let from = match self.threads.from {
            ThreadsFrom::Variable => "variable",
            ThreadsFrom::Cores => "cores",
            ThreadsFrom::Limit { .. } => "limit",
        };
        json!({
            "kind": excite_diffusion::kind(),
            "instructions": self.instructions.to_string(),
            "threads": {"count": self.threads.count, "from": from},
            "batch_size": images.map(|c| json!({"images": c.jobs, "reason": c.reason})),
        })
    }
}

fn why_instructions(used: Instructions) -> String {
    let best = Instructions::available().next().unwrap_or(used);
    match used == best {
        true => format!("{used}, the best of this machine"),
        false => format!("{used}, set by EXCITE_INSTRUCTIONS; this machine has {best}"),
    }
}

fn why_threads(threads: Threads) -> String {
    let count = threads.count;
    match threads.from {
        ThreadsFrom::Variable => {
            format!("{count}, set by {}", excite_diffusion::THREADS_VARIABLE)
        }
        ThreadsFrom::Cores => format!("{count}, one a core"),
        ThreadsFrom::Limit { of } => {
            format!("{count}, as many as this process may use of {of} cores")
        }
    }
}

/// As many as a worker would make together of the bundled model, once it has measured; `None` if
/// that takes longer than `patience`.
fn images_together(patience: Duration) -> Result<Option<Choice>, Fault> {
    let model = Model::load(&models::find(BUNDLED)?)?;
    let line = Line::parse(LINE)?.resolve(&model.facts(), model.tokenizer())?;
    let spec = line.first;
    let sizes = BatchSizes::new(BatchSize::Auto, Config::default().slots.into());
    let until = Instant::now() + patience;
    let mut measured = BTreeSet::new();
    loop {
        let images = sizes.jobs(&spec);
        if !measured.insert(images) {
            let reason = sizes.shown().into_iter().map(|chosen| chosen.reason).next();
            return Ok(Some(Choice { jobs: images, reason: reason.unwrap_or_default() }));
        }
        // If there is memory for fewer, the next turn has fewer.
        if sizes.begin(&model, &spec, images).is_ok() {
            if !steps(&model, &spec, images, &sizes, until)? {
                return Ok(None);
            }
            sizes.end(&spec, images);
        }
    }
}

/// Measures a size; whether it was done in time.
fn steps(
    model: &Model,
    spec: &Spec,
    images: usize,
    sizes: &BatchSizes,
    until: Instant,
) -> Result<bool, Fault> {
    let specs: Vec<Spec> = (0..).take(images).map(|seed| Spec { seed, ..spec.clone() }).collect();
    let mut run = Run::start(model, &specs, Outputs { latents: false, maps: true })?;
    // The first one waits for memory, and for threads to start.
    run.step(&|| false)?;
    for _ in 0..STEPS_MIN {
        let begun = Instant::now();
        if begun > until {
            return Ok(false);
        }
        let report = run.step(&|| false)?;
        sizes.step(spec, images, Work::of(&specs, &report), begun.elapsed());
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_say_where_they_come_from() {
        for (from, want) in [
            (ThreadsFrom::Variable, "2, set by RAYON_NUM_THREADS"),
            (ThreadsFrom::Cores, "2, one a core"),
            (ThreadsFrom::Limit { of: 16 }, "2, as many as this process may use of 16 cores"),
        ] {
            assert_eq!(why_threads(Threads { count: 2, from }), want);
        }
    }

    #[test]
    fn images_together_are_measured_or_given_up() {
        let choice = images_together(Duration::from_secs(600)).unwrap().unwrap();
        assert!((1..=4).contains(&choice.jobs), "{choice:?}");
        for size in [choice.jobs, 4] {
            assert!(choice.reason.contains(&format!(" with {size}")), "{choice:?}");
        }
        assert_eq!(images_together(Duration::ZERO).unwrap(), None);
    }
}
