//! Which files of a repository a Stable Diffusion pipeline in diffusers layout needs.
//!
//! Weights are taken as safetensors only. A pickle runs code when it is opened, so none is ever
//! selected on its own account, and ONNX, Flax or OpenVINO weights are for other programs.

use serde_json::Value;

use crate::digest::Hasher;
use crate::error::{Error, Result};
use crate::hub::{Asked, Hub};
use crate::limits::JSON_BYTES_MAX;
use crate::snapshot::{RemoteFile, Snapshot};

/// The file that names a pipeline's components.
pub const MODEL_INDEX: &str = "model_index.json";

/// Which weights to prefer where a repository has both; the other ones do where it has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// The weights without a variant, for most models in single precision.
    #[default]
    F32,
    /// The variant `fp16`, half the size.
    F16,
}

/// What a component consists of.
enum Files {
    /// A configuration and weights: the weights' name without `.safetensors`.
    Weights(&'static str),
    /// Files that must be there, and files that may be.
    Named { needed: &'static [&'static str], welcome: &'static [&'static str] },
}

const TOKENIZER: Files = Files::Named {
    needed: &["vocab.json", "merges.txt"],
    welcome: &["special_tokens_map.json", "tokenizer_config.json"],
};

/// Name, whether every pipeline must have it, and files.
const COMPONENTS: &[(&str, bool, Files)] = &[
    ("scheduler", true, Files::Named { needed: &["scheduler_config.json"], welcome: &[] }),
    ("text_encoder", true, Files::Weights("model")),
    ("text_encoder_2", false, Files::Weights("model")),
    ("tokenizer", true, TOKENIZER),
    ("tokenizer_2", false, TOKENIZER),
    ("unet", true, Files::Weights("diffusion_pytorch_model")),
    ("vae", true, Files::Weights("diffusion_pytorch_model")),
];

/// Endings of files that Python unpickles.
const PICKLES: &[&str] = &[".bin", ".ckpt", ".pt", ".pth", ".pkl"];

impl Hub {
    /// The files that a Stable Diffusion pipeline needs, as [`Snapshot::selection`] says after
    /// reading the repository's `model_index.json`.
    ///
    /// # Errors
    /// As [`Snapshot::selection`], or if `model_index.json` cannot be fetched.
    pub fn selection(
        &self,
        snapshot: &Snapshot,
        precision: Precision,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<RemoteFile>> {
        let Some(file) = snapshot.file(MODEL_INDEX) else {
            return snapshot.selection(b"", precision);
        };
        let repository = &snapshot.repository;
        let asked = Asked {
            url: self.address(snapshot, MODEL_INDEX),
            repository,
            what: format!("`{MODEL_INDEX}` of `{repository}`"),
            gated: snapshot.gated,
        };
        let body = self.small(&asked, JSON_BYTES_MAX, cancelled)?;
        let mut hasher = Hasher::new(file);
        hasher.update(&body);
        hasher.finish().check(file)?;
        snapshot.selection(&body, precision)
    }
}

impl Snapshot {
    /// The file at a path.
    pub fn file(&self, path: &str) -> Option<&RemoteFile> {
        self.files.iter().find(|file| file.path == path)
    }

    /// The files at these paths.
    ///
    /// # Errors
    /// If one of them is not there.
    pub fn selection_of(&self, paths: &[&str]) -> Result<Vec<RemoteFile>> {
        let find = |path: &&str| {
            self.file(path).cloned().ok_or_else(|| Error::NoSuchFile {
                repository: self.repository.clone(),
                path: (*path).to_owned(),
            })
        };
        paths.iter().map(find).collect()
    }

    /// The files that a Stable Diffusion pipeline needs: `model_index.json`, whose bytes are
    /// given, and those of the components that it names.
    ///
    /// # Errors
    /// If the repository is no such pipeline, a component is incomplete or has only pickles.
    pub fn selection(&self, model_index: &[u8], precision: Precision) -> Result<Vec<RemoteFile>> {
        let Some(index) = self.file(MODEL_INDEX) else { return Err(self.no_model_index()) };
        let listed: Value = serde_json::from_slice(model_index).map_err(|e| Error::Listing {
            url: format!("{}/{MODEL_INDEX}", self.repository),
            message: e.to_string(),
        })?;
        // A component that a pipeline does without is named with `[null, null]`.
        let named = |name: &str| listed[name].get(0).is_some_and(Value::is_string);
        let missing: Vec<String> = COMPONENTS
            .iter()
            .filter(|(name, always, _)| *always && !named(name))
            .map(|(name, ..)| (*name).to_owned())
            .collect();
        if !missing.is_empty() {
            let class = listed["_class_name"].as_str().unwrap_or("pipeline without a class");
            return Err(Error::Pipeline {
                repository: self.repository.clone(),
                class: class.chars().take(80).collect(),
                missing,
            });
        }
        let mut selected = vec![index.clone()];
        for (name, _, files) in COMPONENTS.iter().filter(|(name, ..)| named(name)) {
            match files {
                Files::Weights(stem) => {
                    selected.push(self.needed(name, "config.json")?);
                    selected.extend(self.weights(name, stem, precision)?);
                }
                Files::Named { needed, welcome } => {
                    for file in *needed {
                        selected.push(self.needed(name, file)?);
                    }
                    let there =
                        welcome.iter().filter_map(|file| self.file(&format!("{name}/{file}")));
                    selected.extend(there.cloned());
                }
            }
        }
        Ok(selected)
    }

