//! Where the JSON beside an image is, and whether it belongs to it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use excite_diffusion::Rendered;
use excite_jobs::{Sidecar, VERSION};

use crate::fault::Fault;
use crate::files::{self, sha256};

/// Reads the sidecar of an image; `None` if there is none that belongs to these bytes.
pub(crate) fn of(image: &Path, bytes: &[u8]) -> Option<Sidecar> {
    let text = std::fs::read(path(image)).ok()?;
    let sidecar: Sidecar = serde_json::from_slice(&text).ok()?;
    (sidecar.v == VERSION && sidecar.sha256 == sha256(bytes)).then_some(sidecar)
}

/// Writes the sidecar of an image whose bytes are `png`, which says that it is finished.
pub(crate) fn write(
    image: &Path,
    png: &[u8],
    rendered: &Rendered,
    seconds: f64,
    custom_id: Option<String>,
    labels: BTreeMap<String, String>,
) -> Result<Sidecar, Fault> {
    let sidecar = excite_diffusion::sidecar(rendered, sha256(png), seconds, custom_id, labels);
    let json = serde_json::to_vec(&sidecar).map_err(|e| Fault::bug(&e.to_string()))?;
    files::write(&path(image), &json)?;
    Ok(sidecar)
}

/// Where the sidecar of an image is.
pub(crate) fn path(image: &Path) -> PathBuf {
    image.with_extension("json")
}
