//! A hub: its endpoint, who asks, and requests that are made again until they succeed.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};

use crate::error::{Error, Result};
use crate::http::{Client, Failure, Origin, Refusal};
use crate::retry::Waits;

/// The endpoint that is asked where no other is named.
pub const ENDPOINT: &str = "https://huggingface.co";

/// A hub that gives models in Hugging Face layout.
#[derive(Clone)]
pub struct Hub {
    endpoint: String,
    origin: Origin,
    token: Option<Arc<str>>,
    certificates: Option<Arc<Vec<Certificate<'static>>>>,
    waits: Waits,
}

/// The token is no one's business.
impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token.as_ref().map(|_| "…");
        f.debug_struct("Hub").field("endpoint", &self.endpoint).field("token", &token).finish()
    }
}

/// What a request is for, to explain its failure.
pub(crate) struct Asked<'a> {
    /// Address, without anything signed.
    pub(crate) url: String,
    /// `owner/name`.
    pub(crate) repository: &'a str,
    /// "the repository `…`", "`…` of `…`".
    pub(crate) what: String,
    /// Whether the listing says that the licence must be accepted.
    pub(crate) gated: bool,
}

impl Hub {
    /// A hub at an `http` or `https` address, asked in the name of a token's owner or of no one.
    ///
    /// # Errors
    /// If the endpoint is no such address or the token cannot be sent.
    pub fn new(endpoint: &str, token: Option<String>) -> Result<Self> {
        let wrong =
            |message: &str| Error::Endpoint { endpoint: endpoint.into(), message: message.into() };
        let base = endpoint.trim().trim_end_matches('/');
        let uri: ureq::http::Uri = base.parse().map_err(|_| wrong("it is no address"))?;
        let origin = Origin::of(&uri)
            .ok_or_else(|| wrong("it must begin with https:// or http:// and name a host"))?;
        if uri.query().is_some() || uri.authority().is_some_and(|a| a.as_str().contains('@')) {
            return Err(wrong("it must have neither a query nor a user"));
        }
        let token = token.as_deref().map(str::trim).filter(|token| !token.is_empty());
        if token.is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(Error::Token("it has white space or characters that are not ASCII"));
        }
        Ok(Self {
            endpoint: base.to_owned(),
            origin,
            token: token.map(Into::into),
            certificates: None,
            waits: Waits::default(),
        })
    }

    /// With other waits than [`Waits::default`].
    #[must_use]
    pub fn with_waits(self, waits: Waits) -> Self {
        Self { waits, ..self }
    }

    /// Trusts the authorities of a PEM file, instead of those that Mozilla trusts.
    ///
    /// # Errors
    /// If the file cannot be read or holds no certificate.
    pub fn with_certificates(self, path: &Path) -> Result<Self> {
        let wrong = |message: String| Error::Certificates { path: path.to_owned(), message };
        let pem = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
        let mut certificates = Vec::new();
        for item in ureq::tls::parse_pem(&pem) {
            if let PemItem::Certificate(certificate) = item.map_err(|e| wrong(e.to_string()))? {
                certificates.push(certificate);
            }
        }
        if certificates.is_empty() {
            return Err(wrong("it holds no certificate".into()));
        }
        Ok(Self { certificates: Some(Arc::new(certificates)), ..self })
    }

    /// The address, without a slash at its end.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(crate) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// What asks. One serves a whole call, so that stopping it leaves other calls alone.
    pub(crate) fn client(&self) -> Client {
        let mut config = Agent::config_builder()
            .user_agent(concat!("excite/", env!("CARGO_PKG_VERSION")))
            // Bytes are counted and ranges asked for as they lie on the server.
            .accept_encoding("identity")
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(Some(self.waits.connect))
            .timeout_connect(Some(self.waits.connect))
            .timeout_send_request(Some(self.waits.idle))
            .timeout_recv_response(Some(self.waits.idle))
            .timeout_per_read(Some(self.waits.idle));
        if let Some(certificates) = &self.certificates {
            let roots = RootCerts::Specific(Arc::clone(certificates));
            config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
        if self.origin.is_loopback() {
            config = config.proxy(None);
        }
        Client {
            agent: config.build().new_agent(),
            origin: self.origin.clone(),
            token: self.token.clone(),
        }
    }

    /// The whole body of a small answer, asked for again while that may help.
    ///
    /// # Errors
    /// If there is none of at most `max` bytes, or `cancelled` says so.
    pub(crate) fn small(
        &self,
        asked: &Asked<'_>,
        max: u64,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<u8>> {
        let client = self.client();
        let mut failed = 0;
        loop {
            match small_once(&client, asked, max, cancelled) {
                Ok(body) => return Ok(body),
                Err(failure) => {
                    failed += 1;
                    self.again(failure, failed, asked, cancelled)?;
                }
            }
        }
    }

    /// Waits before the next attempt, if one may help.
    ///
    /// # Errors
    /// What the failure amounts to, if not.
    pub(crate) fn again(
        &self,
        failure: Failure,
        failed: u32,
        asked: &Asked<'_>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<()> {
        let wait = match &failure {
            Failure::Broken(_) => None,
            Failure::Status(refusal) if is_passing(refusal) => refusal.retry_after,
            _ => return Err(self.explain(failure, failed, asked)),
        };
        let too_long = wait.is_some_and(|wait| wait > self.waits.retry_after_max);
        if failed >= self.waits.attempts || too_long {
            return Err(self.explain(failure, failed, asked));
        }
        self.waits.pause(failed, wait, cancelled)
    }

    fn explain(&self, failure: Failure, attempts: u32, asked: &Asked<'_>) -> Error {
        let host = self.origin.name();
        let refusal = match failure {
            Failure::Fatal(e) => return e,
            Failure::Broken(message) => return Error::Connect { host, attempts, message },
            Failure::Tls(message) => return Error::Tls { host, message },
            Failure::Redirect(message) => {
                return Error::Redirect { url: asked.url.clone(), message };
            }
            Failure::Status(refusal) => refusal,
        };
        let passing = is_passing(&refusal);
        let Refusal { status, code, message, retry_after, .. } = refusal;
        let what = asked.what.clone();
        match (status, code.as_str()) {
            (401 | 403, "GatedRepo") => self.gated(asked),
            // For a repository that does not exist the hub answers 401 to those without a token.
            (401, "RepoNotFound") | (404, "RepoNotFound") => {
                Error::NotFound { what: format!("the repository `{}`", asked.repository), host }
            }
            (401 | 403, _) if asked.gated => self.gated(asked),
            (401 | 403, _) => Error::Denied { what, status, message, token_sent: self.has_token() },
            (404, _) => Error::NotFound { what, host },
            _ if passing => {
                let wait_s = retry_after.map(|wait| wait.as_secs());
                Error::Unavailable { host, status, attempts, wait_s }
            }
            _ => Error::Status { url: asked.url.clone(), status, message },
        }
    }

    fn gated(&self, asked: &Asked<'_>) -> Error {
        let page = format!("{}/{}", self.endpoint, asked.repository);
        Error::Gated { repository: asked.repository.to_owned(), page }
    }
}

/// Whether the same request may succeed later.
fn is_passing(refusal: &Refusal) -> bool {
    match refusal.status {
        408 | 425 | 429 | 500 | 502..=504 | 520..=529 => true,
        // The signed address of a content server has run out; the endpoint gives a new one.
        401 | 403 => refusal.elsewhere,
        _ => false,
    }
}

fn small_once(
    client: &Client,
    asked: &Asked<'_>,
    max: u64,
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<u8>, Failure> {
    let mut reply = client.get(&asked.url, 0, cancelled)?;
    let mut body = Vec::new();
    while let Some(piece) = reply.piece(cancelled)? {
        body.extend_from_slice(&piece);
        if body.len() as u64 > max {
            let found = reply.total.unwrap_or(0).max(body.len() as u64);
            let what = "bytes of an answer";
            return Err(Failure::Fatal(Error::TooMuch { what, found, max }));
        }
    }
    Ok(body)
}
