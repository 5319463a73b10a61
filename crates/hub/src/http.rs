//! One GET request and the redirects it leads to.
//!
//! A request runs in a thread of its own, so that someone who asks to stop need not wait for a
//! server that says nothing. Redirects are followed here and not by the HTTP library, because it
//! takes two ports of a host for one: the token goes to the endpoint's scheme, host and port only.

use std::io::Read;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use ureq::http::{HeaderMap, Response, StatusCode, Uri, header};
use ureq::{Agent, Body};

use crate::error::Error;
use crate::limits::{MESSAGE_CHARS_MAX, REDIRECTS_MAX};
use crate::retry::POLL;

/// Bytes of a piece of a body.
const PIECE: usize = 256 << 10;
/// Pieces that wait for the disk.
const PIECES: usize = 4;

/// Why a request did not bring what was asked for.
#[derive(Debug)]
pub(crate) enum Failure {
    /// No answer, or one that broke off; it may work next time.
    Broken(String),
    /// The other side could not prove who it is.
    Tls(String),
    /// An answer other than 200 or 206.
    Status(Refusal),
    /// A redirect that is not followed.
    Redirect(String),
    /// Nothing that another request would mend.
    Fatal(Error),
}

/// An answer other than 200 or 206.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    /// The hub's code, such as `GatedRepo`.
    pub(crate) code: String,
    /// The hub's words.
    pub(crate) message: String,
    pub(crate) retry_after: Option<Duration>,
    /// Whether another server than the endpoint refuses.
    pub(crate) elsewhere: bool,
}

/// Scheme, host and port: who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// `None` if it is no `http` or `https` address with a host.
    pub(crate) fn of(uri: &Uri) -> Option<Self> {
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let default = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let host = uri.host().filter(|host| !host.is_empty())?.to_ascii_lowercase();
        Some(Self { scheme, host, port: uri.port_u16().unwrap_or(default) })
    }

    /// Host and port, the port only where it is not the usual one.
    pub(crate) fn name(&self) -> String {
        match (self.scheme.as_str(), self.port) {
            ("http", 80) | ("https", 443) => self.host.clone(),
            (_, port) => format!("{}:{port}", self.host),
        }
    }

    /// Whether it is this machine, which no proxy can reach.
    pub(crate) fn is_loopback(&self) -> bool {
        let address = self.host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        self.host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }
}

/// What asks, and in whose name.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) agent: Agent,
    pub(crate) origin: Origin,
    pub(crate) token: Option<Arc<str>>,
}

/// The body of an answer that is coming in.
pub(crate) struct Reply {
    /// Offset of the body's first byte in the file.
    pub(crate) start: u64,
    /// Bytes of the whole file, if the server says so.
    pub(crate) total: Option<u64>,
    events: Receiver<Event>,
    agent: Agent,
}

enum Event {
    Head { start: u64, total: Option<u64> },
    Piece(Vec<u8>),
    End,
    Failed(Failure),
}

