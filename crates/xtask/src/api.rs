//! The API against its own description: `excite serve` with a token, a batch with images, and
//! Schemathesis, which asks for all that the description allows and for much that it does not.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use anyhow::{Context, Result};

use crate::peers;
use crate::project::{self, Project};

/// What Schemathesis is told about this API.
const CONFIG: &str = "tests/peers/api/schemathesis.toml";
/// Where the server keeps its data, emptied before.
const FOLDER: &str = "target/api-test";
/// The batch that is there: its jobs give the paths of the others something to find.
const LINE: &str = r#"{"prompt": "a cat and a frog", "steps": 2, "seeds": "0..2"}"#;

/// Keeps the description, and checks that it is one.
const FETCH_AND_VALIDATE: &str = r#"
import json, sys, urllib.request
from openapi_spec_validator import validate

document = urllib.request.urlopen(sys.argv[1] + "/v1/openapi.json", timeout=30).read()
open(sys.argv[2], "wb").write(document)
validate(json.loads(document))
"#;

/// Stops the server with its test.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Validates the description, then fuzzes by it; without a Python for that, says so.
pub(crate) fn fuzz(project: &Project) -> Result<()> {
    let Some(python) = peers::SCHEMATHESIS.python(project)? else {
        println!("skipped: there is no Schemathesis");
        return Ok(());
    };
    project::run(&mut project.cargo(&["test", "--workspace", "--no-run", "--quiet"]))?;
    let excite = project.built("debug", "excite")?;
    let folder = project.path(FOLDER);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).context("the folder of the last run")?;
    }
    std::fs::create_dir_all(&folder).context("a folder for the server")?;
    let tokens = folder.join("tokens.txt");
    let mut token = project.command(&excite);
    token.args(["token", "new", "--json", "--name", "fuzz", "--scope", "admin", "--file"]);
    let token = project::output(token.arg(&tokens))?;
    let token = field(&token, "token")?;

    let mut serve = project.command(&excite);
    serve.args(["serve", "--json", "--listen", "127.0.0.1:0", "--tokens"]).arg(&tokens);
    serve.arg("--data").arg(folder.join("data"));
    let mut serve = Served(serve.stdout(Stdio::piped()).spawn().context("excite serve")?);
    let mut said = String::new();
    let lines = serve.0.stdout.take().context("what excite serve says")?;
    BufReader::new(lines).read_line(&mut said).context("what excite serve says")?;
    let address = field(&said, "url")?;

    let lines = folder.join("lines.jsonl");
    std::fs::write(&lines, LINE).context("a file of lines")?;
    let mut submit = project.command(&excite);
    submit.args(["submit", "--watch", "--attention", "--trace", "--server", &address]).arg(&lines);
    project::run(submit.env("EXCITE_TOKEN", &token).stdout(Stdio::null()))?;

    let mut validate = project.command(&python);
    let description = folder.join("openapi.json");
    validate.args(["-c", FETCH_AND_VALIDATE, &address]).arg(&description);
    project::run(&mut validate)?;
    let mut run = project.command(python);
    run.env("HYPOTHESIS_STORAGE_DIRECTORY", folder.join("hypothesis"));
    run.args(["-m", "schemathesis.cli", "--config-file", CONFIG, "run", "--no-color"]);
    project::run(run.env("EXCITE_TOKEN", &token).arg(format!("{address}/v1/openapi.json")))
}

fn field(json: &str, name: &str) -> Result<String> {
    let document: serde_json::Value = serde_json::from_str(json).context("a JSON object")?;
    let text = document[name].as_str().with_context(|| format!("no `{name}` in {document}"))?;
    Ok(text.to_owned())
}
