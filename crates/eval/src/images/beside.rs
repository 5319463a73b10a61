//! What an image made by excite says of itself: in the JSON beside it, or in its own text.

use std::path::{Path, PathBuf};

use excite_diffusion::picture;
use excite_jobs::{Sidecar, Spec, VERSION};

/// What follows a method's name where further seeds were tried.
const ACCEPT: &str = "+accept";
/// How the text begins in a PNG, behind the length of its chunk; it stands before the pixels.
const TEXT: &[u8] = b"iTXtexcite\0";
/// Where the text is looked for.
const TEXT_WITHIN: usize = 64 << 10;

/// What is known of an image.
pub(super) enum Known {
    /// All of it.
    Sidecar(Box<Sidecar>),
    /// What decided its pixels.
    Spec(Box<Spec>),
    Nothing,
}

impl Known {
    pub(super) fn spec(&self) -> Option<&Spec> {
        match self {
            Self::Sidecar(sidecar) => Some(&sidecar.spec),
            Self::Spec(spec) => Some(spec),
            Self::Nothing => None,
        }
    }

    pub(super) fn sidecar(&self) -> Option<&Sidecar> {
        match self {
            Self::Sidecar(sidecar) => Some(sidecar),
            _ => None,
        }
    }

    /// The name of the method, and of the seed the first that was tried: with it an image is
    /// compared with those of other methods.
    pub(super) fn method_and_seed(&self) -> Option<(String, u32)> {
        let spec = self.spec()?;
        let name = spec.method.name().as_str();
        match self.sidecar().and_then(|sidecar| sidecar.tries.first()) {
            Some(first) => Some((format!("{name}{ACCEPT}"), first.seed)),
            None => Some((name.to_owned(), spec.seed)),
        }
    }
}

/// Where the JSON of an image is.
pub(super) fn path(image: &Path) -> PathBuf {
    image.with_extension("json")
}

/// The JSON beside an image, if it belongs to it, else the text in it; and what is wrong with the
/// JSON.
pub(super) fn known(image: &Path, bytes: &[u8], sha256: &str) -> (Known, Option<String>) {
    match sidecar(image, sha256) {
        Ok(Some(sidecar)) => (Known::Sidecar(Box::new(sidecar)), None),
        Ok(None) => (embedded(bytes), None),
        Err(reason) => (embedded(bytes), Some(reason)),
    }
}

fn sidecar(image: &Path, sha256: &str) -> Result<Option<Sidecar>, String> {
    let text = match std::fs::read(path(image)) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e.to_string()),
    };
    let sidecar: Sidecar = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
    match &sidecar {
        Sidecar { v, .. } if *v != VERSION => Err(format!("it is of version {v}, not {VERSION}")),
        Sidecar { sha256: other, .. } if other != sha256 => {
            Err("it is of another image (`sha256` differs)".into())
        }
        _ => Ok(Some(sidecar)),
    }
}

fn embedded(bytes: &[u8]) -> Known {
    // Decoding every PNG for a text that most of other makers lack would take minutes.
    let head = &bytes[..bytes.len().min(TEXT_WITHIN)];
    if !head.windows(TEXT.len()).any(|part| part == TEXT) {
        return Known::Nothing;
    }
    let spec = picture::Read::bytes(bytes).ok().and_then(|read| read.spec().ok());
    spec.map_or(Known::Nothing, |spec| Known::Spec(Box::new(spec)))
}

/// Whether a JSON without an image is the sidecar of one.
pub(super) fn is_sidecar(json: &Path) -> bool {
    let text = std::fs::read(json).ok();
    text.is_some_and(|text| serde_json::from_slice::<Sidecar>(&text).is_ok())
}

/// Whether `excite generate` draws pictures of this name beside its images: heat maps, the steps,
/// comparisons.
pub(super) fn is_drawing(stem: &str) -> bool {
    let stem = match stem.rsplit_once('-') {
        Some((head, number)) if number.bytes().all(|b| b.is_ascii_digit()) => head,
        _ => stem,
    };
    ["-attention", "-steps", "-compare"].iter().any(|suffix| stem.ends_with(suffix))
}
