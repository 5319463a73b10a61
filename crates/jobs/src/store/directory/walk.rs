//! Lists a directory in the order of its keys' bytes.

use std::fs;
use std::io;
use std::path::Path;

use super::super::{PAGE_KEYS, Page, RESERVED, StoreError};

/// As [`Store::list`](super::Store::list).
pub(super) fn list(
    root: &Path,
    prefix: &str,
    after: Option<&str>,
    folders: bool,
) -> Result<Page, StoreError> {
    let start = prefix.rfind('/').map_or("", |end| &prefix[..=end]);
    // A prefix cannot climb out of the root.
    if start.split('/').any(|part| matches!(part, "." | "..")) || start.starts_with('/') {
        return Ok(Page::default());
    }
    let mut walk = Walk { root, prefix, after, folders, keys: Vec::new() };
    walk.folder(start).map_err(|error| StoreError::Unavailable {
        key: prefix.to_owned(),
        message: format!("cannot list: {error}"),
    })?;
    let mut keys = walk.keys;
    let more = keys.len() > PAGE_KEYS;
    keys.truncate(PAGE_KEYS);
    Ok(Page { keys, more })
}

struct Walk<'a> {
    root: &'a Path,
    prefix: &'a str,
    after: Option<&'a str>,
    folders: bool,
    keys: Vec<String>,
}

impl Walk<'_> {
    /// Goes through a folder, named with its `/`. Deep keys are bounded by their length.
    fn folder(&mut self, folder: &str) -> io::Result<()> {
        for entry in entries(self.root, folder)? {
            // One more than a page shows that there is more.
            if self.keys.len() > PAGE_KEYS {
                break;
            }
            if !entry.starts_with(self.prefix) {
                continue;
            }
            let behind = self.after.is_none_or(|after| entry.as_str() > after);
            if !entry.ends_with('/') {
                if behind {
                    self.keys.push(entry);
                }
            } else if self.folders {
                // A folder may be left that holds nothing.
                if behind && holds_something(self.root, &entry)? {
                    self.keys.push(entry);
                }
            } else if behind || self.after.is_some_and(|after| after.starts_with(&entry)) {
                self.folder(&entry)?;
            }
        }
        Ok(())
    }
}

/// Names in a folder as they begin keys, those of folders with a `/`: so they sort as keys do.
fn entries(root: &Path, folder: &str) -> io::Result<Vec<String>> {
    let read = match fs::read_dir(root.join(folder)) {
        Ok(read) => read,
        Err(error) if super::files::is_absent(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut entries = Vec::new();
    for entry in read {
        let entry = entry?;
        // What is not UTF-8 was put there by somebody else.
        let Ok(name) = entry.file_name().into_string() else { continue };
        if folder.is_empty() && name == RESERVED {
            continue;
        }
        let slash = if entry.file_type()?.is_dir() { "/" } else { "" };
        entries.push(format!("{folder}{name}{slash}"));
    }
    entries.sort_unstable();
    Ok(entries)
}

fn holds_something(root: &Path, folder: &str) -> io::Result<bool> {
    for entry in entries(root, folder)? {
        if !entry.ends_with('/') || holds_something(root, &entry)? {
            return Ok(true);
        }
    }
    Ok(false)
}
