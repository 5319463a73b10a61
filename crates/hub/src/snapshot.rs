//! What a repository holds at a commit.
//!
//! The listing is a stranger's: counts, names and digests are checked before anyone uses them.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::hub::{Asked, Hub};
use crate::limits::{FILES_MAX, JSON_BYTES_MAX};
use crate::paths;

/// A repository at a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// `owner/name`.
    pub repository: String,
    /// As asked: a branch, a tag or a commit.
    pub revision: String,
    /// The commit that the revision was, in hexadecimal.
    pub commit: String,
    /// The licence's identifier, if the repository names one.
    pub licence: Option<String>,
    /// Whether the licence must be accepted before files can be fetched.
    pub gated: bool,
    /// Every file, in order of path.
    pub files: Vec<RemoteFile>,
}

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteFile {
    /// Path from the repository's root, with `/`.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 in hexadecimal, of files in large file storage.
    pub sha256: Option<String>,
    /// Git's id of the content in hexadecimal, of files in git itself.
    pub blob: Option<String>,
}

#[derive(Deserialize)]
struct Listing {
    sha: String,
    gated: Option<Value>,
    #[serde(rename = "cardData")]
    card: Option<Value>,
    tags: Option<Vec<String>>,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    size: Option<u64>,
    #[serde(alias = "oid")]
    sha256: Option<String>,
}

