//! The crate against a server in this process: every answer that a hub or what lies between may
//! give, and what then is in the folder.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod check;
mod fetch;
mod interrupted;
mod redirect;
mod refused;
mod server;

use std::path::Path;
use std::time::Duration;

use excite_hub::{Error, Hub, Result, Snapshot, Source, Waits};

use crate::server::Server;

/// Nobody asks to stop.
fn never() -> bool {
    false
}

/// A hub at a server, with a token, that does not wait long.
fn hub(server: &Server) -> Hub {
    let waits = Waits {
        attempts: 4,
        backoff: Duration::from_millis(1),
        retry_after_max: Duration::from_secs(2),
        ..Waits::default()
    };
    Hub::new(server.address(), Some("hf_secret".into())).unwrap().with_waits(waits)
}

fn snapshot(server: &Server) -> Snapshot {
    hub(server).snapshot("owner/name", "main", &never).unwrap()
}

/// Fetches every file of the repository.
fn fetch(server: &Server, folder: &Path) -> Result<Source> {
    let snapshot = snapshot(server);
    hub(server).fetch(&snapshot, &snapshot.files, folder, &mut |_| (), &never)
}

/// The names in a folder, in order.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

#[track_caller]
fn code(result: Result<impl std::fmt::Debug, Error>) -> &'static str {
    result.unwrap_err().advice().0
}
