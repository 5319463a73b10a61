//! Which names may become parts of an address or of a path on disk.
//!
//! Whatever a listing says is a stranger's word: a path that leaves the folder is never joined.

use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};
use crate::limits::PATH_BYTES_MAX;

/// Ending of a file that is not yet complete.
pub(crate) const PART: &str = ".part";

/// `folder` joined with a path from a listing.
///
/// # Errors
/// If the path is empty, too long, absolute, leaves the folder, or has characters that some
/// system takes for separators.
pub(crate) fn join(folder: &Path, path: &str) -> Result<PathBuf> {
    check(path)?;
    Ok(folder.join(path))
}

/// Whether a path from a listing stays inside a folder.
///
/// # Errors
/// As [`join`].
pub(crate) fn check(path: &str) -> Result<()> {
    let unsafe_path = |reason| Err(Error::UnsafePath { path: path.to_owned(), reason });
    if path.is_empty() || path.len() > PATH_BYTES_MAX {
        return unsafe_path("it is empty or too long");
    }
    if path.contains('\\') || path.chars().any(char::is_control) {
        return unsafe_path("it has a backslash or a control character");
    }
    // Of `C:x` Windows makes another drive, of `x:y` a hidden stream.
    if cfg!(windows) && path.contains(':') {
        return unsafe_path("it has a colon");
    }
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return unsafe_path("it is absolute or leaves the folder");
    }
    if !Path::new(path).components().all(|part| matches!(part, Component::Normal(_))) {
        return unsafe_path("it is absolute or leaves the folder");
    }
    Ok(())
}

/// Checks that a repository is `owner/name`.
///
/// # Errors
/// If it is not.
pub(crate) fn check_repository(repository: &str) -> Result<()> {
    let good = |part: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !part.is_empty()
            && part.len() <= 96
            && part.chars().all(known)
            && !part.starts_with(['.', '-'])
            && !part.contains("..")
    };
    match repository.split_once('/') {
        Some((owner, name)) if good(owner) && good(name) => Ok(()),
        _ => Err(Error::Name {
            what: "repository",
            value: repository.to_owned(),
            message: "it must be `owner/name` in letters, digits, `-`, `_` and `.`",
        }),
    }
}

/// Checks that a revision can be a branch, a tag or a commit.
///
/// # Errors
/// If it cannot.
pub(crate) fn check_revision(revision: &str) -> Result<()> {
    let bad = revision.is_empty()
        || revision.len() > 255
        || revision.contains("..")
        || revision.chars().any(|c| c.is_control() || c.is_whitespace());
    if !bad {
        return Ok(());
    }
    Err(Error::Name {
        what: "revision",
        value: revision.to_owned(),
        message: "it must be a branch, a tag or a commit",
    })
}

/// Percent-encodes everything but RFC 3986's unreserved characters and those in `keep`.
pub(crate) fn encode(text: &str, keep: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || "-._~".contains(c) || keep.contains(c) {
            out.push(c);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_could_leave_the_folder_is_refused() {
        let long = "a/".repeat(PATH_BYTES_MAX) + "a";
        for path in [
            "",
            "/etc/passwd",
            "../a",
            "a/../b",
            "a/..",
            "..",
            ".",
            "./a",
            "a//b",
            "a/",
            "a\\b",
            "..\\a",
            "a\0b",
            "a\nb",
            "a\u{85}b",
            long.as_str(),
        ] {
            let refused = join(Path::new("folder"), path);
            assert!(matches!(refused, Err(Error::UnsafePath { .. })), "{path:?}: {refused:?}");
        }
        for path in ["a", "unet/config.json", "..a/b..", "a b/é (1).png", ".gitattributes"] {
            assert_eq!(join(Path::new("folder"), path).unwrap(), Path::new("folder").join(path));
        }
    }

    #[test]
    fn names_are_checked_before_they_become_addresses() {
        for good in ["a/b", "stable-diffusion-v1-5/stable-diffusion-v1-5", "A_1/b.c"] {
            check_repository(good).unwrap();
        }
        for bad in ["", "a", "a/", "/b", "a/b/c", "../b", "a/..", "a b/c", "a/b?c", "a/b#c", ".a/b"]
        {
            assert!(check_repository(bad).is_err(), "{bad}");
        }
        for good in ["main", "refs/pr/1", "v1.0", "fp16"] {
            check_revision(good).unwrap();
        }
        for bad in ["", "a b", "a\n", "../../x"] {
            assert!(check_revision(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_are_encoded() {
        assert_eq!(encode("refs/pr/1", ""), "refs%2Fpr%2F1");
        assert_eq!(encode("a b/é?#%.txt", "/"), "a%20b/%C3%A9%3F%23%25.txt");
    }
}
