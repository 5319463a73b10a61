//! A model folder in diffusers layout: on disk, or inside the binary.
//!
//! [`Loader`] reads the folder's files and remembers the SHA-256 of each, so that the model's
//! digest covers exactly the files that were loaded. Not here: what the files mean (`model`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::weights::{Data, Weights};

/// Files linked into the binary: path relative to the folder, bytes.
pub type EmbeddedFiles = &'static [(&'static str, &'static [u8])];

/// Where a model lies.
#[derive(Debug, Clone)]
pub enum Folder {
    /// A directory.
    Directory(PathBuf),
    /// Files linked into the binary.
    Embedded {
        /// Name of the model.
        name: &'static str,
        /// The files.
        files: EmbeddedFiles,
    },
}

impl Folder {
    /// The model's name: the last component of the directory.
    pub fn name(&self) -> String {
        match self {
            Self::Embedded { name, .. } => (*name).to_owned(),
            Self::Directory(path) => {
                let absolute = path.canonicalize().unwrap_or_else(|_| path.clone());
                let name = absolute.file_name().unwrap_or(absolute.as_os_str());
                name.to_string_lossy().into_owned()
            }
        }
    }
}

/// Reads a folder's files and keeps their hashes.
pub(crate) struct Loader<'a> {
    folder: &'a Folder,
    model: String,
    hashes: BTreeMap<String, String>,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(folder: &'a Folder) -> Self {
        Self { folder, model: folder.name(), hashes: BTreeMap::new() }
    }

    pub(crate) fn model(&self) -> &str {
        &self.model
    }

    pub(crate) fn exists(&self, file: &str) -> bool {
        match self.folder {
            Folder::Directory(path) => path.join(file).is_file(),
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
        };
        self.hashes.insert(file.to_owned(), format!("{:x}", Sha256::digest(&bytes)));
        Ok(bytes)
    }

    /// A JSON file, checked against `T`.
    pub(crate) fn json<T: DeserializeOwned>(&mut self, file: &str) -> Result<T> {
        let bytes = self.bytes(file)?;
        serde_json::from_slice(&bytes)
            .map_err(|e| Error::Config { file: file.to_owned(), message: e.to_string() })
    }

    /// The first of `candidates` that is there, opened and hashed; tensors are read one by one.
    pub(crate) fn weights(&mut self, candidates: &[&str]) -> Result<Weights> {
        let Some(file) = candidates.iter().find(|file| self.exists(file)) else {
            return Err(Error::NoWeights {
                model: self.model.clone(),
                candidates: candidates.iter().map(|&c| c.to_owned()).collect(),
            });
        };
        let data = match self.folder {
            Folder::Directory(path) => {
                let path = path.join(file);
                let hash = hash_file(&path).map_err(|e| self.read_error(file, e))?;
                self.hashes.insert((*file).to_owned(), hash);
                Data::File(File::open(&path).map_err(|e| self.read_error(file, e))?)
            }
            Folder::Embedded { .. } => {
                let bytes = self.embedded(file)?;
                self.hashes.insert((*file).to_owned(), format!("{:x}", Sha256::digest(bytes)));
                Data::Memory(bytes)
            }
        };
        Weights::open(file, data)
    }

    /// SHA-256 over the sorted lines `<sha256>  <relative path>` of the files loaded so far.
    pub(crate) fn digest(&self) -> String {
        let lines: String =
            self.hashes.iter().map(|(file, hash)| format!("{hash}  {file}\n")).collect();
        format!("{:x}", Sha256::digest(lines.as_bytes()))
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

fn hash_file(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
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
