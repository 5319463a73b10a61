//! A checkpoint as one safetensors file in the original layout (CompVis' `ldm`, Stability's `sgm`),
//! as communities pass it on.
//!
//! Keys are translated to those of diffusers (`keys`), and the configurations that such a file
//! lacks are made from its family and the shapes of its tensors (`configs`). CLIP's vocabulary is
//! the same for every family. Not here: what a network does with its tensors.

mod configs;
mod family;
mod keys;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::error::Result;
use crate::weights::{Data, Entry, File, Part, Weights};
use family::Family;

/// An opened single file.
pub(crate) struct SingleFile {
    /// Where the tensors of each component are, by diffusers' keys.
    components: BTreeMap<&'static str, BTreeMap<String, Entry>>,
    /// Configurations and vocabulary by their path in a folder.
    texts: BTreeMap<String, Vec<u8>>,
    name: String,
    prediction_known: bool,
}

impl SingleFile {
    /// # Errors
    /// If the file is of no known family, or of a part of a model.
    pub(crate) fn new(file: File) -> Result<Self> {
        let family = Family::of(&file)?;
        let mut components = BTreeMap::<_, BTreeMap<String, Entry>>::new();
        for (key, info) in file.tensors() {
            for place in keys::translate(family, key, &info.shape) {
                let (key, info) = (key.clone(), info.clone());
                let entry = Entry { file: 0, key, part: place.part, info };
                components.entry(place.component).or_default().insert(place.key, entry);
            }
        }
        let shapes = |component: &str, key: &str| {
            let entry = components.get(component)?.get(key)?;
            let mut shape = entry.info.shape.clone();
            if entry.part == Part::Transposed {
                shape.reverse();
            }
            Some(shape)
        };
        let count = |component: &str, prefix: &str| {
            // Numbers behind the prefix, which count from 0.
            let keys = components.get(component).into_iter().flat_map(BTreeMap::keys);
            let numbers = keys.filter_map(|key| key.strip_prefix(prefix)?.split('.').next());
            numbers.filter_map(|n| n.parse::<usize>().ok()).max().map_or(0, |last| last + 1)
        };
        let velocity = family::predicts_velocity(family, &file)?;
        let model = configs::Shapes { shape: &shapes, count: &count };
        let mut texts: BTreeMap<String, Vec<u8>> =
            configs::all(family, &model, velocity.unwrap_or(false), file.name())?
                .into_iter()
                .map(|(path, json): (String, Value)| (path, json.to_string().into_bytes()))
                .collect();
        for folder in family.tokenizers() {
            texts.insert(format!("{folder}/vocab.json"), excite_prompt::CLIP_VOCAB.to_vec());
            texts.insert(format!("{folder}/merges.txt"), excite_prompt::CLIP_MERGES.to_vec());
        }
        let name = file.name().to_owned();
        let prediction_known = velocity.is_some() || family != Family::Sd2;
        Ok(Self { components, texts, name, prediction_known })
    }

    /// Whether the file says what its UNet predicts, or its family does.
    pub(crate) fn prediction_known(&self) -> bool {
        self.prediction_known
    }

    /// A file of the folder that this file stands for.
    pub(crate) fn text(&self, path: &str) -> Option<&[u8]> {
        self.texts.get(path).map(Vec::as_slice)
    }

    /// The tensors of a component; `data` is the file, opened again.
    pub(crate) fn weights(&self, component: &str, data: Data) -> Result<Weights> {
        let file = File::open(&self.name, data)?;
        let entries = self.components.get(component).cloned().unwrap_or_default();
        Ok(Weights::of(&self.name, vec![file], entries))
    }
}
