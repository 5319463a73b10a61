//! `target/cuda/pack`: release builds of what `tests/gpu/run` starts, for a machine without Rust.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use super::Build;
use crate::project;

/// Names in the pack, and what cargo calls the program; tests have a hash behind their names.
const PROGRAMS: [(&str, &str, &[&str]); 5] = [
    ("excite", "excite", &["bin"]),
    ("diffusion-unit-tests", "excite_diffusion", &["lib"]),
    ("diffusion-tests", "pipeline", &["test"]),
    ("random-model", "random_model", &["example"]),
    ("image-seconds", "image_seconds", &["example"]),
];

/// Builds, and copies each program without its symbols.
pub(super) fn make(build: &Build<'_>, pack: &Path) -> Result<()> {
    let release = ["--release", "--message-format", "json-render-diagnostics"];
    let excite = [&["-p", "excite"][..], &release].concat();
    let diffusion = ["-p", "excite-diffusion"];
    let tests = [&diffusion[..], &["--lib", "--test", "pipeline", "--no-run"], &release].concat();
    let examples = [&diffusion[..], &["--examples"], &release].concat();
    let mut built = Vec::new();
    for (command, args) in [("build", excite), ("test", tests), ("build", examples)] {
        let printed = project::output(&mut build.command(command, &args)?)?;
        built.extend(printed.lines().filter_map(|line| serde_json::from_str(line).ok()));
    }
    std::fs::create_dir_all(pack).context("cannot make the pack")?;
    let mut bytes = 0;
    for (name, target, kinds) in PROGRAMS {
        let program = program(&built, target, kinds)
            .with_context(|| format!("cargo built no program `{target}`"))?;
        let copy = pack.join(name);
        let mut strip = build.project.command("strip");
        project::run(strip.arg("-o").arg(&copy).arg(&program))?;
        bytes += std::fs::metadata(&copy).context("a program of the pack")?.len();
    }
    // Tests look for models and golden data where they were compiled.
    let root = build.project.path("");
    let root = root.to_str().context("the path of the checkout is no Unicode")?;
    std::fs::write(pack.join("built-in"), root.trim_end_matches('/'))
        .context("cannot write the pack")?;
    let commit = build.project.git(&["describe", "--always", "--dirty"])?;
    std::fs::write(pack.join("commit"), commit).context("cannot write the pack")?;
    println!("{} programs, {:.1} MB, in {}", PROGRAMS.len(), bytes as f64 / 1e6, pack.display());
    Ok(())
}

/// The program that cargo's messages name.
fn program(built: &[Value], target: &str, kinds: &[&str]) -> Option<PathBuf> {
    let is_it = |message: &&Value| {
        let kind = message["target"]["kind"][0].as_str().unwrap_or_default();
        message["target"]["name"] == target
            && kinds.contains(&kind)
            && message["executable"].is_string()
    };
    built.iter().find(is_it)?["executable"].as_str().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn programs_are_found_in_what_cargo_says() {
        let message = |name: &str, kind: &str, executable: Value| {
            json!({ "executable": executable,
            "target": { "name": name, "kind": [kind] } })
        };
        let built = [
            message("pipeline", "bench", json!("/bench")),
            message("pipeline", "test", Value::Null),
            message("pipeline", "test", json!("/test")),
        ];
        assert_eq!(program(&built, "pipeline", &["test"]), Some(PathBuf::from("/test")));
        assert_eq!(program(&built, "pipeline", &["bin"]), None);
    }
}
