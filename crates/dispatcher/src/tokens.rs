//! Who may: tokens with scopes, kept as hashes in a file.
//!
//! A line is `name:scopes:sha256`, such as `ci:read,submit:9f86d0…`; empty lines and lines that
//! begin with `#` say nothing. The file is read again when it changes, so taking a line away ends a
//! token. Not here: which request needs which scope (`http::access`).

use std::collections::HashMap;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use excite_jobs::ModelCard;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tracing::{info, warn};
use utoipa::ToSchema;

/// How soon a change of the file is seen.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Bytes of a file of tokens.
const FILE_MAX: u64 = 1 << 20;
/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;
/// What tokens begin with, so that people and scanners for secrets know one when they see it.
const PREFIX: &str = "excite_";

/// What somebody may do. Each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Look at everything.
    Read,
    /// Submit batches; pause, cancel and replay them.
    Submit,
    /// Delete batches, drain workers, push models.
    Admin,
}

impl Scope {
    /// From the least to the most.
    pub const ALL: [Self; 3] = [Self::Read, Self::Submit, Self::Admin];

    fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Submit => "submit",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|scope| scope.name() == name);
        found.ok_or_else(|| format!("`{name}` is no scope; use read, submit or admin"))
    }
}

/// Whose a token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// As the file calls it.
    pub name: String,
    /// The most that it may do.
    pub scope: Scope,
}

/// Why a file of tokens cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// It cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line of it is wrong.
    #[error("{}: line {line}: {message}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong and what to do.
        message: String,
    },
}

/// A file of tokens.
pub struct Tokens {
    path: PathBuf,
    known: Mutex<Known>,
}

struct Known {
    /// By the hash of the token.
    holders: Arc<HashMap<String, Holder>>,
    looked: Instant,
    version: Version,
}

/// What tells that a file changed.
type Version = Option<(SystemTime, u64)>;

impl Tokens {
    /// Reads a file.
    ///
    /// # Errors
    /// See [`TokensError`].
    pub fn open(path: &Path) -> Result<Self, TokensError> {
        let (version, holders) = (version(path), Arc::new(read(path)?));
        let known = Known { holders, looked: Instant::now(), version };
        Ok(Self { path: path.to_owned(), known: Mutex::new(known) })
    }

    /// Whose a token is; `None` if it is nobody's, or not any more.
    pub fn holder(&self, token: &str) -> Option<Holder> {
        // Looked up by its hash: how long that takes says nothing about other tokens.
        self.holders().get(&hash(token)).cloned()
    }

    fn holders(&self) -> Arc<HashMap<String, Holder>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.looked.elapsed() >= LOOK_EVERY {
            known.looked = Instant::now();
            let now = version(&self.path);
            if now != known.version {
                match read(&self.path) {
                    Ok(holders) => {
                        info!(path = %self.path.display(), tokens = holders.len(), "tokens read again");
                        known.holders = Arc::new(holders);
                        known.version = now;
                    }
                    // Half written, perhaps: what is known stays until the file can be read.
                    Err(error) => warn!(%error, "the tokens cannot be read again"),
                }
            }
        }
        known.holders.clone()
    }
}

fn version(path: &Path) -> Version {
    let metadata = path.metadata().ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn read(path: &Path) -> Result<HashMap<String, Holder>, TokensError> {
    let io = |source| TokensError::Io { path: path.to_owned(), source };
    let length = path.metadata().map_err(io)?.len();
    if length > FILE_MAX {
        let message = format!("the file has {length} bytes; use at most {FILE_MAX}");
        return Err(TokensError::Line { path: path.to_owned(), line: 1, message });
    }
    let text = std::fs::read_to_string(path).map_err(io)?;
    let mut holders = HashMap::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let parsed = parse(line);
        let wrong = |message| TokensError::Line { path: path.to_owned(), line: at + 1, message };
        let (sha256, holder) = parsed.map_err(wrong)?;
        holders.insert(sha256, holder);
    }
    Ok(holders)
}