impl Client {
    /// Asks for the bytes of `url` from the offset `from` on; the answer may begin at 0 instead.
    pub(crate) fn get(
        &self,
        url: &str,
        from: u64,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Reply, Failure> {
        let (sender, events) = sync_channel(PIECES);
        let (client, url) = (self.clone(), url.to_owned());
        std::thread::Builder::new()
            .name("http".into())
            .spawn(move || client.run(&url, from, &sender))
            .map_err(|e| Failure::Broken(e.to_string()))?;
        let mut reply = Reply { start: 0, total: None, events, agent: self.agent.clone() };
        match reply.event(cancelled)? {
            Event::Head { start, total } => {
                reply.start = start;
                reply.total = total;
                Ok(reply)
            }
            Event::Failed(failure) => Err(failure),
            Event::Piece(_) | Event::End => Err(Failure::Broken("no head".into())),
        }
    }

    /// Sends what happens until the end, or until no one listens.
    fn run(&self, url: &str, from: u64, events: &SyncSender<Event>) {
        let (head, mut body) = match self.head(url, from) {
            Ok((head, response)) => (head, response.into_body().into_reader()),
            Err(failure) => {
                let _ = events.send(Event::Failed(failure));
                return;
            }
        };
        let mut last = events.send(head);
        while last.is_ok() {
            let mut piece = vec![0; PIECE];
            last = match body.read(&mut piece) {
                Ok(0) => {
                    let _ = events.send(Event::End);
                    return;
                }
                Ok(n) => {
                    piece.truncate(n);
                    events.send(Event::Piece(piece))
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => Ok(()),
                Err(e) => {
                    let _ = events.send(Event::Failed(Failure::Broken(e.to_string())));
                    return;
                }
            };
        }
    }

    fn head(&self, url: &str, from: u64) -> Result<(Event, Response<Body>), Failure> {
        let mut at: Uri = url.parse().map_err(|_| Failure::Redirect("no address".into()))?;
        for _ in 0..=REDIRECTS_MAX {
            let here = Origin::of(&at);
            let mut request = self.agent.get(at.clone());
            if from > 0 {
                request = request.header(header::RANGE, format!("bytes={from}-"));
            }
            let home = here.as_ref() == Some(&self.origin);
            if let Some(token) = self.token.as_ref().filter(|_| home) {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            let response = request.call().map_err(failure)?;
            let headers = response.headers();
            match response.status() {
                StatusCode::OK => {
                    let head = Event::Head { start: 0, total: number(headers, "content-length") };
                    return Ok((head, response));
                }
                StatusCode::PARTIAL_CONTENT => {
                    let (start, total) = content_range(headers)
                        .ok_or_else(|| Failure::Broken("206 without a Content-Range".into()))?;
                    return Ok((Event::Head { start, total }, response));
                }
                status if status.is_redirection() => at = follow(&at, headers)?,
                status => return Err(Failure::Status(refusal(status, headers, !home))),
            }
        }
        Err(Failure::Redirect(format!("more than {REDIRECTS_MAX} times")))
    }
}

impl Reply {
    /// The next bytes, or `None` at the end.
    pub(crate) fn piece(
        &mut self,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<Vec<u8>>, Failure> {
        match self.event(cancelled)? {
            Event::Piece(bytes) => Ok(Some(bytes)),
            Event::End => Ok(None),
            Event::Failed(failure) => Err(failure),
            Event::Head { .. } => Err(Failure::Broken("two heads".into())),
        }
    }

    fn event(&self, cancelled: &dyn Fn() -> bool) -> Result<Event, Failure> {
        loop {
            if cancelled() {
                // Wakes the thread that waits for the server.
                self.agent.clone().shutdown();
                return Err(Failure::Fatal(Error::Cancelled));
            }
            match self.events.recv_timeout(POLL) {
                Ok(event) => return Ok(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Failure::Broken("the request ended".into()));
                }
            }
        }
    }
}

fn failure(e: ureq::Error) -> Failure {
    let message = e.to_string();
    match e {
        ureq::Error::Tls(_) | ureq::Error::Pem(_) | ureq::Error::Rustls(_) => Failure::Tls(message),
        ureq::Error::TlsRequired => Failure::Tls(message),
        // A failed handshake comes as an error of the socket it is read from.
        ureq::Error::Io(e) if e.kind() == std::io::ErrorKind::InvalidData => Failure::Tls(message),
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => Failure::Redirect(message),
        _ => Failure::Broken(message),
    }
}

fn refusal(status: StatusCode, headers: &HeaderMap, elsewhere: bool) -> Refusal {
    let seconds = number(headers, "retry-after").or_else(|| {
        // The hub's own form: `RateLimit: "api";r=0;t=55`.
        let limit = text(headers, "ratelimit");
        limit.split(';').find_map(|part| part.trim().strip_prefix("t=")?.parse().ok())
    });
    Refusal {
        status: status.as_u16(),
        code: text(headers, "x-error-code").to_owned(),
        message: text(headers, "x-error-message").chars().take(MESSAGE_CHARS_MAX).collect(),
        retry_after: seconds.map(Duration::from_secs),
        elsewhere,
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().trim()
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    text(headers, name).parse().ok()
}

/// Offset and total of `bytes 7-9/10`; the total may be `*`.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let (range, total) = text(headers, "content-range").strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.trim().parse().ok()?, total.trim().parse().ok()))
}

/// Where a redirect leads.
fn follow(from: &Uri, headers: &HeaderMap) -> Result<Uri, Failure> {
    let wrong = |message: &str| Failure::Redirect(message.to_owned());
    let to = text(headers, "location");
    let (scheme, authority) = (from.scheme_str().unwrap_or_default(), from.authority());
    let authority = authority.map_or("", |authority| authority.as_str());
    let absolute = if to.is_empty() {
        return Err(wrong("no Location"));
    } else if to.contains("://") && !to.starts_with(['/', '?']) {
        to.to_owned()
    } else if to.starts_with("//") {
        format!("{scheme}:{to}")
    } else if to.starts_with('/') {
        format!("{scheme}://{authority}{to}")
    } else {
        let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{to}")
    };
    let uri: Uri = absolute.parse().map_err(|_| wrong("the Location is no address"))?;
    let origin = Origin::of(&uri).ok_or_else(|| wrong("the Location is not HTTP"))?;
    if scheme == "https" && origin.scheme != "https" {
        return Err(wrong("from HTTPS to plain HTTP"));
    }
    Ok(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        headers
    }

    #[test]
    fn redirects_resolve_and_never_leave_https() {
        let from: Uri = "https://hub.example:8443/o/n/resolve/c/f?x=1".parse().unwrap();
        for (location, to) in [
            ("https://cdn.example/a?sig=1", "https://cdn.example/a?sig=1"),
            ("/api/cache/f", "https://hub.example:8443/api/cache/f"),
            ("//cdn.example/a", "https://cdn.example/a"),
            ("g", "https://hub.example:8443/o/n/resolve/c/g"),
            ("/r?to=https://x", "https://hub.example:8443/r?to=https://x"),
        ] {
            let uri = follow(&from, &headers("location", location)).unwrap();
            assert_eq!(uri.to_string(), to, "{location}");
        }
        for location in ["http://cdn.example/a", "file:///etc/passwd", "ftp://a/b", "", "https://"]
        {
            let refused = follow(&from, &headers("location", location));
            assert!(matches!(refused, Err(Failure::Redirect(_))), "{location}: {refused:?}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let origin = |text: &str| Origin::of(&text.parse().unwrap());
        assert_eq!(origin("https://A.example/x"), origin("https://a.example:443/y"));
        for other in ["http://a.example", "https://a.example:8443", "https://b.example"] {
            assert_ne!(origin("https://a.example"), origin(other), "{other}");
        }
        assert_eq!(origin("ftp://a.example"), None);
        assert_eq!(origin("/a"), None);
        for local in ["http://localhost:1", "http://127.0.0.9", "http://[::1]:8080"] {
            assert!(origin(local).unwrap().is_loopback(), "{local}");
        }
        assert!(!origin("http://127.0.0.1.example").unwrap().is_loopback());
    }

    #[test]
    fn ranges_and_waits_are_read() {
        let range = |value| content_range(&headers("content-range", value));
        assert_eq!(range("bytes 7-9/10"), Some((7, Some(10))));
        assert_eq!(range("bytes 7-9/*"), Some((7, None)));
        assert_eq!(range("bytes */10"), None);
        let wait = |name, value| {
            refusal(StatusCode::TOO_MANY_REQUESTS, &headers(name, value), false).retry_after
        };
        assert_eq!(wait("retry-after", "7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT"), None);
        assert_eq!(wait("ratelimit", "\"api\";r=0;t=55"), Some(Duration::from_secs(55)));
    }
}
