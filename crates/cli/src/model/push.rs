//! `excite model push`: gives a model to a cluster, exactly the files that a run loads.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use excite_diffusion::{Compute, Folder, Model};
use excite_jobs::api::ModelList;
use excite_jobs::{ModelCard, ModelFacts, VERSION, limits};
use indicatif::ProgressBar;
use serde_json::json;
use ureq::http::Method;

use super::bytes;
use crate::args::PushArgs;
use crate::batch::view;
use crate::client::{Client, Payload, Request};
use crate::fault::{Fault, Status};
use crate::models;
use crate::printer::Printer;

/// Bytes of a weight in memory (f32).
const WEIGHT_BYTES: u64 = 4;

pub(super) fn run(
    args: &PushArgs,
    printer: &Printer,
    interrupted: &AtomicBool,
) -> Result<Status, Fault> {
    let client = Client::new(&args.server, printer, interrupted)?;
    let folder = models::find(&args.model)?;
    let model = models::load(&args.model, &Compute::cpu(), printer)?;
    let card = card(args.name.as_deref(), &args.class, &model)?;
    let known: ModelList = client.get("/v1/models")?;
    let (mut sent, mut there) = (0, 0);
    let full = view::model(&card.full_name());
    let same = |other: &ModelCard| {
        (&other.name, &other.digest, &other.class) == (&card.name, &card.digest, &card.class)
    };
    let already = known.models.iter().any(same);
    if already {
        printer.result(&format!("{full} is there already"));
    } else {
        (sent, there) = send_files(&client, &folder, &card)?;
        let request = Request::new(Method::PUT, format!("/v1/models/{}", card.name));
        let json = serde_json::to_vec(&card).map_err(|e| Fault::bug(&e.to_string()))?;
        client.call_with(&request, &|| Ok(Payload::Json(json.clone())))?;
        printer.result(&format!("{full} is pushed for workers of class {}", card.class));
        printer.note(&format!("{} sent, {} were there already", bytes(sent), bytes(there)));
    }
    printer.note(&format!("use it with `excite submit --model {}`", card.name));
    printer.object(&json!({
        "v": 1, "name": card.name, "digest": card.digest, "class": card.class,
        "files": card.files.len(), "already": already, "sent_bytes": sent, "present_bytes": there,
    }));
    Ok(Status::Done)
}

/// The card of a model, under its own name or another one.
///
/// # Errors
/// If a name cannot be one, or a file is larger than a server takes.
pub(crate) fn card(name: Option<&str>, class: &str, model: &Model) -> Result<ModelCard, Fault> {
    let (own, digest) = model.name().split_once('@').unwrap_or((model.name(), ""));
    let name = name.unwrap_or(own);
    for (what, name) in [("name", name), ("class", class)] {
        if !ModelCard::is_name(name) {
            let message = format!("`{name}` cannot be the {what} of a model");
            let remedy = format!("Use letters, digits, `.`, `_` and `-`, with --{what}.");
            return Err(Fault::usage(what, message, &remedy));
        }
    }
    let largest = model.files().iter().max_by_key(|(_, file)| file.bytes);
    if let Some((path, file)) = largest
        && file.bytes > limits::MODEL_FILE_BYTES_MAX
    {
        let message = format!("{path} has {}, more than a server takes", bytes(file.bytes));
        return Err(Fault::usage("too_large", message, "Use the model's f16 files."));
    }
    let weights: u64 = model.components().iter().map(|(_, stored)| stored.parameters).sum();
    Ok(ModelCard {
        v: VERSION,
        name: name.to_owned(),
        digest: digest.to_owned(),
        class: class.to_owned(),
        bytes: weights * WEIGHT_BYTES,
        facts: ModelFacts { name: format!("{name}@{digest}"), ..model.facts() },
        files: model.files().clone(),
    })
}

/// Sends what the server lacks; bytes that were sent, and that were there.
fn send_files(client: &Client<'_>, folder: &Folder, card: &ModelCard) -> Result<(u64, u64), Fault> {
    // Two tokenizers may share a file.
    let files: BTreeMap<&String, (&String, u64)> =
        card.files.iter().map(|(path, file)| (&file.sha256, (path, file.bytes))).collect();
    let bar = client.printer.bytes_bar(files.values().map(|(_, bytes)| bytes).sum());
    let (mut sent, mut there) = (0, 0);
    for (sha256, (path, bytes)) in files {
        bar.set_message(path.clone());
        let target = format!("/v1/models/{}/files/{sha256}", card.name);
        if client.call(&Request::new(Method::HEAD, &target))?.status != 404 {
            there += bytes;
        } else {
            let mut request = Request::new(Method::PUT, &target);
            request.headers = vec![("content-type", "application/octet-stream".into())];
            client.call_with(&request, &|| open(folder, path, bytes, &bar, sent + there))?;
            sent += bytes;
        }
        bar.set_position(sent + there);
    }
    bar.finish_and_clear();
    Ok((sent, there))
}

/// A file of the model, for one try.
fn open(
    folder: &Folder,
    path: &str,
    bytes: u64,
    bar: &ProgressBar,
    done: u64,
) -> Result<Payload, Fault> {
    bar.set_position(done);
    let from = |place: PathBuf| -> Result<Box<dyn Read + Send>, Fault> {
        let file = File::open(&place).map_err(|e| Fault::io("read", &place, &e))?;
        Ok(Box::new(bar.wrap_read(file.take(bytes))))
    };
    let reader = match folder {
        Folder::Directory(root) => from(root.join(path))?,
        Folder::SingleFile(file) => from(file.clone())?,
        Folder::Embedded { files, .. } => {
            let found = files.iter().find(|(name, _)| *name == path);
            let content = found.map(|(_, content)| *content).unwrap_or_default();
            Box::new(bar.wrap_read(content))
        }
    };
    Ok(Payload::Stream { reader, bytes: Some(bytes) })
}
