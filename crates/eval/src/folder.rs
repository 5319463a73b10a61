//! A transformers folder, on disk or part of the program: its configuration and its weights.
//!
//! Weights are read whole and brought to f32, from `model.safetensors` or from the shards that
//! `model.safetensors.index.json` names. A tensor is taken by name and shape; what was not taken
//! is reported, because a configuration that knows fewer layers than the weights gives wrong
//! figures in silence. Not here: diffusers folders (`excite_diffusion::Folder`).

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Files that are part of the program, by name.
pub(crate) type Embedded = &'static [(&'static str, &'static [u8])];

/// A folder as transformers' `save_pretrained` writes it.
pub(crate) struct Folder {
    path: PathBuf,
    /// Instead of those on disk.
    embedded: Option<Embedded>,
}

#[derive(Deserialize)]
struct Kind {
    #[serde(default)]
    model_type: Option<String>,
    #[serde(default)]
    architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Folder {
    pub(crate) fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), embedded: None }
    }

    /// Of the program, with a name for messages.
    pub(crate) fn embedded(name: &str, files: Embedded) -> Self {
        Self { path: name.into(), embedded: Some(files) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        match self.embedded {
            Some(files) => files.iter().any(|(found, _)| *found == name),
            None => self.file(name).is_file(),
        }
    }

    pub(crate) fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.file(name);
        if let Some(files) = self.embedded {
            let file = files.iter().find(|(found, _)| *found == name);
            let missing = || Error::Read { path, source: std::io::ErrorKind::NotFound.into() };
            return file.map(|(_, bytes)| bytes.to_vec()).ok_or_else(missing);
        }
        std::fs::read(&path).map_err(|source| Error::Read { path, source })
    }

    pub(crate) fn json<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        serde_json::from_slice(&self.bytes(name)?)
            .map_err(|e| Error::Malformed { path: self.file(name), message: e.to_string() })
    }

    /// Refuses a folder of another model: `config.json` must have this `model_type`, and the class
    /// among its `architectures` where it has any.
    pub(crate) fn require(&self, model_type: &str, class: &str) -> Result<()> {
        let kind: Kind = self.json("config.json")?;
        let wrong = |field: &str, value: String| Error::Unsupported {
            path: self.file("config.json"),
            field: field.into(),
            value,
            remedy: format!("Name the folder of a {class} (`model_type` {model_type})."),
        };
        if kind.model_type.as_deref() != Some(model_type) {
            let found = kind.model_type.map_or("missing".into(), |found| format!("`{found}`"));
            return Err(wrong("model_type", found));
        }
        match kind.architectures {
            Some(found) if !found.iter().any(|name| name == class) => {
                Err(wrong("architectures", format!("{found:?}")))
            }
            _ => Ok(()),
        }
    }

    /// SHA-256 of its configuration and weights, 12 hexadecimal digits: what its figures are of.
    pub(crate) fn digest(&self) -> Result<String> {
        let mut hash = Sha256::new();
        for name in ["config.json", "preprocessor_config.json", "judge.json", WEIGHTS, INDEX] {
            if self.has(name) {
                hash.update(name);
                hash.update(self.bytes(name)?);
            }
        }
        Ok(format!("{:x}", hash.finalize()).get(..12).unwrap_or_default().to_owned())
    }

    pub(crate) fn weights(&self) -> Result<Weights> {
        if self.has(WEIGHTS) || !self.has(INDEX) {
            return Weights::read(self, self.file(WEIGHTS), &[WEIGHTS.into()]);
        }
        let index: Index = self.json(INDEX)?;
        let shards: BTreeSet<String> = index.weight_map.into_values().collect();
        if let Some(strange) = shards.iter().find(|name| name.contains(['/', '\\'])) {
            let message = format!("`{strange}` is not the name of a file in this folder");
            return Err(Error::Malformed { path: self.file(INDEX), message });
        }
        Weights::read(self, self.file(INDEX), &shards.into_iter().collect::<Vec<_>>())
    }
}

/// The tensors of a model, each to be taken once or more.
pub(crate) struct Weights {
    /// The file to blame: the one file, or the index of the shards.
    path: PathBuf,
    tensors: BTreeMap<String, Tensor>,
    taken: RefCell<BTreeSet<String>>,
}

