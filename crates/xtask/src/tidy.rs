//! House rules that no other tool checks, over the files that git knows.
//!
//! Not formatting, lints or broken links between items: rustfmt, clippy and rustdoc find those.

mod links;

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::project::Project;

/// The longest Rust file.
const LINES_MAX: usize = 600;
/// A header begins in one of so many lines.
const HEADER_LINES: usize = 3;

/// What must not be left in Rust files. In two parts, so that this file does not find itself.
const LEFT_OVERS: &[(&str, &str)] = &[
    (concat!("to", "do!("), "write what is missing"),
    (concat!("unimple", "mented!("), "write what is missing"),
    (concat!("#[ig", "nore"), "mend the test or take it out: a test that never runs shows nothing"),
    (concat!("FIX", "ME"), "mend it, or open an issue and take the mark out"),
    (concat!("XX", "X"), "mend it, or open an issue and take the mark out"),
];

/// A test that takes long: `cargo xtask test --all` runs it.
const LONG: &str = concat!("#[ig", "nore = \"long: ");

const SLEEP: &str = concat!("thread::", "sleep");

/// A broken rule.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    path: String,
    /// From 1; `None` where it is about the whole file.
    line: Option<usize>,
    /// What is wrong and what to do.
    message: String,
}

impl Finding {
    fn new(path: &str, line: Option<usize>, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.path, self.message),
            None => write!(f, "{}: {}", self.path, self.message),
        }
    }
}

/// Checks every rule and prints what breaks one.
pub(crate) fn run(project: &Project) -> Result<()> {
    let listed = project.git(&["ls-files", "-z"]);
    let listed = listed.context("the house rules are checked in a git checkout")?;
    let paths: Vec<&str> = listed.split('\0').filter(|path| !path.is_empty()).collect();
    if !paths.contains(&"Cargo.toml") {
        bail!("git does not know the files of this checkout: `git ls-files` lacks Cargo.toml");
    }
    let mut findings = Vec::new();
    for path in paths.iter().copied().filter(|path| is_read(path)) {
        let file = project.path(path);
        // Taken away but not yet committed.
        if !file.exists() {
            continue;
        }
        let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {path}"))?;
        findings.extend(check(path, &text, &|beside| project.path(beside).exists()));
    }
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => Ok(()),
        1 => bail!("1 house rule is broken"),
        n => bail!("{n} house rules are broken"),
    }
}

fn is_read(path: &str) -> bool {
    path.ends_with(".rs") || is_document(path) || is_manifest(path)
}

/// Documents whose links are checked.
fn is_document(path: &str) -> bool {
    let in_docs = path.strip_prefix("docs/").is_some_and(|name| !name.contains('/'));
    matches!(path, "README.md" | "CHANGELOG.md") || in_docs && path.ends_with(".md")
}

fn is_manifest(path: &str) -> bool {
    path.starts_with("crates/") && path.ends_with("/Cargo.toml")
}

/// What is wrong with a file; `exists` is asked for paths from the root.
fn check(path: &str, text: &str, exists: &dyn Fn(&Path) -> bool) -> Vec<Finding> {
    if path.ends_with(".rs") {
        rust(path, text)
    } else if is_manifest(path) {
        manifest(path, text)
    } else {
        document(path, text, exists)
    }
}

fn rust(path: &str, text: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    let header = text.lines().take(HEADER_LINES).any(|line| line.starts_with("//!"));
    if path.starts_with("crates/") && !header {
        found.push(Finding::new(path, Some(1), "begin with `//!`: what the file is for"));
    }
    let lines = text.lines().count();
    if lines > LINES_MAX {
        let message = format!("{lines} lines: part it into files of at most {LINES_MAX}");
        found.push(Finding::new(path, None, message));
    }
    let tests = first_test_line(path, text);
    for (i, line) in text.lines().enumerate() {
        for (left_over, what_to_do) in LEFT_OVERS {
            if line.contains(left_over) && !line.contains(LONG) {
                let message = format!("`{left_over}`: {what_to_do}");
                found.push(Finding::new(path, Some(i + 1), message));
            }
        }
        if line.contains(SLEEP) && tests.is_some_and(|first| i >= first) {
            let message = format!("`{SLEEP}` in a test: wait for what happens, not for time");
            found.push(Finding::new(path, Some(i + 1), message));
        }
    }
    found
}

/// From which line on, counted from 0, a file is tests.
fn first_test_line(path: &str, text: &str) -> Option<usize> {
    if path.contains("/tests/") || path.ends_with("/tests.rs") {
        return Some(0);
    }
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.windows(2).position(|two| two[0] == "#[cfg(test)]" && two[1].starts_with("mod "))
}

/// A crate that others may take needs a description; one that is not published is for us.
fn manifest(path: &str, text: &str) -> Vec<Finding> {
    let lines = || text.lines().map(str::trim);
    let value = |key: &str| {
        let values =
            lines().filter_map(move |line| line.strip_prefix(key)?.trim().strip_prefix('='));
        values.map(str::trim).next()
    };
    let described = value("description").is_some_and(|text| text.trim_matches('"').len() > 1);
    if value("publish") == Some("false") || described {
        return Vec::new();
    }
    let message = "give the crate a `description`, or `publish = false` if it is no one else's";
    vec![Finding::new(path, None, message)]
}