impl Hub {
    /// Lists a repository `owner/name` at a branch, a tag or a commit.
    ///
    /// # Errors
    /// If a name cannot be one, there is no answer, the hub refuses, or the listing is unusable.
    pub fn snapshot(
        &self,
        repository: &str,
        revision: &str,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Snapshot> {
        paths::check_repository(repository)?;
        paths::check_revision(revision)?;
        let url = format!(
            "{}/api/models/{repository}/revision/{}?blobs=true",
            self.endpoint(),
            paths::encode(revision, "")
        );
        let what = format!("`{repository}` at revision `{revision}`");
        let asked = Asked { url, repository, what, gated: false };
        let body = self.small(&asked, JSON_BYTES_MAX, cancelled)?;
        read(&body, repository, revision).map_err(|wrong| match wrong {
            Wrong::Listing(message) => Error::Listing { url: asked.url, message },
            Wrong::Error(e) => e,
        })
    }

    /// The address of a file at a snapshot's commit.
    pub(crate) fn address(&self, snapshot: &Snapshot, path: &str) -> String {
        let Snapshot { repository, commit, .. } = snapshot;
        format!("{}/{repository}/resolve/{commit}/{}", self.endpoint(), paths::encode(path, "/"))
    }
}

enum Wrong {
    Listing(String),
    Error(Error),
}

impl From<Error> for Wrong {
    fn from(e: Error) -> Self {
        Self::Error(e)
    }
}

fn read(body: &[u8], repository: &str, revision: &str) -> Result<Snapshot, Wrong> {
    let listing: Listing =
        serde_json::from_slice(body).map_err(|e| Wrong::Listing(e.to_string()))?;
    if !is_hex(&listing.sha, 40) && !is_hex(&listing.sha, 64) {
        return Err(Wrong::Listing("`sha` is no commit".into()));
    }
    if listing.siblings.len() > FILES_MAX {
        let found = listing.siblings.len() as u64;
        let max = FILES_MAX as u64;
        return Err(Error::TooMuch { what: "files of the repository", found, max }.into());
    }
    let mut files: Vec<RemoteFile> =
        listing.siblings.into_iter().map(file).collect::<Result<_, _>>()?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let paths: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
    if paths.len() != files.len() {
        return Err(Wrong::Listing("`siblings` has a path twice".into()));
    }
    Ok(Snapshot {
        repository: repository.to_owned(),
        revision: revision.to_owned(),
        commit: listing.sha.to_ascii_lowercase(),
        licence: licence(listing.card.as_ref(), &listing.tags.unwrap_or_default()),
        // `false`, or how access is given: "auto" or "manual".
        gated: !matches!(listing.gated, None | Some(Value::Null | Value::Bool(false))),
        files,
    })
}

fn file(sibling: Sibling) -> Result<RemoteFile, Wrong> {
    let path = sibling.rfilename;
    paths::check(&path)?;
    let wrong = |field: &str| Wrong::Listing(format!("`{field}` of `{path}`"));
    let listed = sibling.size.or(sibling.lfs.as_ref().and_then(|lfs| lfs.size));
    let bytes = listed.ok_or_else(|| wrong("size"))?;
    let (mut sha256, mut blob) = (None, None);
    match sibling.lfs {
        // The git id is then that of the pointer, which is not what is fetched.
        Some(lfs) => sha256 = lfs.sha256,
        None => blob = sibling.blob,
    }
    if sha256.as_ref().is_some_and(|digest| !is_hex(digest, 64)) {
        return Err(wrong("lfs.sha256"));
    }
    if blob.as_ref().is_some_and(|id| !is_hex(id, 40)) {
        return Err(wrong("blobId"));
    }
    Ok(RemoteFile { path, bytes, sha256, blob })
}

pub(crate) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// From the model card, or else from the tags that the hub makes of it.
fn licence(card: Option<&Value>, tags: &[String]) -> Option<String> {
    let field = |name: &str| {
        let value = card?.get(name)?;
        let one = value.as_array().and_then(|all| all.first()).unwrap_or(value);
        one.as_str().map(ToOwned::to_owned)
    };
    match field("license") {
        Some(licence) if licence == "other" => Some(field("license_name").unwrap_or(licence)),
        Some(licence) => Some(licence),
        None => tags.iter().find_map(|tag| tag.strip_prefix("license:").map(ToOwned::to_owned)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn snapshot(json: &str) -> Result<Snapshot, String> {
        read(json.replace("COMMIT", COMMIT).as_bytes(), "a/b", "main").map_err(
            |wrong| match wrong {
                Wrong::Listing(message) => message,
                Wrong::Error(e) => e.to_string(),
            },
        )
    }

    #[test]
    fn a_listing_is_read() {
        let digest = "ab".repeat(32);
        let json = format!(
            r#"{{"sha":"COMMIT","gated":"auto","cardData":{{"license":"creativeml-openrail-m"}},
            "siblings":[
              {{"rfilename":"unet/w.safetensors","size":9,"blobId":"{COMMIT}",
                "lfs":{{"sha256":"{digest}","size":9,"pointerSize":130}}}},
              {{"rfilename":"a.json","size":2,"blobId":"{COMMIT}"}}],"unknown":1}}"#
        );
        let found = snapshot(&json).unwrap();
        assert_eq!(found.licence.as_deref(), Some("creativeml-openrail-m"));
        assert!(found.gated);
        assert_eq!(found.commit, COMMIT);
        let [small, large] = found.files.as_slice() else { panic!("{found:?}") };
        assert_eq!((small.path.as_str(), small.blob.as_deref()), ("a.json", Some(COMMIT)));
        assert_eq!((large.blob.as_deref(), large.sha256.as_ref()), (None, Some(&digest)));
    }

    #[test]
    fn licences_are_found_where_repositories_put_them() {
        let licence = |card: &str, tags: &[&str]| {
            let card = serde_json::from_str(card).unwrap();
            let tags: Vec<String> = tags.iter().map(|&tag| tag.to_owned()).collect();
            licence(Some(&card), &tags)
        };
        assert_eq!(licence(r#"{"license":["mit"]}"#, &[]).as_deref(), Some("mit"));
        let other = licence(r#"{"license":"other","license_name":"sdxl"}"#, &[]);
        assert_eq!(other.as_deref(), Some("sdxl"));
        assert_eq!(licence("{}", &["x", "license:openrail++"]).as_deref(), Some("openrail++"));
        assert_eq!(licence("{}", &[]), None);
    }

    #[test]
    fn a_wrong_listing_is_refused() {
        for (json, message) in [
            ("<html>", "expected value"),
            (r#"{"sha":"main","siblings":[]}"#, "`sha`"),
            (r#"{"sha":"COMMIT"}"#, "siblings"),
            (r#"{"sha":"COMMIT","siblings":[{"rfilename":"a"}]}"#, "`size` of `a`"),
            (r#"{"sha":"COMMIT","siblings":[{"rfilename":"a","size":-1}]}"#, "-1"),
            (r#"{"sha":"COMMIT","siblings":[{"rfilename":"../a","size":1}]}"#, "refused"),
            (r#"{"sha":"COMMIT","siblings":[{"rfilename":"/a","size":1}]}"#, "refused"),
            (r#"{"sha":"COMMIT","siblings":[{"rfilename":"a","size":1,"blobId":"x"}]}"#, "blobId"),
            (
                r#"{"sha":"COMMIT","siblings":[{"rfilename":"a","size":1,"lfs":{"oid":"x"}}]}"#,
                "sha256",
            ),
            (
                r#"{"sha":"COMMIT","siblings":[{"rfilename":"a","size":1},
                    {"rfilename":"a","size":1}]}"#,
                "twice",
            ),
        ] {
            let found = snapshot(json).unwrap_err();
            assert!(found.contains(message), "{json}: {found}");
        }
    }
}
