//! Where a model lies: a folder in diffusers layout, a single file in the original layout, or
//! inside the binary.
//!
//! [`Loader`] reads the files and remembers the SHA-256 of each, so that the model's digest covers
//! exactly the files that were loaded. Not here: what the files mean (`model`).

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

use excite_jobs::{ModelCard, ModelFile};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::device::{Compute, Precision};
use crate::error::{Error, Result};
use crate::single_file::SingleFile;
use crate::weights::{Data, File, Stored, Weights};

/// Files linked into the binary: path relative to the folder, bytes.
pub type EmbeddedFiles = &'static [(&'static str, &'static [u8])];

/// Where a model lies.
#[derive(Debug, Clone)]
pub enum Folder {
    /// A directory in diffusers layout.
    Directory(PathBuf),
    /// One safetensors file in the layout of the original repositories.
    SingleFile(PathBuf),
    /// Files linked into the binary.
    Embedded {
        /// Name of the model.
        name: &'static str,
        /// The files.
        files: EmbeddedFiles,
    },
}

impl Folder {
    /// A path: what is no directory is taken for a single file.
    pub fn at(path: PathBuf) -> Self {
        if path.is_file() { Self::SingleFile(path) } else { Self::Directory(path) }
    }

    /// The model's name: the last component of the directory, or the file's name without ending.
    pub fn name(&self) -> String {
        match self {
            Self::Embedded { name, .. } => (*name).to_owned(),
            Self::SingleFile(path) => {
                path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
            }
            Self::Directory(path) => {
                let absolute = path.canonicalize().unwrap_or_else(|_| path.clone());
                let name = absolute.file_name().unwrap_or(absolute.as_os_str());
                name.to_string_lossy().into_owned()
            }
        }
    }
}

/// Reads a model's files and keeps their hashes.
pub(crate) struct Loader<'a> {
    folder: &'a Folder,
    single: Option<SingleFile>,
    model: String,
    files: BTreeMap<String, ModelFile>,
    components: Vec<(String, Stored)>,
    /// Bytes of the weight files.
    bytes: u64,
    /// Whether weight files are hashed, which takes a second a gigabyte.
    hashing: bool,
    /// Where the weights go.
    compute: Compute,
}

/// Names under which a component's weights are known, best first: `{}` is the component's stem.
const WHOLE: [&str; 2] = ["{}.safetensors", "{}.fp16.safetensors"];
const SHARDED: [&str; 3] = [
    "{}.safetensors.index.json",
    "{}.safetensors.index.fp16.json",
    "{}.fp16.safetensors.index.json",
];
const PICKLES: [&str; 4] = ["{}.bin", "{}.fp16.bin", "pytorch_model.bin", "pytorch_model.fp16.bin"];
/// More shards than this are no model.
const SHARDS_MAX: usize = 1000;

#[derive(Deserialize)]
struct Shards {
    weight_map: BTreeMap<String, String>,
}

impl<'a> Loader<'a> {
    /// # Errors
    /// If a single file is not a checkpoint in a known layout.
    pub(crate) fn new(folder: &'a Folder, compute: &Compute) -> Result<Self> {
        Self::with(folder, true, compute.clone())
    }

    /// For looking: weight files are opened, but not read to their ends, and there is no digest.
    pub(crate) fn for_outline(folder: &'a Folder) -> Result<Self> {
        Self::with(folder, false, Compute::cpu())
    }

    fn with(folder: &'a Folder, hashing: bool, compute: Compute) -> Result<Self> {
        let mut loader = Self {
            folder,
            single: None,
            model: folder.name(),
            files: BTreeMap::new(),
            components: Vec::new(),
            bytes: 0,
            hashing,
            compute,
        };
        if let Folder::SingleFile(path) = folder {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let file = loader.open(path, &name)?;
            loader.single = Some(SingleFile::new(file)?);
        }
        Ok(loader)
    }

    pub(crate) fn model(&self) -> &str {
        &self.model
    }

    /// The single file, if the model is one.
    pub(crate) fn single_file(&self) -> Option<&SingleFile> {
        self.single.as_ref()
    }

    pub(crate) fn exists(&self, file: &str) -> bool {
        match self.folder {
            Folder::Directory(path) => path.join(file).is_file(),
            Folder::SingleFile(_) => self.single.as_ref().is_some_and(|s| s.text(file).is_some()),
            Folder::Embedded { files, .. } => files.iter().any(|(name, _)| *name == file),
        }
    }

    /// The whole file, hashed.
    pub(crate) fn bytes(&mut self, file: &str) -> Result<Vec<u8>> {
        let bytes = match self.folder {
            Folder::Directory(path) => {
                std::fs::read(path.join(file)).map_err(|e| self.read_error(file, e))?
            }
            Folder::Embedded { .. } => self.embedded(file)?.to_vec(),
            Folder::SingleFile(_) => {
                // What follows from the one file that there is, is not hashed besides it.
                let text = self.single.as_ref().and_then(|single| single.text(file));
                return text
                    .map(<[u8]>::to_vec)
                    .ok_or_else(|| self.read_error(file, std::io::ErrorKind::NotFound.into()));
            }
        };
        self.files.insert(file.to_owned(), hashed(&bytes));
        Ok(bytes)
    }

    /// A JSON file, checked against `T`.
    pub(crate) fn json<T: DeserializeOwned>(&mut self, file: &str) -> Result<T> {
        let bytes = self.bytes(file)?;
        serde_json::from_slice(&bytes)
            .map_err(|e| Error::Config { file: file.to_owned(), message: e.to_string() })
    }

