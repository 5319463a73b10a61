//! axe-core, which finds what keeps people from using a page.
//!
//! Version 4.14.1 from npm, by Deque Systems, under the Mozilla Public License 2.0. It is fetched into
//! `target` and checked, never kept with the project and no part of the program.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use excite_tests::browser::Browser;
use serde_json::json;
use sha2::{Digest, Sha512};

const PACKAGE: &str = "axe-core@4.14.1";
/// As `npm view axe-core@4.14.1 dist.integrity` shows it.
const INTEGRITY: &str =
    "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==";

/// What hinders people most, with the places where it does.
const FAULTS: &str = "
return axe.run(document, {resultTypes: ['violations'], preload: false}).then(({violations}) => violations
  .filter(({impact}) => ['serious', 'critical'].includes(impact))
  .map(({id, help, nodes}) => `${id}: ${help}: ${nodes.map((node) => node.target.join(' ')).join(', ')}`));
";

/// The library.
pub(crate) struct Axe {
    source: String,
}

impl Axe {
    /// Fetches it, unless it is there; `None`, and a note, where there is no npm.
    pub(crate) fn fetch() -> Option<Self> {
        if !Command::new("npm").arg("--version").output().is_ok_and(|npm| npm.status.success()) {
            eprintln!("skipped: axe-core finds no fault, for there is no npm to fetch it with");
            return None;
        }
        Some(Self { source: source().unwrap() })
    }

    /// What is wrong with the page. It measures with styles of its own, which the page's policy forbids:
    /// what the console said is to be read before, and is forgotten here.
    pub(crate) async fn faults(&self, browser: &Browser) -> Vec<String> {
        let script = format!("{}\n{FAULTS}", self.source);
        let found = browser.run(&script, json!([])).await.unwrap();
        browser.complaints().await.unwrap();
        serde_json::from_value(found).unwrap()
    }
}

fn source() -> Result<String> {
    let folder = super::target().join(PACKAGE);
    let kept = folder.join("package/axe.min.js");
    if !kept.exists() {
        std::fs::create_dir_all(&folder)?;
        let npm = run(&folder, "npm", &["pack", "--silent", "--ignore-scripts", PACKAGE])?;
        let archive = folder.join(npm.trim());
        let sum = Sha512::digest(std::fs::read(&archive).context("what npm fetched")?);
        let sum = base64::engine::general_purpose::STANDARD.encode(sum);
        ensure!(sum == INTEGRITY, "{PACKAGE} has sha512-{sum}, not sha512-{INTEGRITY}");
        run(&folder, "tar", &["-xzf", npm.trim()])?;
    }
    std::fs::read_to_string(&kept).with_context(|| format!("no {}", kept.display()))
}

fn run(folder: &Path, program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program).args(args).current_dir(folder).output()?;
    if !output.status.success() {
        bail!("{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}
