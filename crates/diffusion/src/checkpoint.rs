//! One image between two steps, as bytes: enough to go on elsewhere with the same result.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use excite_jobs::{Spec, Tries, Try};

use crate::error::{Error, Result};
use crate::run::Outputs;
use crate::search::Wanted;
use crate::tensors::{self, Tensors};
use crate::trace::{Record, tensor};

/// In front of the names of what the record holds.
const RECORD: &str = "record.";

/// The state of one image after a step. As a file: tensors `latent`, `eps.*` (the scheduler's),
/// `guidance.pieces`, `record.*`; texts `fingerprint`, `kind` and `next_step`, and behind the first
/// of several tries `tries` (JSON) and `earlier` (their steps).
#[derive(Debug, Clone)]
pub struct Checkpoint {
    fingerprint: String,
    kind: String,
    next_step: usize,
    /// The seeds whose scores are known.
    tries: Vec<Try>,
    /// Steps of the tries before this one.
    earlier: usize,
    tensors: Tensors,
}

impl Checkpoint {
    pub(crate) fn new(
        spec: &Spec,
        kind: &str,
        next_step: usize,
        latents: Tensor,
        scheduler: Vec<(String, Tensor)>,
        pieces: Vec<i64>,
        record: &Record,
    ) -> Result<Self> {
        let count = pieces.len();
        let mut tensors = Tensors::from_iter(scheduler);
        tensors.insert("latent".into(), latents);
        tensors.insert("guidance.pieces".into(), Tensor::from_vec(pieces, count, &Device::Cpu)?);
        let record = record.tensors()?;
        tensors.extend(record.into_iter().map(|(name, t)| (format!("{RECORD}{name}"), t)));
        let (fingerprint, kind) = (fingerprint(spec, kind)?, kind.to_owned());
        Ok(Self { fingerprint, kind, next_step, tries: Vec::new(), earlier: 0, tensors })
    }

    /// The same, behind tries that took `earlier` steps before this one.
    pub(crate) fn after(self, tries: Vec<Try>, earlier: usize) -> Self {
        Self { tries, earlier, ..self }
    }