    /// The weights of a component, hashed: `stem` is their file's name without variant and ending.
    pub(crate) fn weights(&mut self, component: &str, stem: &str) -> Result<Weights> {
        let weights = self.find_weights(component, stem)?.on(self.compute.of(component));
        self.components.push((component.to_owned(), weights.stored()));
        Ok(weights)
    }

    /// What the networks compute on.
    pub(crate) fn compute(&self) -> &Compute {
        &self.compute
    }

    /// The components whose weights were loaded, in that order.
    pub(crate) fn components(&self) -> &[(String, Stored)] {
        &self.components
    }

    /// Bytes that the weights of the components take where they were loaded to.
    pub(crate) fn memory_bytes(&self) -> u64 {
        memory_bytes(&self.components, |component| self.compute.of(component).precision())
    }

    /// Bytes of the weight files that were opened.
    pub(crate) fn weight_bytes(&self) -> u64 {
        self.bytes
    }

    fn find_weights(&mut self, component: &str, stem: &str) -> Result<Weights> {
        if let (Some(single), Folder::SingleFile(path)) = (&self.single, self.folder) {
            let again = std::fs::File::open(path).map_err(|e| self.read_error(component, e))?;
            return single.weights(component, Data::File(again));
        }
        let path = |name: &str| format!("{component}/{}", name.replace("{}", stem));
        let found = |names: &[&str]| names.iter().map(|n| path(n)).find(|file| self.exists(file));
        // Full precision goes before half, and one file before many.
        let (whole, sharded) = (found(&WHOLE), found(&SHARDED));
        let half = whole.as_ref().is_some_and(|file| file.contains(".fp16."));
        let full_shards = sharded.as_ref().is_some_and(|file| !file.contains("fp16"));
        if let Some(file) = whole.filter(|_| !(half && full_shards)) {
            let opened = self.open_named(&file)?;
            return Ok(Weights::new(&file, vec![opened]));
        }
        if let Some(index) = sharded {
            return self.sharded(component, &index);
        }
        if let Some(file) = found(&PICKLES) {
            return Err(Error::Pickle { file });
        }
        Err(Error::NoWeights {
            model: self.model.clone(),
            candidates: WHOLE.iter().chain(&SHARDED).map(|name| path(name)).collect(),
        })
    }

    fn sharded(&mut self, component: &str, index: &str) -> Result<Weights> {
        let Shards { weight_map } = self.json(index)?;
        let wrong = |message: String| Error::Config { file: index.to_owned(), message };
        let names: BTreeSet<&String> = weight_map.values().collect();
        let unsafe_name = names.iter().find(|name| name.contains(['/', '\\']) || name.is_empty());
        if let Some(name) = unsafe_name {
            return Err(wrong(format!("`{name}` is no file of this folder")));
        }
        if names.len() > SHARDS_MAX {
            return Err(wrong(format!("{} shards are more than {SHARDS_MAX}", names.len())));
        }
        let files: Vec<File> = names
            .iter()
            .map(|name| self.open_named(&format!("{component}/{name}")))
            .collect::<Result<_>>()?;
        for (key, shard) in &weight_map {
            let place = names.iter().position(|name| *name == shard);
            if place.is_none_or(|i| !files[i].tensors().contains_key(key)) {
                return Err(wrong(format!("`{key}` is not in `{shard}`")));
            }
        }
        Ok(Weights::new(index, files))
    }

    fn open_named(&mut self, file: &str) -> Result<File> {
        match self.folder {
            Folder::Directory(path) => self.open(&path.join(file), file),
            _ => {
                let bytes = self.embedded(file)?;
                self.files.insert(file.to_owned(), hashed(bytes));
                self.bytes += bytes.len() as u64;
                File::open(file, Data::Memory(bytes))
            }
        }
    }

    fn open(&mut self, path: &Path, name: &str) -> Result<File> {
        let failed = |e| self.read_error(name, e);
        let file = std::fs::File::open(path).map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        self.bytes += bytes;
        let opened = File::open(name, Data::File(file))?;
        if self.hashing {
            let sha256 = hash_file(path).map_err(|e| self.read_error(name, e))?;
            self.files.insert(name.to_owned(), ModelFile { sha256, bytes });
        }
        Ok(opened)
    }

    /// SHA-256 over the sorted lines `<sha256>  <relative path>` of the files loaded so far.
    pub(crate) fn digest(&self) -> String {
        ModelCard::digest_of(&self.files)
    }

    /// The files loaded so far, as the digest covers them.
    pub(crate) fn into_files(self) -> BTreeMap<String, ModelFile> {
        self.files
    }

    fn embedded(&self, file: &str) -> Result<&'static [u8]> {
        let Folder::Embedded { files, .. } = self.folder else { return Ok(&[]) };
        let found = files.iter().find(|(name, _)| *name == file);
        found
            .map(|(_, bytes)| *bytes)
            .ok_or_else(|| self.read_error(file, std::io::ErrorKind::NotFound.into()))
    }

    fn read_error(&self, file: &str, source: std::io::Error) -> Error {
        Error::Read { model: self.model.clone(), file: file.to_owned(), source }
    }
}

/// Bytes that the weights of components take in memory, each in its precision.
pub(crate) fn memory_bytes(
    components: &[(String, Stored)],
    precision: impl Fn(&str) -> Precision,
) -> u64 {
    let bytes = |(name, stored): &(String, Stored)| stored.parameters * precision(name).bytes();
    components.iter().map(bytes).sum()
}

fn hashed(bytes: &[u8]) -> ModelFile {
    ModelFile { sha256: format!("{:x}", Sha256::digest(bytes)), bytes: bytes.len() as u64 }
}

fn hash_file(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(format!("{:x}", hasher.finalize()));
        }
        hasher.update(&buffer[..read]);
    }
}