impl Weights {
    fn read(folder: &Folder, path: PathBuf, files: &[String]) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        for file in files {
            let bytes = folder.bytes(file)?;
            let found =
                candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).map_err(|e| {
                    Error::Malformed { path: folder.file(file), message: e.to_string() }
                })?;
            tensors.extend(found);
        }
        Ok(Self { path, tensors, taken: RefCell::default() })
    }

    pub(crate) fn root(&self) -> Scope<'_> {
        Scope { weights: self, prefix: String::new() }
    }

    /// Reports tensors that nobody took, but for the positions' numbers that old files hold.
    pub(crate) fn require_all_taken(&self) -> Result<()> {
        let taken = self.taken.borrow();
        let mut left = self
            .tensors
            .keys()
            .filter(|key| !taken.contains(*key) && !key.ends_with("position_ids"));
        let Some(key) = left.next().cloned() else { return Ok(()) };
        Err(Error::UnusedTensors { path: self.path.clone(), count: 1 + left.count(), key })
    }
}

/// The tensors below a prefix.
#[derive(Clone)]
pub(crate) struct Scope<'a> {
    weights: &'a Weights,
    /// Empty, or with a dot at its end.
    prefix: String,
}

impl Scope<'_> {
    pub(crate) fn at(&self, name: &str) -> Self {
        Self { weights: self.weights, prefix: format!("{}{name}.", self.prefix) }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.weights.tensors.contains_key(&format!("{}{name}", self.prefix))
    }

    /// A tensor in f32.
    ///
    /// # Errors
    /// If it is not there or has another shape.
    pub(crate) fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let (path, key) = (&self.weights.path, format!("{}{name}", self.prefix));
        let Some(tensor) = self.weights.tensors.get(&key) else {
            return Err(Error::MissingTensor { path: path.clone(), key, expected: shape.into() });
        };
        if tensor.dims() != shape {
            let (expected, found) = (shape.into(), tensor.dims().into());
            return Err(Error::Shape { path: path.clone(), key, expected, found });
        }
        self.weights.taken.borrow_mut().insert(key);
        Ok(tensor.to_dtype(DType::F32)?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn write(folder: &Path, file: &str, tensors: &[(&str, &[f32])]) {
        let tensors: HashMap<String, Tensor> = tensors
            .iter()
            .map(|(key, values)| {
                let tensor = Tensor::from_slice(values, values.len(), &Device::Cpu).unwrap();
                ((*key).to_owned(), tensor.to_dtype(DType::F16).unwrap())
            })
            .collect();
        candle_core::safetensors::save(&tensors, folder.join(file)).unwrap();
    }

    #[test]
    fn shards_are_one_set_of_weights() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "a.safetensors", &[("x.weight", &[1., 2.])]);
        write(folder.path(), "b.safetensors", &[("y", &[0.5]), ("position_ids", &[0.])]);
        let map = r#"{"weight_map": {"x.weight": "a.safetensors", "y": "b.safetensors"}}"#;
        std::fs::write(folder.path().join(INDEX), map).unwrap();
        let weights = Folder::at(folder.path()).weights().unwrap();
        let x = weights.root().at("x").get("weight", &[2]).unwrap();
        assert_eq!(x.to_vec1::<f32>().unwrap(), [1., 2.]);
        let left = weights.require_all_taken().unwrap_err().to_string();
        assert!(left.contains("1 tensors") && left.contains("`y`"), "{left}");
        weights.root().get("y", &[1]).unwrap();
        weights.require_all_taken().unwrap();
        for (key, shape) in [("z", vec![1]), ("y", vec![2])] {
            let error = weights.root().get(key, &shape).unwrap_err();
            assert_eq!(error.advice().0, "weights_mismatch");
            assert!(error.to_string().contains(&format!("`{key}`")), "{error}");
        }
        std::fs::write(folder.path().join(INDEX), map.replace("a.saf", "../a.saf")).unwrap();
        let error = Folder::at(folder.path()).weights().err().unwrap();
        assert!(error.to_string().contains("../a.safetensors"), "{error}");
    }

    #[test]
    fn a_folder_of_another_model_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let check = |config: &str| {
            std::fs::write(folder.path().join("config.json"), config).unwrap();
            Folder::at(folder.path()).require("clip", "CLIPModel")
        };
        check(r#"{"model_type": "clip"}"#).unwrap();
        check(r#"{"model_type": "clip", "architectures": ["CLIPModel"]}"#).unwrap();
        for (config, value) in [
            (r#"{"model_type": "siglip"}"#, "`siglip`"),
            (r#"{"architectures": ["CLIPModel"]}"#, "missing"),
            (r#"{"model_type": "clip", "architectures": ["CLIPTextModel"]}"#, "CLIPTextModel"),
        ] {
            let error = check(config).unwrap_err();
            assert!(error.to_string().contains(value), "{error}");
            assert!(error.advice().1.contains("CLIPModel"), "{error:?}");
        }
        assert!(matches!(check("{"), Err(Error::Malformed { .. })));
    }
}