fn document(path: &str, text: &str, exists: &dyn Fn(&Path) -> bool) -> Vec<Finding> {
    let folder = Path::new(path).parent().unwrap_or(Path::new(""));
    let broken = links::relative(text).into_iter().filter(|(_, target)| {
        // As on the web, a leading slash is the root of the project.
        match target.strip_prefix('/') {
            Some(from_root) => !exists(Path::new(from_root)),
            None => !exists(&folder.join(target)),
        }
    });
    let finding = |(line, target)| {
        Finding::new(path, Some(line), format!("`{target}` does not exist: mend the link"))
    };
    broken.map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "//! What for.\n";

    /// Line and message of what is wrong; only `README.md` and `docs/images/a.png` exist.
    fn findings(path: &str, text: &str) -> Vec<(Option<usize>, String)> {
        let exists = |path: &Path| {
            let there = ["README.md", "docs/images/a.png", "docs/../README.md"];
            there.iter().any(|file| Path::new(file) == path)
        };
        let found = check(path, text, &exists);
        found.into_iter().map(|finding| (finding.line, finding.message)).collect()
    }

    #[track_caller]
    fn assert_finds(path: &str, text: &str, line: Option<usize>, message: &str) {
        let found = findings(path, text);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, line, "{found:?}");
        assert!(found[0].1.contains(message), "{found:?}");
    }

    #[test]
    fn a_crates_file_needs_a_header() {
        assert_finds("crates/a/src/b.rs", "fn main() {}\n", Some(1), "//!");
        assert_finds("crates/a/src/b.rs", "\n\n\n//! Late.\n", Some(1), "//!");
        assert_eq!(findings("crates/a/src/b.rs", "#![allow(x)]\n\n//! In time.\n"), []);
        assert_eq!(findings("build.rs", "fn main() {}\n"), []);
    }

    #[test]
    fn a_file_must_not_be_too_long() {
        let lines = |n: usize| HEADER.to_owned() + &"\n".repeat(n - 1);
        assert_finds("crates/a/src/b.rs", &lines(601), None, "601 lines");
        assert_eq!(findings("crates/a/src/b.rs", &lines(600)), []);
    }

    #[test]
    fn each_left_over_is_found() {
        assert_eq!(LEFT_OVERS.len(), 5);
        for (left_over, _) in LEFT_OVERS {
            let text = format!("{HEADER}\nfn main() {{\n    {left_over}\n}}\n");
            assert_finds("crates/a/src/b.rs", &text, Some(4), left_over);
        }
    }

    #[test]
    fn a_test_may_be_left_to_those_who_have_time() {
        let test = format!("#[test]\n{LONG}an hour\"]\nfn t() {{}}\n");
        assert_eq!(findings("crates/a/src/b.rs", &format!("{HEADER}\n{test}")), []);
    }

    #[test]
    fn tests_must_not_sleep_but_programs_may() {
        let sleep = format!("std::{SLEEP}(second);\n");
        let program = format!("{HEADER}{sleep}");
        assert_eq!(findings("crates/a/src/b.rs", &program), []);
        assert_finds("crates/a/tests/b.rs", &program, Some(2), "in a test");
        assert_finds("crates/a/src/b/tests.rs", &program, Some(2), "in a test");
        let module = format!("{program}#[cfg(test)]\nmod tests {{\n{sleep}}}\n");
        assert_finds("crates/a/src/b.rs", &module, Some(5), "in a test");
        let item = format!("{HEADER}#[cfg(test)]\nuse a::b;\n{sleep}");
        assert_eq!(findings("crates/a/src/b.rs", &item), []);
    }

    #[test]
    fn links_must_lead_somewhere() {
        assert_finds("README.md", "\n[a](docs/no.md)\n", Some(2), "`docs/no.md`");
        assert_finds("docs/a.md", "![a](a.png)", Some(1), "`a.png`");
        assert_finds("CHANGELOG.md", "[a](/docs/no.md#part)", Some(1), "`/docs/no.md`");
        assert_eq!(
            findings("docs/a.md", "[a](../README.md) ![b](images/a.png) [c](/README.md)"),
            []
        );
    }

    #[test]
    fn public_crates_need_a_description() {
        let path = "crates/a/Cargo.toml";
        assert_finds(path, "[package]\nname = \"a\"\n", None, "description");
        assert_finds(path, "[package]\ndescription = \"\"\n", None, "description");
        assert_eq!(findings(path, "[package]\ndescription = \"What it is.\"\n"), []);
        assert_eq!(findings(path, "[package]\npublish = false\n"), []);
    }

    #[test]
    fn only_what_has_rules_is_read() {
        for path in ["a.rs", "README.md", "docs/a.md", "crates/a/Cargo.toml"] {
            assert!(is_read(path), "{path}");
        }
        for path in ["golden/README.md", "docs/images/a.md", "Cargo.toml", "models/a.bin"] {
            assert!(!is_read(path), "{path}");
        }
    }

    #[test]
    fn a_finding_says_where() {
        let finding = Finding::new("a.rs", Some(3), "mend it");
        assert_eq!(finding.to_string(), "a.rs:3: mend it");
        assert_eq!(Finding::new("a.rs", None, "mend it").to_string(), "a.rs: mend it");
    }
}
