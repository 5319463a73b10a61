//! `excite model show`: what a model is, from its configurations and the headers of its files.

use excite_diffusion::{Folder, Outline};
use excite_hub::Source;
use serde_json::{Value, json};

use super::{bytes, component_lines};
use crate::args::ModelArgs;
use crate::fault::{Fault, Status};
use crate::models;
use crate::printer::Printer;

pub(super) fn run(args: &ModelArgs, printer: &Printer) -> Result<Status, Fault> {
    let folder = models::find(&args.model)?;
    let outline = Outline::read(&folder)?;
    let source = source(&folder);
    let predicts = match outline.velocity {
        Some(true) => "velocity (v_prediction)",
        Some(false) => "noise (epsilon)",
        None => "found out when it is loaded",
    };
    let scheduler = match &outline.scheduler {
        Ok(name) => name.to_string(),
        Err(class) => format!("{class}, which is not supported: name another with --scheduler"),
    };
    let map = outline.map_side;
    let mut size = format!("{0}x{0} pixels, multiples of {1}", outline.side, outline.size_multiple);
    if outline.velocity.is_none() {
        size.push_str(" (768x768 if it predicts velocity)");
    }
    let mut rows = vec![
        ("model", outline.name.clone()),
        ("family", format!("{} ({})", outline.family, outline.class)),
        ("size", size),
        ("maps", format!("{map}x{map} at that size")),
        ("predicts", predicts.to_owned()),
        ("scheduler", scheduler),
        ("on disk", bytes(outline.file_bytes)),
        ("in memory", format!("{} and the images in progress", bytes(outline.memory_bytes()))),
    ];
    if let Some(source) = &source {
        rows.push(("from", format!("{}@{}", source.repository, source.commit)));
        rows.push(("licence", source.licence.clone().unwrap_or_else(|| "not stated".into())));
    }
    for (label, value) in rows {
        printer.result(&format!("{label:<10} {value}"));
    }
    for line in component_lines(&outline.components) {
        printer.result(&line);
    }
    let components: Vec<Value> = outline
        .components
        .iter()
        .map(|(name, stored)| {
            json!({
                "name": name, "tensors": stored.tensors, "parameters": stored.parameters,
                "formats": stored.formats,
            })
        })
        .collect();
    printer.object(&json!({
        "v": 1, "name": outline.name, "family": outline.family, "class": outline.class,
        "side": outline.side, "size_multiple": outline.size_multiple, "map_side": map,
        "velocity": outline.velocity, "scheduler": outline.scheduler.as_ref().ok(),
        "file_bytes": outline.file_bytes, "memory_bytes": outline.memory_bytes(),
        "components": components,
        "repository": source.as_ref().map(|s| &s.repository),
        "commit": source.as_ref().map(|s| &s.commit),
        "licence": source.as_ref().and_then(|s| s.licence.as_ref()),
    }));
    Ok(Status::Done)
}

/// Where a model was fetched from, if it was.
fn source(folder: &Folder) -> Option<Source> {
    match folder {
        Folder::Directory(path) => Source::read(path).ok(),
        Folder::SingleFile(path) => Source::read(path.parent()?).ok(),
        Folder::Embedded { .. } => None,
    }
}
