//! Puts the models of this machine into the store, as `excite model push` does for a cluster.

use std::io::Write;
use std::path::{Path, PathBuf};

use excite_diffusion::{Compute, Folder};
use excite_dispatcher::models::Models;
use excite_jobs::ModelCard;

use crate::fault::{Fault, Status};
use crate::model::push;
use crate::models;
use crate::printer::Printer;

/// The queue that the one worker reads.
const CLASS: &str = "default";

/// Offers a model; what of it is in the store already is left as it is.
pub(super) async fn offer(store: &Models, model: &str, printer: &Printer) -> Result<(), Fault> {
    let folder = models::find(model)?;
    let card = push::card(None, CLASS, &models::load(model, &Compute::cpu(), printer)?)?;
    let known = store.card(&card.name).await.map_err(|e| failed(&e))?;
    if known.is_some_and(|known| (&known.digest, &known.class) == (&card.digest, &card.class)) {
        return Ok(());
    }
    for (path, file) in &card.files {
        if store.file(&card.name, &file.sha256).await.map_err(|e| failed(&e))?.is_none() {
            put(store, &card, &file.sha256, &place(&folder, path)?).await?;
        }
    }
    store.push(&card.name, &card).await.map_err(|e| failed(&e))
}

/// A file of a model where the store can read it.
enum Place {
    Path(PathBuf),
    Written(tempfile::TempPath),
}

fn place(folder: &Folder, path: &str) -> Result<Place, Fault> {
    match folder {
        Folder::Directory(root) => Ok(Place::Path(root.join(path))),
        Folder::SingleFile(file) => Ok(Place::Path(file.clone())),
        Folder::Embedded { files, .. } => {
            let found = files.iter().find(|(name, _)| *name == path);
            let content = found.map(|(_, content)| *content).unwrap_or_default();
            let cannot = |e| Fault::io("write", Path::new("a temporary file"), &e);
            let mut file = tempfile::NamedTempFile::new().map_err(cannot)?;
            file.write_all(content).map_err(cannot)?;
            Ok(Place::Written(file.into_temp_path()))
        }
    }
}

async fn put(store: &Models, card: &ModelCard, sha256: &str, place: &Place) -> Result<(), Fault> {
    let path: &Path = match place {
        Place::Path(path) => path,
        Place::Written(path) => path,
    };
    store.put_file(&card.name, sha256, path).await.map_err(|e| failed(&e))
}

fn failed(error: &dyn std::fmt::Display) -> Fault {
    let message = format!("a model cannot be put into the store: {error}");
    let remedy = "Look at the data folder and its disk; --data names another one.".into();
    Fault::new(Status::Failed, "store", message, remedy)
}
