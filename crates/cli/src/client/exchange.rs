//! One request and its answer.
//!
//! It runs in a thread of its own, so that Ctrl-C need not wait for a server that says nothing.

use std::io::{ErrorKind, Read};
use std::sync::Mutex;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use ureq::http::{HeaderMap, Method, header};
use ureq::{Agent, SendBody};

use super::POLL;
use crate::fault::Fault;

/// For looking up the host's name, and again for connecting.
const CONNECT: Duration = Duration::from_secs(10);
/// For each piece that is sent or received. A whole body has no limit.
const IDLE: Duration = Duration::from_secs(60);
/// For the answer once everything is sent: the last part of a large batch is stored before it.
const ANSWER: Duration = Duration::from_secs(180);
/// Bytes of an answer: an image of the largest size has a tenth of that.
const ANSWER_BYTES_MAX: u64 = 256 << 20;

/// What goes with a request.
pub(crate) enum Payload {
    None,
    Json(Vec<u8>),
    /// Read while it is sent; `bytes` if the length is known.
    Stream {
        reader: Box<dyn Read + Send>,
        bytes: Option<u64>,
    },
}

/// What came back, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: Vec<u8>,
}

/// Why nothing came back.
#[derive(Debug)]
pub(crate) enum Broken {
    /// Nobody listens there.
    NoConnection(String),
    /// The connection broke, or nothing came in time.
    Connection(String),
    /// The other side could not prove who it is.
    Tls(String),
    /// What should have been sent cannot be read.
    Body(Fault),
    /// Ctrl-C.
    Stopped,
}

/// What asks. `local`: a server on this machine, which no proxy can reach.
pub(super) fn agent(local: bool) -> Agent {
    let mut config = Agent::config_builder()
        .user_agent(concat!("excite/", env!("CARGO_PKG_VERSION")))
        // Images and weights do not shrink.
        .accept_encoding("identity")
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_resolve(Some(CONNECT))
        .timeout_connect(Some(CONNECT))
        .timeout_send_request(Some(IDLE))
        .timeout_per_write(Some(IDLE))
        .timeout_recv_response(Some(ANSWER))
        .timeout_per_read(Some(ANSWER));
    if local {
        config = config.proxy(None);
    }
    config.build().new_agent()
}

/// A request that is ready to go.
pub(super) struct Exchange {
    pub(super) agent: Agent,
    pub(super) url: String,
    pub(super) method: Method,
    pub(super) headers: Vec<(&'static str, String)>,
}

impl Exchange {
    /// Sends it and waits for the whole answer.
    pub(super) fn run(self, body: Payload, stopped: &dyn Fn() -> bool) -> Result<Answer, Broken> {
        let (sender, answers) = sync_channel(1);
        std::thread::Builder::new()
            .name("http".into())
            .spawn(move || self.send(body, &sender))
            .map_err(|e| Broken::Connection(e.to_string()))?;
        loop {
            if stopped() {
                return Err(Broken::Stopped);
            }
            match answers.recv_timeout(POLL) {
                Ok(answer) => return answer,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Broken::Connection("the request ended".into()));
                }
            }
        }
    }

    fn send(self, body: Payload, answers: &SyncSender<Result<Answer, Broken>>) {
        // Whoever stopped waiting does not want to know.
        let _ = answers.send(self.exchange(body));
    }

    fn exchange(self, body: Payload) -> Result<Answer, Broken> {
        let mut request = ureq::http::Request::builder().method(self.method).uri(self.url);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let unreadable: Unreadable = Arc::default();
        let body = match body {
            Payload::None => SendBody::none(),
            Payload::Json(json) => {
                request = request
                    .header(header::CONTENT_TYPE, "application/json")
                    .header(header::CONTENT_LENGTH, json.len());
                SendBody::from_owned_reader(std::io::Cursor::new(json))
            }
            Payload::Stream { reader, bytes } => {
                // A server that takes nothing says so before it has got everything.
                request = request.header(header::EXPECT, "100-continue");
                if let Some(bytes) = bytes {
                    request = request.header(header::CONTENT_LENGTH, bytes);
                }
                let unreadable = Arc::clone(&unreadable);
                SendBody::from_owned_reader(Source { reader, unreadable })
            }
        };
        let request = request.body(body).map_err(|e| Broken::Connection(e.to_string()))?;
        let read = self.agent.run(request).and_then(|response| {
            let (head, body) = response.into_parts();
            let body = body.into_with_config().limit(ANSWER_BYTES_MAX).read_to_vec()?;
            let retry_after = retry_after(&head.headers);
            Ok(Answer { status: head.status.as_u16(), retry_after, body })
        });
        let unreadable = unreadable.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (read, unreadable) {
            (Err(_), Some(fault)) => Err(Broken::Body(fault)),
            (read, _) => read.map_err(broken),
        }
    }
}

/// Why what is sent could not be read, so that nobody blames the server for it.
type Unreadable = Arc<Mutex<Option<Fault>>>;

struct Source {
    reader: Box<dyn Read + Send>,
    unreadable: Unreadable,
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let result = self.reader.read(buffer);
        if let Err(error) = &result
            && error.kind() != ErrorKind::Interrupted
        {
            let path = std::path::Path::new("what is to be sent");
            let fault = Fault::io("read", path, error);
            *self.unreadable.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
        }
        result
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

fn broken(error: ureq::Error) -> Broken {
    let message = error.to_string();
    match error {
        ureq::Error::Tls(_) | ureq::Error::Pem(_) | ureq::Error::Rustls(_) => Broken::Tls(message),
        ureq::Error::TlsRequired => Broken::Tls(message),
        // A failed handshake comes as an error of the socket it is read from.
        ureq::Error::Io(e) if e.kind() == ErrorKind::InvalidData => Broken::Tls(message),
        ureq::Error::Io(e) if e.kind() == ErrorKind::ConnectionRefused => {
            Broken::NoConnection("nobody listens there".into())
        }
        ureq::Error::Io(e) if e.kind() == ErrorKind::NetworkUnreachable => {
            Broken::NoConnection(message)
        }
        ureq::Error::HostNotFound => Broken::NoConnection("there is no such host".into()),
        ureq::Error::ConnectionFailed | ureq::Error::Timeout(ureq::Timeout::Connect) => {
            Broken::NoConnection(message)
        }
        _ => Broken::Connection(message),
    }
}
