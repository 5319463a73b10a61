//! Talks to a dispatcher: one request at a time, asked for again while that may help.
//!
//! Not here: a single exchange (`exchange`), what the answers mean (each command).

mod exchange;
mod problem;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use excite_jobs::BatchId;
use excite_jobs::api::BatchPage;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::Agent;
use ureq::http::{Method, Uri};

use crate::args::ServerArgs;
use crate::fault::{Fault, Status};
use crate::printer::Printer;
pub(crate) use exchange::{Answer, Payload};
use exchange::{Broken, Exchange};

/// Where a dispatcher listens on its own machine.
pub(crate) const DEFAULT_SERVER: &str = "http://127.0.0.1:8080";
/// Requests for the same before giving up.
const TRIES: u32 = 5;
/// Before the second try; doubles with each further one.
const BACKOFF: Duration = Duration::from_secs(1);
/// The longest wait that a server may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// How often a wait looks whether someone asked to stop.
const POLL: Duration = Duration::from_millis(50);
/// Batches looked through for one whose id begins as asked for.
const PREFIX_PAGES: usize = 10;
const PAGE: usize = 1000;
/// Fewer characters of an id name none.
const PREFIX_MIN: usize = 4;

/// Letters that stay as they are in paths and queries.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// What is asked for.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    /// Whether asking twice does the same as asking once.
    pub(crate) idempotent: bool,
}

impl Request {
    pub(crate) fn new(method: Method, target: impl Into<String>) -> Self {
        Self { method, target: target.into(), headers: Vec::new(), idempotent: true }
    }

    pub(crate) fn get(target: impl Into<String>) -> Self {
        Self::new(Method::GET, target)
    }
}

/// Why there is no answer now.
pub(crate) enum Trouble {
    /// There may be one later: what happened, and how long the server asks to wait.
    Gone { fault: Box<Fault>, wait: Option<Duration> },
    /// Asking again does not help.
    Final(Box<Fault>),
}

impl From<Trouble> for Fault {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Gone { fault, .. } | Trouble::Final(fault) => *fault,
        }
    }
}

/// A dispatcher.
pub(crate) struct Client<'a> {
    agent: Agent,
    /// Without a slash at its end.
    base: String,
    /// The header that says who asks.
    authorization: Option<(&'static str, String)>,
    pub(crate) printer: &'a Printer,
    interrupted: &'a AtomicBool,
    /// It has answered before, so the address is right.
    reached: AtomicBool,
}

impl<'a> Client<'a> {
    pub(crate) fn new(
        args: &ServerArgs,
        printer: &'a Printer,
        interrupted: &'a AtomicBool,
    ) -> Result<Self, Fault> {
        let base = args.server.as_deref().unwrap_or(DEFAULT_SERVER).trim_end_matches('/');
        let local = check_address(base)?;
        Ok(Self {
            agent: exchange::agent(local),
            base: base.to_owned(),
            authorization: args.token.as_deref().map(authorization).transpose()?,
            printer,
            interrupted,
            reached: AtomicBool::new(false),
        })
    }

    pub(crate) fn address(&self) -> &str {
        &self.base
    }

    /// A document.
    pub(crate) fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, Fault> {
        self.document(&self.call(&Request::get(target))?)
    }

    /// A document in answer to a document.
    pub(crate) fn send<T: DeserializeOwned>(
        &self,
        request: &Request,
        body: &impl Serialize,
    ) -> Result<T, Fault> {
        let json = serde_json::to_vec(body).map_err(|e| Fault::bug(&e.to_string()))?;
        let answer = self.call_with(request, &|| Ok(Payload::Json(json.clone())))?;
        self.document(&answer)
    }

    /// Asks without a body.
    pub(crate) fn call(&self, request: &Request) -> Result<Answer, Fault> {
        self.call_with(request, &|| Ok(Payload::None))
    }

    /// Asks until there is an answer; `body` makes the body anew for each try, or says why it
    /// cannot.
    pub(crate) fn call_with(
        &self,
        request: &Request,
        body: &dyn Fn() -> Result<Payload, Fault>,
    ) -> Result<Answer, Fault> {
        let mut payload = body()?;
        for attempt in 1..=TRIES {
            let (fault, asked) = match self.try_once(request, payload) {
                Ok(answer) => return Ok(answer),
                Err(Trouble::Gone { fault, wait }) if attempt < TRIES => (fault, wait),
                Err(trouble) => return Err(trouble.into()),
            };
            // What cannot be sent again is not waited for.
            payload = body()?;
            let wait = asked.unwrap_or(BACKOFF * (1 << (attempt - 1)));
            let seconds = wait.as_secs();
            self.printer.note(&format!("{}; trying again in {seconds} s", fault.message));
            self.pause(wait)?;
        }
        Err(Fault::bug("no try was made"))
    }

