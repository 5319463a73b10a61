//! What can go wrong between the name of a repository and a checked model folder.
//!
//! Every message names the file, host or field and what was found; `advice` adds a stable code for
//! programs and the remedy for people. No message holds the token or a signed address.

use std::path::PathBuf;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure to list, fetch or check a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The endpoint is not an address to ask.
    #[error("the endpoint `{endpoint}` is not usable: {message}")]
    Endpoint {
        /// As given.
        endpoint: String,
        /// What is wrong.
        message: String,
    },
    /// The token cannot be sent.
    #[error("the token cannot be sent: {0}")]
    Token(&'static str),
    /// The certificates of `SSL_CERT_FILE` cannot be used.
    #[error("the certificates in {path}: {message}", path = path.display())]
    Certificates {
        /// File.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A repository or revision that cannot be one.
    #[error("`{value}` is not a {what}: {message}")]
    Name {
        /// "repository" or "revision".
        what: &'static str,
        /// As given.
        value: String,
        /// What it must be.
        message: &'static str,
    },
    /// No answer: name not resolved, connection refused or broken, time over.
    #[error("no answer from {host} after {attempts} attempts: {message}")]
    Connect {
        /// Host and port of the endpoint.
        host: String,
        /// Requests made.
        attempts: u32,
        /// What the last one ended with.
        message: String,
    },
    /// The other side could not prove who it is.
    #[error("no secure connection to {host}: {message}")]
    Tls {
        /// Host and port of the endpoint.
        host: String,
        /// What is wrong with the certificate or the handshake.
        message: String,
    },
    /// A redirect that is not followed.
    #[error("{url} redirects where it must not: {message}")]
    Redirect {
        /// Address asked.
        url: String,
        /// What is wrong.
        message: String,
    },
    /// The model is given only to those who accepted its licence.
    #[error("`{repository}` is gated: its licence must be accepted before it can be fetched")]
    Gated {
        /// `owner/name`.
        repository: String,
        /// Address of the model's page.
        page: String,
    },
    /// The endpoint refuses (401 or 403).
    #[error("access to {what} was refused (HTTP {status}{because})", because = because(message))]
    Denied {
        /// Repository or file.
        what: String,
        /// HTTP status.
        status: u16,
        /// The server's words.
        message: String,
        /// Whether a token was sent.
        token_sent: bool,
    },
    /// There is no such repository, revision or file.
    #[error("{what} was not found at {host}")]
    NotFound {
        /// What was asked for.
        what: String,
        /// Host and port of the endpoint.
        host: String,
    },
    /// The endpoint is overloaded or asks to wait, and went on so.
    #[error("{host} answers HTTP {status} after {attempts} attempts")]
    Unavailable {
        /// Host and port of the endpoint.
        host: String,
        /// HTTP status of the last answer.
        status: u16,
        /// Requests made.
        attempts: u32,
        /// Seconds that the server asks to wait, if that is longer than we do.
        wait_s: Option<u64>,
    },
    /// An answer that nothing else here explains.
    #[error("{url} answered HTTP {status}{because}", because = because(message))]
    Status {
        /// Address asked.
        url: String,
        /// HTTP status.
        status: u16,
        /// The server's words.
        message: String,
    },
    /// A listing or index is not what it should be.
    #[error("the answer of {url} is not usable: {message}")]
    Listing {
        /// Address asked.
        url: String,
        /// What is wrong, with the field.
        message: String,
    },
    /// A path that must not be written or read.
    #[error("the path `{path}` is refused: {reason}", path = path.escape_debug())]
    UnsafePath {
        /// As listed.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// More than any model has.
    #[error("{what}: {found}, more than the {max} that are accepted")]
    TooMuch {
        /// What there is too much of.
        what: &'static str,
        /// How much.
        found: u64,
        /// Largest that is accepted.
        max: u64,
    },
    /// The repository is not a diffusers pipeline.
    #[error("`{repository}` has no `model_index.json`, so it is no diffusers pipeline")]
    NoModelIndex {
        /// `owner/name`.
        repository: String,
        /// Safetensors files at its root, which can be fetched by name.
        safetensors: Vec<String>,
    },
    /// A pipeline of another kind.
    #[error("`{repository}` is a `{class}` without {}", list(missing))]
    Pipeline {
        /// `owner/name`.
        repository: String,
        /// `_class_name` of `model_index.json`.
        class: String,
        /// Components that are not there.
        missing: Vec<String>,
    },
    /// A component has weights only in files that run code when opened.
    #[error("`{component}` has only pickles: {}", list(files))]
    OnlyPickles {
        /// Folder of the component.
        component: String,
        /// The pickles.
        files: Vec<String>,
    },
    /// None of the files that a component needs is there.
    #[error("`{component}` has none of {}", list(candidates))]
    NoFile {
        /// Folder of the component.
        component: String,
        /// Paths that would have done.
        candidates: Vec<String>,
    },
    /// Some shards of a weight file are missing.
    #[error("`{first}` is one of {expected} shards, but {found} are there")]
    Shards {
        /// Path of a shard.
        first: String,
        /// Number in its name.
        expected: usize,
        /// Number of shards in the listing.
        found: usize,
    },
    /// A file asked for by name is not in the listing.
    #[error("`{repository}` has no file `{path}`")]
    NoSuchFile {
        /// `owner/name`.
        repository: String,
        /// As asked.
        path: String,
    },
    /// The listing says too little about a file to check it.
    #[error("the listing gives `{path}` neither a SHA-256 nor a git id")]
    NoDigest {
        /// Path in the repository.
        path: String,
    },
    /// The server sends another number of bytes than it listed.
    #[error("`{path}` has {found} bytes, but the listing says {expected}")]
    Size {
        /// Path in the repository.
        path: String,
        /// Bytes listed.
        expected: u64,
        /// Bytes offered, or sent until the surplus was seen.
        found: u64,
    },
    /// The bytes are not those of the listing.
    #[error("`{path}` has the {kind} {found}, expected {expected}")]
    Digest {
        /// Path in the repository.
        path: String,
        /// "SHA-256" or "git id".
        kind: &'static str,
        /// Hexadecimal, from the listing.
        expected: String,
        /// Hexadecimal, of the bytes received.
        found: String,
    },
    /// The connection breaks again and again in the middle of a file.
    #[error("`{path}` broke off at {bytes} of {expected} bytes {attempts} times: {message}")]
    Cut {
        /// Path in the repository.
        path: String,
        /// Bytes received and kept.
        bytes: u64,
        /// Bytes listed.
        expected: u64,
        /// Requests made since the last good progress.
        attempts: u32,
        /// What the last one ended with.
        message: String,
    },
    /// Another fetch into the folder is under way.
    #[error("another fetch into {folder} is under way", folder = folder.display())]
    Busy {
        /// Folder.
        folder: PathBuf,
    },
    /// The disk or the quota is full; what was received is kept.
    #[error("no room for {path}: {missing} bytes are still to come", path = path.display())]
    DiskFull {
        /// File being written.
        path: PathBuf,
        /// Bytes of this file not yet written.
        missing: u64,
    },
    /// Another operation on a file failed.
    #[error("cannot {action} {path}", path = path.display())]
    Io {
        /// "read", "write", "create", "rename".
        action: &'static str,
        /// File or folder.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// `source.json` is not what it should be.
    #[error("{path}: {message}", path = path.display())]
    Source {
        /// File.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// Someone asked to stop; what was received is kept.
    #[error("stopped on request")]
    Cancelled,
}

fn list(items: &[String]) -> String {
    items.iter().map(|item| format!("`{item}`")).collect::<Vec<_>>().join(", ")
}

fn because(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

impl Error {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, e: std::io::Error) -> Self {
        Self::Io { action, path: path.into(), source: e }
    }

    /// A stable code for programs and an imperative for people.
    pub fn advice(&self) -> (&'static str, String) {
        let token = "Set HF_TOKEN to a token that may read it.";
        match self {
            Self::Endpoint { .. } => (
                "endpoint",
                "Set HF_ENDPOINT to an address like https://huggingface.co, or unset it.".into(),
            ),
            Self::Token(_) => ("token", "Set HF_TOKEN to the token alone, on one line.".into()),
            Self::Certificates { .. } => {
                ("certificates", "Set SSL_CERT_FILE to a PEM file, or unset it.".into())
            }
            Self::Name { .. } => ("repository_name", "Name a model like `owner/name`.".into()),
            Self::Connect { host, .. } => (
                "hub_unreachable",
                format!(
                    "Check the network and that {host} is right (HF_ENDPOINT, HTTPS_PROXY); run \
                     the command again to go on."
                ),
            ),
            Self::Tls { host, .. } => (
                "hub_tls",
                format!(
                    "Check the clock and that {host} is right; behind a proxy with its own \
                     certificates, set SSL_CERT_FILE to them."
                ),
            ),
            Self::Redirect { .. } => {
                ("hub_redirect", "Check HF_ENDPOINT; use https://huggingface.co.".into())
            }
            Self::Gated { page, .. } => (
                "model_gated",
                format!("Accept the licence at {page}, and set HF_TOKEN to that account's token."),
            ),
            Self::Denied { token_sent: true, .. } => {
                ("hub_denied", format!("Check that the token is valid. {token}"))
            }
            Self::Denied { .. } => ("hub_denied", token.into()),
            Self::NotFound { .. } => (
                "hub_not_found",
                format!("Check the spelling. If the model is private: {token}"),
            ),
            Self::Unavailable { wait_s: Some(seconds), .. } => {
                ("hub_unavailable", format!("Run the command again in {seconds} s to go on."))
            }
            Self::Unavailable { .. } => {
                ("hub_unavailable", "Run the command again later to go on.".into())
            }
            Self::Status { .. } => ("hub_status", "Check HF_ENDPOINT and the model's name.".into()),
            Self::Listing { .. } => (
                "hub_listing",
                "Check that HF_ENDPOINT is a Hugging Face hub or a mirror of it.".into(),
            ),
            Self::UnsafePath { .. } => (
                "unsafe_path",
                "Do not use this model: such a path can overwrite other files.".into(),
            ),
            Self::TooMuch { .. } => {
                ("hub_too_much", "Name the files to fetch, or use another model.".into())
            }
            Self::NoModelIndex { safetensors, .. } => match safetensors.as_slice() {
                [] => ("not_diffusers", "Name a model in diffusers layout.".into()),
                [file, ..] => (
                    "not_diffusers",
                    format!(
                        "Name a model in diffusers layout; a single file can be fetched by name, \
                         for example `{file}`."
                    ),
                ),
            },
            Self::Pipeline { .. } => {
                ("pipeline_kind", "Name a Stable Diffusion model in diffusers layout.".into())
            }
            Self::OnlyPickles { .. } => (
                "only_pickles",
                "Name a model or revision with safetensors: a pickle runs code when it is opened, \
                 so none is fetched."
                    .into(),
            ),
            Self::NoFile { .. } | Self::Shards { .. } => (
                "model_incomplete",
                "Name another model or revision: this one is incomplete.".into(),
            ),
            Self::NoSuchFile { .. } => {
                ("no_such_file", "Name a file as the model's page lists it.".into())
            }
            Self::NoDigest { .. } => (
                "no_digest",
                "Use https://huggingface.co or a mirror that lists digests: without one, the file \
                 cannot be checked."
                    .into(),
            ),
            Self::Size { .. } | Self::Digest { .. } => (
                "digest_mismatch",
                "Run the command again; if it fails again, a proxy or mirror changes the file: set \
                 HF_ENDPOINT to another."
                    .into(),
            ),
            Self::Cut { .. } => {
                ("hub_cut", "Run the command again to go on from where it broke off.".into())
            }
            Self::Busy { .. } => ("fetch_busy", "Wait until the other fetch has ended.".into()),
            Self::DiskFull { missing, .. } => (
                "disk_full",
                format!("Free at least {missing} bytes, and run the command again to go on."),
            ),
            Self::Io { .. } => {
                ("file_system", "Check that the path exists and may be written.".into())
            }
            Self::Source { .. } => ("source_json", "Fetch the model again.".into()),
            Self::Cancelled => ("cancelled", "Run the same command again to go on.".into()),
        }
    }
}
