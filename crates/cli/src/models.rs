//! Which model: the bundled one, which is part of the program, a folder or file, or one that
//! `excite model pull` fetched.

use std::path::{Path, PathBuf};

use excite_diffusion::{Compute, Folder, Model, bundled};

use crate::fault::{Fault, Status};
use crate::printer::Printer;

pub(crate) use excite_diffusion::BUNDLED;

/// Where fetched models are: `EXCITE_MODELS`, else `excite/models` in the user's data folder.
pub(crate) fn home() -> Result<PathBuf, Fault> {
    match std::env::var_os("EXCITE_MODELS").filter(|value| !value.is_empty()) {
        Some(named) => Ok(PathBuf::from(named)),
        None => Ok(data_home()?.join("models")),
    }
}

/// `excite` in the user's data folder.
pub(crate) fn data_home() -> Result<PathBuf, Fault> {
    let set = std::env::var_os("XDG_DATA_HOME").filter(|value| !value.is_empty());
    let home = || std::env::home_dir().map(|home| home.join(".local/share"));
    let found = set.map(PathBuf::from).or_else(home).map(|data| data.join("excite"));
    found.ok_or_else(|| {
        let message = "there is no home directory to keep models and images in".into();
        let remedy = "Set XDG_DATA_HOME to a folder.".into();
        Fault::new(Status::Failed, "no_home", message, remedy)
    })
}

/// Finds a model: a path, the bundled one's name, or the name of a fetched one.
pub(crate) fn find(model: &str) -> Result<Folder, Fault> {
    let path = PathBuf::from(model);
    if path.exists() {
        return Ok(Folder::at(single_file_in(&path).unwrap_or(path)));
    }
    if model == BUNDLED {
        return Ok(bundled());
    }
    if is_name(model) {
        let fetched = home()?.join(model);
        if fetched.exists() {
            return Ok(Folder::at(single_file_in(&fetched).unwrap_or(fetched)));
        }
    }
    Err(Fault::new(
        Status::Failed,
        "model_not_found",
        format!("there is no model `{model}`"),
        format!(
            "Name the folder or the .safetensors file of a model, one that `excite model list` \
             shows, or `{BUNDLED}`."
        ),
    ))
}

/// Whether a name is one and not a path.
pub(crate) fn is_name(model: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !model.is_empty() && !model.starts_with('.') && model.chars().all(letter)
}

/// A folder may hold no pipeline, but one file in the original layout.
fn single_file_in(folder: &Path) -> Option<PathBuf> {
    if folder.join("model_index.json").exists() {
        return None;
    }
    let entries = std::fs::read_dir(folder).ok()?;
    let mut files = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "safetensors"));
    let first = files.next()?;
    files.next().is_none().then_some(first)
}

/// Loads a model to where it will compute.
pub(crate) fn load(model: &str, compute: &Compute, printer: &Printer) -> Result<Model, Fault> {
    let folder = find(model)?;
    let spinner = printer.spinner(format!("loading {model}"));
    let loaded = Model::load_on(&folder, compute);
    drop(spinner);
    Ok(loaded?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_no_paths() {
        for name in ["emoji", "stable-diffusion-v1-4", "sd_xl.v1"] {
            assert!(is_name(name), "{name}");
        }
        for path in ["", ".", "..", ".hidden", "a/b", "../a", "a\\b", "a b"] {
            assert!(!is_name(path), "{path}");
        }
    }
}
