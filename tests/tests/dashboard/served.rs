//! `excite serve` for one test.

use std::time::Duration;

use excite_tests::{Folder, Program, built};
use serde_json::Value;

/// Its first start puts the model into the store.
const START_LIMIT: Duration = Duration::from_secs(90);

/// A running `excite serve`.
pub(crate) struct Served {
    // Before the folder, for it must not write in it when that goes.
    _program: Program,
    /// Where it is.
    pub(crate) url: String,
    _folder: Folder,
}

impl Served {
    /// Starts it on a free port.
    pub(crate) async fn start() -> Self {
        let folder = Folder::temporary("dashboard").unwrap();
        let data = folder.path().join("data").display().to_string();
        let args = ["serve", "--json", "--listen", "127.0.0.1:0", "--data", &data];
        let none: [(&str, &str); 0] = [];
        let mut program = Program::start(built("excite").unwrap(), args, none).unwrap();
        let address = |line: &str| line.starts_with('{') && line.contains("\"url\"");
        let line = program.wait_for_line("its address", address, START_LIMIT).await.unwrap();
        let said: Value = serde_json::from_str(&line).unwrap();
        let url = said["url"].as_str().unwrap().to_owned();
        Self { _program: program, url, _folder: folder }
    }
}
