//! Folders for what servers write, taken away with the test or, if that was killed, by the next.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Once;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use tempfile::TempDir;

/// A folder; one that we made for ourselves goes when this does.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _temporary: Option<TempDir>,
}

impl Folder {
    /// A new folder, empty.
    pub fn temporary(name: &str) -> Result<Self> {
        static SWEPT: Once = Once::new();
        let parent = parent()?;
        SWEPT.call_once(|| sweep(&parent));
        // The process is in the name, so that others see whether it still runs.
        let prefix = format!("{}-{name}-", process::id());
        let temporary = tempfile::Builder::new().prefix(&prefix).tempdir_in(&parent);
        let temporary =
            temporary.with_context(|| format!("cannot make a folder in {}", parent.display()))?;
        Ok(Self { path: temporary.path().to_owned(), _temporary: Some(temporary) })
    }

    /// A folder that stays, made if it is not there.
    pub fn kept(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        // Servers do not share our working directory for sure.
        let path = fs::canonicalize(path).with_context(|| format!("no {}", path.display()))?;
        Ok(Self { path, _temporary: None })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A folder in it, made if it is not there.
    pub(crate) fn sub(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }

    /// Writes a file in it.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

/// Where all of them lie; short, for the length of a socket's path is limited.
pub(crate) fn parent() -> Result<PathBuf> {
    // Not one for all users, who could not write in each other's.
    let user = nix::unistd::Uid::effective();
    let path = std::env::temp_dir().join(format!("excite-tests-{user}"));
    fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}

/// Takes away what tests that were killed left. Their servers ended with them.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        if is_stale(&entry.file_name().to_string_lossy()) {
            // Another test may be taking it away as well.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn is_stale(name: &str) -> bool {
    let owner = name.split_once('-').and_then(|(owner, _)| owner.parse().ok());
    owner.is_some_and(|owner| kill(Pid::from_raw(owner), None) == Err(Errno::ESRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_of_processes_that_are_gone_are_stale() {
        assert!(!is_stale(&format!("{}-redis-x", process::id())));
        // Above the highest process number that Linux gives.
        assert!(is_stale("2000000000-redis-x"));
        assert!(!is_stale("ports"));
    }

    #[test]
    fn a_temporary_folder_goes_and_a_kept_one_stays() {
        let outer = Folder::temporary("outer").unwrap();
        let kept = Folder::kept(&outer.path().join("kept")).unwrap().path().to_owned();
        assert!(kept.is_dir());
        let path = outer.path().to_owned();
        drop(outer);
        assert!(!path.exists());
    }
}