fn parse(line: &str) -> Result<(String, Holder), String> {
    let parts: Vec<&str> = line.split(':').collect();
    let [name, scopes, sha256] = parts[..] else {
        return Err("write `name:scopes:sha256`, as `excite-dispatcher token new` does".into());
    };
    if !ModelCard::is_name(name) {
        return Err("the name has other characters than letters, digits, `.`, `_`, `-`".into());
    }
    let scopes: Vec<Scope> =
        scopes.split(',').map(|scope| scope.trim().parse()).collect::<Result<_, String>>()?;
    let scope = scopes.into_iter().max().ok_or("it has no scope")?;
    if !crate::models::is_sha256(sha256) {
        return Err("the last part is no SHA-256 in lower case".into());
    }
    Ok((sha256.to_owned(), Holder { name: name.to_owned(), scope }))
}

fn hash(token: &str) -> String {
    format!("{:x}", Sha256::digest(token.as_bytes()))
}

/// Makes a token and appends its hash to a file, which is made if it is not there. The token itself
/// is kept nowhere.
///
/// # Errors
/// See [`TokensError`]; also if the name is taken.
pub fn add(path: &Path, name: &str, scope: Scope) -> Result<String, TokensError> {
    let io = |source| TokensError::Io { path: path.to_owned(), source };
    let wrong = |message| TokensError::Line { path: path.to_owned(), line: 0, message };
    if !ModelCard::is_name(name) {
        return Err(wrong(format!(
            "`{name}` cannot be a name; use letters, digits, `.`, `_`, `-`"
        )));
    }
    let known = if path.exists() { read(path)? } else { HashMap::new() };
    if known.values().any(|holder| holder.name == name) {
        return Err(wrong(format!("there is a token of `{name}` already; use another name")));
    }
    let bytes: [u8; TOKEN_BYTES] = rand::random();
    let token = bytes.iter().fold(PREFIX.to_owned(), |token, byte| format!("{token}{byte:02x}"));
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(io)?;
    writeln!(file, "{name}:{scope}:{}", hash(&token)).map_err(io)?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_token_is_known_until_its_line_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let one = add(&path, "ci", Scope::Submit).unwrap();
        let two = add(&path, "ops", Scope::Admin).unwrap();
        assert!(add(&path, "ci", Scope::Read).unwrap_err().to_string().contains("already"));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&one[PREFIX.len()..]), "only the hash is kept");
        let tokens = Tokens::open(&path).unwrap();
        let holder = tokens.holder(&one).unwrap();
        assert_eq!((holder.name.as_str(), holder.scope), ("ci", Scope::Submit));
        assert_eq!(tokens.holder("excite_00"), None);

        let rest: String = text.lines().skip(1).map(|line| format!("{line}\n")).collect();
        std::fs::write(&path, format!("# who may\n\n{rest}")).unwrap();
        tokio::time::advance(LOOK_EVERY).await;
        assert_eq!((tokens.holder(&one), tokens.holder(&two).is_some()), (None, true));
        std::fs::write(&path, "half a li").unwrap();
        tokio::time::advance(LOOK_EVERY).await;
        assert!(tokens.holder(&two).is_some(), "a file that cannot be read changes nothing");
    }

    #[test]
    fn what_is_wrong_with_a_line_is_told() {
        let hash = hash("x");
        for (line, want) in [
            ("ci", "name:scopes:sha256"),
            (&format!("a b:read:{hash}"), "other characters"),
            (&format!("ci:write:{hash}"), "read, submit or admin"),
            (&format!("ci::{hash}"), "no scope"),
            ("ci:read:abc", "SHA-256"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(want), "{line}: {error}");
        }
        let several = parse(&format!("ci:read,submit:{hash}")).unwrap().1;
        assert_eq!(several.scope, Scope::Submit);
    }
}