    fn no_model_index(&self) -> Error {
        let at_root =
            |file: &&RemoteFile| !file.path.contains('/') && file.path.ends_with(".safetensors");
        Error::NoModelIndex {
            repository: self.repository.clone(),
            safetensors: self.files.iter().filter(at_root).map(|file| file.path.clone()).collect(),
        }
    }

    fn needed(&self, component: &str, file: &str) -> Result<RemoteFile> {
        let path = format!("{component}/{file}");
        self.file(&path).cloned().ok_or_else(|| Error::NoFile {
            component: component.to_owned(),
            candidates: vec![path],
        })
    }

    /// One file, or an index and its shards.
    fn weights(
        &self,
        component: &str,
        stem: &str,
        precision: Precision,
    ) -> Result<Vec<RemoteFile>> {
        let variants = match precision {
            Precision::F32 => ["", ".fp16"],
            Precision::F16 => [".fp16", ""],
        };
        for variant in variants {
            if let Some(file) = self.file(&format!("{component}/{stem}{variant}.safetensors")) {
                return Ok(vec![file.clone()]);
            }
            // Diffusers has put the variant at either place.
            let indices = [
                format!("{component}/{stem}{variant}.safetensors.index.json"),
                format!("{component}/{stem}.safetensors.index{variant}.json"),
            ];
            if let Some(index) = indices.iter().find_map(|path| self.file(path)) {
                let mut files = self.shards(component, stem, variant)?;
                files.insert(0, index.clone());
                return Ok(files);
            }
        }
        let folder = format!("{component}/");
        let pickles: Vec<String> = self
            .files
            .iter()
            .map(|file| &file.path)
            .filter(|path| path.starts_with(&folder))
            .filter(|path| PICKLES.iter().any(|ending| path.ends_with(ending)))
            .cloned()
            .collect();
        let component = component.to_owned();
        if pickles.is_empty() {
            let path = |variant| format!("{component}/{stem}{variant}.safetensors");
            let candidates = variants.iter().map(path).collect();
            return Err(Error::NoFile { component, candidates });
        }
        Err(Error::OnlyPickles { component, files: pickles })
    }

    /// Every shard of a variant, from the numbers in their names.
    fn shards(&self, component: &str, stem: &str, variant: &str) -> Result<Vec<RemoteFile>> {
        let mut count = None;
        let mut shards = Vec::new();
        for file in &self.files {
            let Some(name) = file.path.strip_prefix(&format!("{component}/{stem}")) else {
                continue;
            };
            let Some((number, of)) = shard(name, variant) else { continue };
            // A second set beside the first, of another number, is not this index's.
            if *count.get_or_insert(of) == of && number == shards.len() + 1 {
                shards.push(file.clone());
            }
        }
        match (shards.first(), count) {
            (Some(_), Some(of)) if shards.len() == of => Ok(shards),
            (first, of) => {
                let default = format!("{component}/{stem}{variant}-00001-of-…");
                Err(Error::Shards {
                    first: first.map_or(default, |file| file.path.clone()),
                    expected: of.unwrap_or(1),
                    found: shards.len(),
                })
            }
        }
    }
}

/// Number and count of `-00001-of-00002.safetensors`, with the variant before or after.
fn shard(name: &str, variant: &str) -> Option<(usize, usize)> {
    let name = name.strip_suffix(".safetensors")?;
    let numbers = match variant {
        "" => name,
        _ => name.strip_prefix(variant).or_else(|| name.strip_suffix(variant))?,
    };
    let (number, of) = numbers.strip_prefix('-')?.split_once("-of-")?;
    let five = |digits: &str| digits.len() == 5 && digits.bytes().all(|b| b.is_ascii_digit());
    if !five(number) || !five(of) {
        return None;
    }
    Some((number.parse().ok()?, of.parse().ok()?))
}

#[cfg(test)]
mod tests;