    /// Asks once.
    pub(crate) fn try_once(&self, request: &Request, body: Payload) -> Result<Answer, Trouble> {
        let exchange = Exchange {
            agent: self.agent.clone(),
            url: format!("{}{}", self.base, request.target),
            method: request.method.clone(),
            headers: request.headers.iter().chain(&self.authorization).cloned().collect(),
        };
        let answer = match exchange.run(body, &|| self.stopped()) {
            Ok(answer) => answer,
            Err(Broken::Stopped) => return Err(Trouble::Final(Box::new(interrupted()))),
            Err(Broken::Body(fault)) => return Err(Trouble::Final(Box::new(fault))),
            Err(broken) => return Err(self.broken(&broken, request)),
        };
        self.reached.store(true, Ordering::Relaxed);
        let status = answer.status;
        // HEAD asks whether something is there: that it is not is an answer.
        if (200..300).contains(&status) || (request.method == Method::HEAD && status == 404) {
            return Ok(answer);
        }
        let fault = Box::new(problem::fault(&answer));
        // Refused before anything was done, or lost on the way.
        let later =
            matches!(status, 429 | 503) || (request.idempotent && matches!(status, 502 | 504));
        if !later {
            return Err(Trouble::Final(fault));
        }
        let wait = answer.retry_after.map(|wait| wait.min(RETRY_AFTER_MAX));
        Err(Trouble::Gone { fault, wait })
    }

    fn broken(&self, broken: &Broken, request: &Request) -> Trouble {
        let before = self.reached.load(Ordering::Relaxed);
        let (what, again) = match broken {
            // Whoever mistyped the address wants to know it at once.
            Broken::NoConnection(reason) => (reason, before),
            Broken::Connection(reason) => (reason, request.idempotent),
            Broken::Tls(reason) => (reason, false),
            Broken::Stopped | Broken::Body(_) => (&String::new(), false),
        };
        let message = format!("the server at {} cannot be reached: {what}", self.base);
        let remedy = if matches!(broken, Broken::Tls(_)) {
            "Check whether the server speaks HTTPS, and its certificate."
        } else {
            "Check that `excite-dispatcher` runs there, or name another server with --server or \
             EXCITE_SERVER."
        };
        let fault =
            Box::new(Fault::new(Status::Failed, "server_unreachable", message, remedy.into()));
        if again { Trouble::Gone { fault, wait: None } } else { Trouble::Final(fault) }
    }

    /// An answer's document.
    pub(crate) fn document<T: DeserializeOwned>(&self, answer: &Answer) -> Result<T, Fault> {
        serde_json::from_slice(&answer.body).map_err(|e| {
            let message =
                format!("the server at {} answers what is not understood: {e}", self.base);
            let remedy = "Check the address, and that `excite` and the server are of one version.";
            Fault::new(Status::Failed, "unexpected_answer", message, remedy.into())
        })
    }

