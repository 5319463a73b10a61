//! The store in a directory: an object is a file, its key the path.
//!
//! A file is written under another name and renamed, so it is there whole or not at all. What
//! writes holds a lock, so that a condition is looked at and the file renamed in one piece; locks
//! are files, so several processes may share a directory (on one machine: locks of network file
//! systems are not trusted). The version of an object is the SHA-256 of its bytes.
//!
//! For laptops: listing sorts a whole folder for every page.

mod files;
mod walk;

use std::fs;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;

use self::files::Files;
use super::{Condition, Etag, Head, Object, Page, RESERVED, Store, StoreError, check_key};

/// A store in a directory.
#[derive(Debug, Clone)]
pub struct DirectoryStore {
    files: Files,
}

impl DirectoryStore {
    /// Opens a directory, and makes it if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Denied`] or [`StoreError::Unsuitable`] if it cannot be made or written to.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let root = path.as_ref().to_path_buf();
        let own = root.join(RESERVED);
        let files = Files { root, temporary: own.join("temporary"), locks: own.join("locks") };
        for folder in [&files.temporary, &files.locks] {
            fs::create_dir_all(folder).map_err(|error| {
                let message = format!("cannot make `{}`: {error}", folder.display());
                StoreError::Unsuitable(message)
            })?;
        }
        files.sweep();
        Ok(Self { files })
    }

    /// Runs blocking work on files where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        key: &str,
        work: impl FnOnce(&Files, &str) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (files, name) = (self.files.clone(), key.to_owned());
        let done = tokio::task::spawn_blocking(move || work(&files, &name)).await;
        done.map_err(|error| StoreError::Unavailable {
            key: key.to_owned(),
            message: format!("the work on files broke off: {error}"),
        })?
    }
}

#[async_trait]
impl Store for DirectoryStore {
    async fn put(&self, key: &str, body: Bytes, condition: Condition) -> Result<Etag, StoreError> {
        check_key(key)?;
        self.blocking(key, move |files, key| files.put(key, &body, &condition)).await
    }

    async fn get(&self, key: &str) -> Result<Option<Object>, StoreError> {
        check_key(key)?;
        self.blocking(key, Files::get).await
    }

    async fn head(&self, key: &str) -> Result<Option<Head>, StoreError> {
        check_key(key)?;
        self.blocking(key, Files::head).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        folders: bool,
    ) -> Result<Page, StoreError> {
        let after = after.map(str::to_owned);
        let list = move |files: &Files, prefix: &str| {
            walk::list(&files.root, prefix, after.as_deref(), folders)
        };
        self.blocking(prefix, list).await
    }

    async fn delete(&self, keys: &[String]) -> Result<(), StoreError> {
        for key in keys {
            check_key(key)?;
        }
        let keys = keys.to_vec();
        let delete =
            move |files: &Files, _: &str| keys.iter().try_for_each(|key| files.delete(key));
        self.blocking("", delete).await
    }

    async fn put_file(&self, key: &str, path: &Path) -> Result<(), StoreError> {
        check_key(key)?;
        let path: PathBuf = path.to_path_buf();
        self.blocking(key, move |files, key| files.put_file(key, &path)).await
    }

    async fn get_file(&self, key: &str, path: &Path) -> Result<bool, StoreError> {
        check_key(key)?;
        let path: PathBuf = path.to_path_buf();
        self.blocking(key, move |files, key| files.get_file(key, &path)).await
    }

    async fn probe(&self, name: &str) -> Result<(), StoreError> {
        super::probe::probe(self, name).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::conformance::store as conformance;

    fn open(path: &Path) -> Arc<dyn Store> {
        Arc::new(DirectoryStore::open(path).unwrap())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_directory_does_what_every_store_does() {
        let directory = tempfile::tempdir().unwrap();
        conformance::all(&open(directory.path())).await;
        let temporary = directory.path().join(".store/temporary");
        assert_eq!(fs::read_dir(temporary).unwrap().count(), 0, "nothing stays behind");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn pages_go_on_where_the_last_one_ended() {
        let directory = tempfile::tempdir().unwrap();
        conformance::pages(&open(directory.path()), 1200).await;
    }

    /// Two stores on one directory stand for two processes: locks belong to open files.
    #[tokio::test(flavor = "multi_thread")]
    async fn changes_through_two_openings_are_never_lost() {
        let directory = tempfile::tempdir().unwrap();
        let stores = [open(directory.path()), open(directory.path())];
        conformance::counts(&stores, 8, 10).await;
    }

    #[tokio::test]
    async fn a_key_below_an_object_or_above_one_is_refused_or_absent() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        store.put("a/b", Bytes::from_static(b"1"), Condition::Always).await.unwrap();
        for key in ["a", "a/b/c"] {
            let put = store.put(key, Bytes::new(), Condition::Always).await;
            assert_eq!(put, Err(StoreError::Key(key.to_owned())), "{key}");
            assert_eq!(store.get(key).await.unwrap(), None, "{key}");
            assert_eq!(store.head(key).await.unwrap(), None, "{key}");
            store.delete(&[key.to_owned()]).await.unwrap();
        }
        assert!(store.get("a/b").await.unwrap().is_some());
    }

    #[tokio::test]
    async fn folders_go_with_their_last_object() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        store.put("a/b/c", Bytes::new(), Condition::Always).await.unwrap();
        store.delete(&["a/b/c".to_owned()]).await.unwrap();
        assert!(!directory.path().join("a").exists());
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_refused_with_its_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let refused = DirectoryStore::open(file.path().join("store")).unwrap_err();
        assert!(
            matches!(&refused, StoreError::Unsuitable(m) if m.contains("/store/")),
            "{refused}"
        );
    }
}
