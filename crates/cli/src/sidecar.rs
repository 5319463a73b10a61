//! Where the JSON beside an image is, and whether it belongs to it.

use std::path::{Path, PathBuf};

use excite_jobs::{Sidecar, VERSION};

use crate::files::sha256;

/// Reads the sidecar of an image; `None` if there is none that belongs to these bytes.
pub(crate) fn of(image: &Path, bytes: &[u8]) -> Option<Sidecar> {
    let text = std::fs::read(path(image)).ok()?;
    let sidecar: Sidecar = serde_json::from_slice(&text).ok()?;
    (sidecar.v == VERSION && sidecar.sha256 == sha256(bytes)).then_some(sidecar)
}

/// Where the sidecar of an image is.
pub(crate) fn path(image: &Path) -> PathBuf {
    image.with_extension("json")
}