    pub(crate) fn stopped(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Waits.
    ///
    /// # Errors
    /// If Ctrl-C ends the wait.
    pub(crate) fn pause(&self, wait: Duration) -> Result<(), Fault> {
        let until = Instant::now() + wait;
        loop {
            if self.stopped() {
                return Err(interrupted());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(POLL));
        }
    }

    /// A batch by its id, or by as much of it as names one of the newest alone.
    pub(crate) fn batch_id(&self, text: &str) -> Result<BatchId, Fault> {
        if let Ok(id) = text.parse() {
            return Ok(id);
        }
        let wrong = |message: String, remedy: &str| Err(Fault::usage("batch_id", message, remedy));
        let hex = |c: char| c == '-' || matches!(c, '0'..='9' | 'a'..='f');
        if text.len() < PREFIX_MIN || text.len() > 36 || !text.chars().all(hex) {
            let shown: String = text.chars().take(80).collect();
            let message = format!("`{shown}` is no batch id");
            return wrong(message, "Copy one from `excite batch list`, or at least its beginning.");
        }
        let mut found = Vec::new();
        let mut pages = Pages::new("/v1/batches".into(), PAGE);
        for _ in 0..PREFIX_PAGES {
            let page: BatchPage = self.get(&pages.target())?;
            let ids = page.batches.iter().map(|batch| batch.id);
            found.extend(ids.filter(|id| id.to_string().starts_with(text)));
            if !pages.turn(page.next) {
                break;
            }
        }
        match found[..] {
            [id] => Ok(id),
            [] => wrong(
                format!("no batch begins with `{text}`"),
                "Copy an id from `excite batch list`.",
            ),
            _ => wrong(
                format!("{} batches begin with `{text}`", found.len()),
                "Write more of the id.",
            ),
        }
    }
}

/// Walks through the pages of a list.
pub(crate) struct Pages {
    target: String,
    limit: usize,
    after: Option<String>,
}

impl Pages {
    /// `target`: path, and query if there is one.
    pub(crate) fn new(target: String, limit: usize) -> Self {
        Self { target, limit, after: None }
    }

    /// The current page.
    pub(crate) fn target(&self) -> String {
        let joint = if self.target.contains('?') { '&' } else { '?' };
        let after = self.after.as_ref().map_or(String::new(), |a| format!("&after={}", encode(a)));
        format!("{}{joint}limit={}{after}", self.target, self.limit)
    }

    /// Goes to the next page; `false` if there is none, or it is the same again.
    pub(crate) fn turn(&mut self, next: Option<String>) -> bool {
        if next.is_none() || next == self.after {
            return false;
        }
        self.after = next;
        true
    }
}

/// A text as a part of a path or query.
pub(crate) fn encode(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

/// Ctrl-C, where there is nothing to say of how to go on.
pub(crate) fn interrupted() -> Fault {
    let remedy = "Run the command again.";
    Fault::new(Status::Interrupted, "interrupted", "interrupted".into(), remedy.into())
}

fn authorization(token: &str) -> Result<(&'static str, String), Fault> {
    let token = token.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        let message = "the token is empty or has characters that no token has".into();
        return Err(Fault::usage(
            "token",
            message,
            "Set EXCITE_TOKEN to a token as it was printed.",
        ));
    }
    Ok(("authorization", format!("Bearer {token}")))
}

/// Whether the address is this machine.
fn check_address(base: &str) -> Result<bool, Fault> {
    let wrong = |message: &str| {
        let remedy = "Write it as http://host:port or https://host.";
        Err(Fault::usage("server", message.to_owned(), remedy))
    };
    let uri: Uri = match base.parse() {
        Ok(uri) => uri,
        Err(_) => return wrong("the server's address is no URL"),
    };
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.query().is_some() {
        return wrong(&format!("the server's address is not http or https: `{}`", shown(&uri)));
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return wrong("the server's address has a user or password in it");
    }
    let host = uri.host().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    Ok(host == "localhost" || address.is_ok_and(|address| address.is_loopback()))
}

/// An address without what may be secret in it.
fn shown(uri: &Uri) -> String {
    uri.host().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_http_and_carry_no_secret() {
        for (address, local) in [
            ("http://127.0.0.1:8080", true),
            ("http://localhost", true),
            ("http://[::1]:1", true),
            ("https://excite.example/base", false),
        ] {
            assert_eq!(check_address(address).ok(), Some(local), "{address}");
        }
        for address in ["", "excite", "ftp://a", "http://", "http://a?x=1", "http://u:secret@a"] {
            let fault = check_address(address).unwrap_err();
            assert!(!fault.message.contains("secret"), "{}", fault.message);
        }
    }

    #[test]
    fn pages_end_where_nothing_follows() {
        let mut pages = Pages::new("/v1/x?state=dead".into(), 5);
        assert_eq!(pages.target(), "/v1/x?state=dead&limit=5");
        assert!(pages.turn(Some("a b/1".into())));
        assert_eq!(pages.target(), "/v1/x?state=dead&limit=5&after=a%20b%2F1");
        assert!(!pages.turn(Some("a b/1".into())), "a page that follows itself");
        assert!(!pages.turn(None));
        assert_eq!(Pages::new("/v1/x".into(), 5).target(), "/v1/x?limit=5");
    }
}
