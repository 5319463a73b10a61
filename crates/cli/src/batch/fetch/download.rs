//! One image of a batch: there already, or fetched, checked and put in its place.

use std::path::PathBuf;

use excite_jobs::JobId;
use serde_json::Value;

use crate::client::{Client, Request};
use crate::fault::{Fault, Status};
use crate::files::{self, sha256};

/// Downloads of the same image that may come damaged.
const TRIES: usize = 3;

/// An image to fetch.
pub(super) struct Target {
    pub(super) id: JobId,
    /// Where the PNG goes.
    pub(super) path: PathBuf,
    /// Of the PNG, in hexadecimal.
    pub(super) sha256: String,
    /// Whether the JSON is wanted too.
    pub(super) sidecar: bool,
    /// Nothing is left to do for it.
    pub(super) done: bool,
}

/// What was done for it.
pub(super) enum Got {
    /// The same file was there already.
    There,
    /// It was fetched.
    Fetched {
        bytes: u64,
        /// Another file of its name was there.
        replaced: bool,
    },
}

pub(super) fn run(client: &Client<'_>, target: &Target) -> Result<Got, Fault> {
    let before = std::fs::read(&target.path).ok();
    if before.as_deref().is_some_and(|bytes| sha256(bytes) == target.sha256) {
        sidecar(client, target)?;
        return Ok(Got::There);
    }
    if let Some(folder) = target.path.parent() {
        std::fs::create_dir_all(folder).map_err(|e| Fault::io("create the folder", folder, &e))?;
    }
    for _ in 0..TRIES {
        let bytes = client.call(&Request::get(address(target, "image")))?.body;
        if sha256(&bytes) == target.sha256 {
            // The sidecar first: an image is the mark that all of it is there.
            sidecar(client, target)?;
            files::write(&target.path, &bytes)?;
            return Ok(Got::Fetched { bytes: bytes.len() as u64, replaced: before.is_some() });
        }
    }
    let message = format!("the image of job {} came damaged {TRIES} times", target.id);
    let remedy = "Try again; if it stays so, its object in the store is damaged.";
    Err(Fault::new(Status::Failed, "damaged", message, remedy.into()))
}

fn address(target: &Target, what: &str) -> String {
    format!("/v1/batches/{}/jobs/{}/{what}", target.id.batch, target.id.index)
}

/// Fetches the JSON beside an image, unless it is there.
fn sidecar(client: &Client<'_>, target: &Target) -> Result<(), Fault> {
    let path = target.path.with_extension("json");
    let fits = |bytes: &[u8]| {
        let document: Option<Value> = serde_json::from_slice(bytes).ok();
        document.is_some_and(|document| document["sha256"] == *target.sha256)
    };
    if !target.sidecar || std::fs::read(&path).is_ok_and(|bytes| fits(&bytes)) {
        return Ok(());
    }
    let bytes = client.call(&Request::get(address(target, "sidecar")))?.body;
    if !fits(&bytes) {
        let message = format!("the sidecar of job {} is of another image", target.id);
        let remedy = "Try again; if it stays so, its object in the store is damaged.";
        return Err(Fault::new(Status::Failed, "damaged", message, remedy.into()));
    }
    files::write(&path, &bytes)
}
