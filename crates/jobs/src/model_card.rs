//! A model as the store has it: what jobs are checked against, and which files it is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use crate::resolve::ModelFacts;

/// `models/<name>/model.json`, and the same as `models/<name>/<digest>.json` for jobs that were
/// accepted when it was the current one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ModelCard {
    /// [`crate::VERSION`].
    pub v: u32,
    /// Without the digest.
    pub name: String,
    /// SHA-256 over the lines `<sha256>  <path>` of the files, sorted by path.
    pub digest: String,
    /// Which workers run it.
    pub class: String,
    /// Of the weights in memory, roughly: four bytes a parameter.
    pub bytes: u64,
    /// What jobs are checked against.
    pub facts: ModelFacts,
    /// Exactly the files that are loaded: path to SHA-256 and length.
    pub files: BTreeMap<String, ModelFile>,
}

/// A file of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ModelFile {
    /// In hexadecimal.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
}

impl ModelCard {
    /// `name@digest`, as specs write it.
    pub fn full_name(&self) -> String {
        format!("{}@{}", self.name, self.digest)
    }

    /// The digest that the files have.
    pub fn digest_of(files: &BTreeMap<String, ModelFile>) -> String {
        let lines: String =
            files.iter().map(|(path, file)| format!("{}  {path}\n", file.sha256)).collect();
        format!("{:x}", Sha256::digest(lines.as_bytes()))
    }

    /// Whether a name can be part of keys, file names and queue names.
    pub fn is_name(name: &str) -> bool {
        let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        (1..=100).contains(&name.len()) && !name.starts_with('.') && name.chars().all(letter)
    }

    /// Whether a path is relative, and stays inside the model's folder.
    pub fn is_path(path: &str) -> bool {
        let part = |part: &str| !part.is_empty() && part != "." && part != "..";
        path.len() <= 300
            && path.split('/').all(part)
            && !path.chars().any(|c| c.is_control() || matches!(c, '\\' | ':'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_stay_inside() {
        for name in ["emoji", "stable-diffusion-v1-4", "sd_xl.v1"] {
            assert!(ModelCard::is_name(name), "{name}");
        }
        for name in ["", ".", "..", ".hidden", "a/b", "../a", "a\\b", "a b"] {
            assert!(!ModelCard::is_name(name), "{name}");
        }
        assert!(ModelCard::is_path("unet/config.json"));
        for path in ["", "/etc/passwd", "../x", "a/../b", "a//b", "a\\b", "c:x", "a\nb"] {
            assert!(!ModelCard::is_path(path), "{path}");
        }
    }
}
