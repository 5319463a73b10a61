//! `excite model list`.

use excite_diffusion::Outline;
use excite_hub::Source;
use serde_json::json;

use super::bytes;
use crate::fault::{Fault, Status};
use crate::models::{self, BUNDLED};
use crate::printer::Printer;

pub(super) fn run(printer: &Printer) -> Result<Status, Fault> {
    let home = models::home()?;
    let mut names = vec![BUNDLED.to_owned()];
    match std::fs::read_dir(&home) {
        Ok(entries) => {
            let mut found: Vec<String> = entries
                .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
                .filter(|name| models::is_name(name))
                .collect();
            found.sort();
            names.append(&mut found);
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(Fault::io("read the folder", &home, &error)),
    }
    let width = names.iter().map(String::len).max().unwrap_or(0);
    for name in names {
        let source = Source::read(&home.join(&name)).ok();
        let from = match &source {
            Some(source) => format!("{}@{:.10}", source.repository, source.commit),
            None if name == BUNDLED => "part of the program".to_owned(),
            None => String::new(),
        };
        match models::find(&name).and_then(|folder| Ok(Outline::read(&folder)?)) {
            Ok(outline) => {
                let side = outline.side;
                let (size, family) = (bytes(outline.file_bytes), outline.family);
                printer
                    .result(&format!("{name:<width$}  {family:<6}  {side:>4}  {size:>8}  {from}"));
                printer.object(&json!({
                    "v": 1, "name": name, "family": family, "side": side,
                    "file_bytes": outline.file_bytes,
                    "repository": source.as_ref().map(|s| &s.repository),
                    "commit": source.as_ref().map(|s| &s.commit),
                }));
            }
            Err(fault) => {
                printer.result(&format!("{name:<width$}  not usable: {}", fault.message));
                printer.object(&json!({"v": 1, "name": name, "error": fault}));
            }
        }
    }
    printer.note(&format!("fetched models are in {}", home.display()));
    Ok(Status::Done)
}
