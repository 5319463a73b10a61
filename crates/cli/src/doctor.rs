//! `excite doctor`: whether this machine and the server are well, and what to do if not.

mod chosen;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use excite_diffusion::{Compute, DeviceChoice, Outline};
use excite_jobs::api::{Check, Doctor};
use excite_service::memory;
use serde_json::json;

use crate::args::DoctorArgs;
use crate::client::Client;
use crate::fault::{Fault, Status};
use crate::model::bytes;
use crate::models::{self, BUNDLED};
use crate::printer::Printer;

pub(crate) fn run(
    args: &DoctorArgs,
    printer: &Printer,
    interrupted: &AtomicBool,
) -> Result<Status, Fault> {
    let client = Client::new(&args.server, printer, interrupted)?;
    let chosen = chosen::Chosen::find(args.quick)?;
    let mut machine = vec![device()];
    machine.extend(chosen.checks());
    machine.extend([memory(), models_folder(), bundled()]);
    show("this machine", &machine, printer);
    let server = server(&client, args.server.server.is_some())?;
    if let Some(server) = &server {
        show(client.address(), &server.checks, printer);
    } else {
        let address = client.address();
        printer.note(&format!("no server at {address}; --server or EXCITE_SERVER names one"));
    }
    let ok = machine.iter().all(|check| check.ok) && server.as_ref().is_none_or(|s| s.ok);
    printer.object(&json!({
        "v": 1, "ok": ok, "machine": machine, "chosen": chosen.json(),
        "server": server.map(|s| json!({
            "address": client.address(), "ok": s.ok, "checks": s.checks,
        })),
    }));
    Ok(if ok { Status::Done } else { Status::Failed })
}

/// What the server says of itself; `None` if there is none and nobody named one.
fn server(client: &Client<'_>, named: bool) -> Result<Option<Doctor>, Fault> {
    match client.get::<Doctor>("/v1/doctor") {
        Ok(mut doctor) => {
            doctor.ok &= doctor.checks.iter().all(|check| check.ok);
            Ok(Some(doctor))
        }
        Err(fault) if fault.status == Status::Interrupted => Err(fault),
        Err(fault) if !named && fault.code == "server_unreachable" => Ok(None),
        Err(fault) => {
            let check = failed("server", fault.message, fault.remedy);
            Ok(Some(Doctor { ok: false, checks: vec![check] }))
        }
    }
}

fn show(title: &str, checks: &[Check], printer: &Printer) {
    printer.result(&format!("{title}:"));
    let width = checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
    for check in checks {
        let mark = if check.ok { "ok  " } else { "FAIL" };
        printer.result(&format!("  {mark}  {:<width$}  {}", check.name, check.detail));
        if let Some(remedy) = check.remedy.as_ref().filter(|_| !check.ok) {
            printer.result(&format!("        {:<width$}  help: {remedy}", ""));
        }
    }
}

fn well(name: &str, detail: String) -> Check {
    Check { name: name.into(), ok: true, detail, remedy: None }
}

fn failed(name: &str, detail: String, remedy: String) -> Check {
    Check { name: name.into(), ok: false, detail, remedy: Some(remedy) }
}

fn device() -> Check {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cores = if cores == 1 { "1 core".to_owned() } else { format!("{cores} cores") };
    // What `--device auto` takes.
    let chosen = Compute::choose(DeviceChoice::Auto, None);
    match chosen.and_then(|compute| Ok((compute.free_bytes()?, compute))) {
        Ok((None, compute)) => well("device", format!("{}, {cores}", compute.kind())),
        Ok((Some(free), compute)) => {
            let (name, kind, free) = (compute.name(), compute.kind(), bytes(free));
            well("device", format!("{name} ({kind}), {free} free; {cores}"))
        }
        Err(error) => failed("device", error.to_string(), error.advice().1),
    }
}

fn memory() -> Check {
    let (total, available) = (memory::total_bytes(), memory::available_bytes());
    let detail = match (total, available) {
        (Some(total), Some(available)) => format!("{}, {} free", bytes(total), bytes(available)),
        (Some(total), None) => bytes(total),
        (None, _) => "the system does not tell".to_owned(),
    };
    well("memory", detail)
}

/// Where fetched models are kept: it may be absent, but must not be unreadable.
fn models_folder() -> Check {
    const NAME: &str = "models folder";
    let read = models::home().and_then(|home| {
        let count = count_folders(&home).map_err(|e| Fault::io("read the folder", &home, &e))?;
        Ok((home, count))
    });
    match read {
        Ok((home, None)) => well(NAME, format!("{} is not there yet", home.display())),
        Ok((home, Some(count))) => well(NAME, format!("{}, {count} fetched", home.display())),
        Err(fault) => failed(NAME, fault.message, "Set EXCITE_MODELS to a folder of yours.".into()),
    }
}

fn count_folders(home: &Path) -> std::io::Result<Option<usize>> {
    match std::fs::read_dir(home) {
        Ok(entries) => {
            let name = |entry: std::io::Result<std::fs::DirEntry>| {
                entry.map(|entry| entry.file_name().to_string_lossy().into_owned())
            };
            let names: Vec<String> = entries.map(name).collect::<std::io::Result<_>>()?;
            Ok(Some(names.iter().filter(|name| models::is_name(name)).count()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn bundled() -> Check {
    match models::find(BUNDLED).and_then(|folder| Ok(Outline::read(&folder)?)) {
        Ok(outline) => {
            let (family, side, size) = (outline.family, outline.side, bytes(outline.file_bytes));
            well("bundled model", format!("{BUNDLED}: {family}, {side} pixels, {size}"))
        }
        Err(fault) => failed("bundled model", fault.message, fault.remedy),
    }
}