    /// The checkpoint as a safetensors file.
    ///
    /// # Errors
    /// If the tensor library fails.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut texts = BTreeMap::from([
            ("fingerprint".to_owned(), self.fingerprint.clone()),
            ("kind".to_owned(), self.kind.clone()),
            ("next_step".to_owned(), self.next_step.to_string()),
        ]);
        if !self.tries.is_empty() {
            let tries = serde_json::to_string(&self.tries);
            let tries = tries.map_err(|e| Error::Tensors { message: e.to_string() })?;
            texts.insert("tries".into(), tries);
            texts.insert("earlier".into(), self.earlier.to_string());
        }
        tensors::to_bytes(&self.tensors, &texts)
    }

    /// Reads a checkpoint.
    ///
    /// # Errors
    /// If the bytes are no checkpoint.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let wrong = |message: String| Error::Checkpoint(message);
        let (tensors, mut texts) = tensors::from_bytes(bytes).map_err(|e| wrong(e.to_string()))?;
        let tries = match texts.remove("tries") {
            Some(text) => serde_json::from_str(&text)
                .map_err(|e| wrong(format!("`tries` cannot be read: {e}")))?,
            None => Vec::new(),
        };
        let earlier = texts.remove("earlier").unwrap_or_else(|| "0".to_owned());
        let mut text = |name: &str| {
            texts.remove(name).ok_or_else(|| wrong(format!("there is no text `{name}`")))
        };
        let (fingerprint, kind, next_step) =
            (text("fingerprint")?, text("kind")?, text("next_step")?);
        let number = |name: &str, text: &str| {
            let not_one = |_| wrong(format!("`{name}` is `{text}`, not a number of steps"));
            text.parse::<usize>().map_err(not_one)
        };
        let (next_step, earlier) = (number("next_step", &next_step)?, number("earlier", &earlier)?);
        let latents = tensors.get("latent").map(Tensor::dtype);
        if latents != Some(DType::F32) {
            return Err(wrong("there is no tensor `latent` of f32".into()));
        }
        Ok(Self { fingerprint, kind, next_step, tries, earlier, tensors })
    }

    /// The step to go on with, from 0.
    pub fn next_step(&self) -> usize {
        self.next_step
    }

    /// Steps of the tries before this one.
    pub(crate) fn earlier(&self) -> usize {
        self.earlier
    }

    /// Steps made for the image in all its tries: the later of two states has more.
    pub fn steps_made(&self) -> usize {
        self.earlier.saturating_add(self.next_step)
    }

    /// The kind of machine it was made on.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// `[4, h, w]`
    pub(crate) fn latents(&self) -> Result<Tensor> {
        tensor(&self.tensors, "latent").cloned()
    }

    /// A tensor of the scheduler.
    pub(crate) fn scheduler(&self, name: &str) -> Option<Tensor> {
        self.tensors.get(name).cloned()
    }

    /// Which piece counts, per subject; -1 while it is open.
    pub(crate) fn pieces(&self) -> Result<Vec<i64>> {
        Ok(tensor(&self.tensors, "guidance.pieces")?.to_vec1()?)
    }

    /// Refuses what a machine of this kind cannot go on with: the state of another image, or of one
    /// of another model or engine, or what another kind of machine made.
    ///
    /// # Errors
    /// [`Error::Checkpoint`], with the reason.
    pub fn fits(&self, wanted: &Wanted, kind: &str) -> Result<()> {
        self.is_of(&wanted.with_seed_of(&self.tries_of(wanted)?), kind)
    }

    /// The seeds that were tried for an image; refuses those of another.
    pub(crate) fn tries_of(&self, wanted: &Wanted) -> Result<Tries> {
        let tries = Tries::resume(wanted.spec.seed, wanted.accept, &self.tries);
        tries.ok_or_else(|| Error::Checkpoint("other seeds were tried for it".into()))
    }

    fn is_of(&self, spec: &Spec, here: &str) -> Result<()> {
        if self.fingerprint == fingerprint(spec, here)? {
            return Ok(());
        }
        let made = &self.kind;
        Err(Error::Checkpoint(if made == here {
            "it belongs to another image, model or engine".into()
        } else {
            format!("it was made on `{made}`, this is `{here}`")
        }))
    }

    /// As [`Checkpoint::fits`] for the seed that ran; also refuses latents of another shape.
    pub(crate) fn require(&self, spec: &Spec, kind: &str, shape: &[usize]) -> Result<()> {
        self.is_of(spec, kind)?;
        let found = self.latents()?.dims().to_vec();
        if found != shape {
            return Err(Error::Checkpoint(format!("latents {found:?}, expected {shape:?}")));
        }
        Ok(())
    }

    /// Puts back what was recorded before the interruption.
    pub(crate) fn restore_record(&self, record: &mut Record, outputs: Outputs) -> Result<()> {
        let recorded = |(name, tensor): (&String, &Tensor)| {
            name.strip_prefix(RECORD).map(|name| (name.to_owned(), tensor.clone()))
        };
        record.restore(&self.tensors.iter().filter_map(recorded).collect())?;
        let lacks = |wanted: bool, count: usize| wanted && count != self.next_step;
        if record.steps().len() != self.next_step
            || lacks(outputs.latents, record.latents().len())
            || lacks(outputs.maps, record.observed().len())
        {
            let message = "it did not keep the maps or latents that are wanted now";
            return Err(Error::Checkpoint(message.into()));
        }
        Ok(())
    }
}

fn fingerprint(spec: &Spec, kind: &str) -> Result<String> {
    spec.fingerprint(kind).map_err(|e| Error::Checkpoint(e.to_string()))
}
