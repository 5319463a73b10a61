//! A hub that gives one repository, and misbehaves as a test asks it to.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What came in.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Path and query.
    pub(crate) target: String,
    headers: Vec<(String, String)>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The offset that a range begins at.
    pub(crate) fn from(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// What goes out.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Bytes of the body that are sent before the connection is closed.
    cut: Option<usize>,
    /// Whether the connection is held open instead of being closed.
    silent: bool,
}

impl Answer {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), cut: None, silent: false }
    }

    pub(crate) fn redirect(status: u16, location: &str) -> Self {
        Self::new(status, "").with("Location", location)
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(crate) fn cut(self, bytes: usize) -> Self {
        Self { cut: Some(bytes), ..self }
    }

    /// Says nothing more after so many bytes of the body.
    pub(crate) fn silent(self, bytes: usize) -> Self {
        Self { cut: Some(bytes), silent: true, ..self }
    }
}

/// Answers a request for a target that contains a text; the number is how many came before.
type Rule = Box<dyn Fn(&Request, usize) -> Option<Answer> + Send + Sync>;

/// The repository `owner/name`.
#[derive(Default)]
pub(crate) struct Repository {
    /// Path and content; those longer than 100 bytes are in large file storage.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// What the listing says else or otherwise.
    pub(crate) listing: BTreeMap<&'static str, Value>,
    rules: Vec<(&'static str, Rule)>,
}

impl Repository {
    pub(crate) fn of(files: &[(&str, &[u8])]) -> Self {
        let files = files.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.to_vec()));
        Self { files: files.collect(), ..Self::default() }
    }

    pub(crate) fn rule(
        mut self,
        target: &'static str,
        rule: impl Fn(&Request, usize) -> Option<Answer> + Send + Sync + 'static,
    ) -> Self {
        self.rules.push((target, Box::new(rule)));
        self
    }

    fn listing(&self) -> Vec<u8> {
        let sibling = |(path, bytes): (&String, &Vec<u8>)| {
            let blob = format!(
                "{:x}",
                Sha1::new()
                    .chain_update(format!("blob {}\0", bytes.len()))
                    .chain_update(bytes)
                    .finalize()
            );
            let mut sibling = json!({"rfilename": path, "size": bytes.len(), "blobId": blob});
            if bytes.len() > 100 {
                // The git id is then that of a pointer.
                sibling["blobId"] = json!(COMMIT);
                sibling["lfs"] = json!({
                    "sha256": format!("{:x}", Sha256::digest(bytes)),
                    "size": bytes.len(), "pointerSize": 130,
                });
            }
            sibling
        };
        let siblings: Vec<Value> = self.files.iter().map(sibling).collect();
        let mut listing = json!({
            "id": "owner/name", "sha": COMMIT, "gated": false, "private": false,
            "cardData": {"license": "mit"}, "siblings": siblings,
        });
        for (field, value) in &self.listing {
            listing[*field] = value.clone();
        }
        listing.to_string().into_bytes()
    }

    fn answer(&self, request: &Request, before: usize) -> Answer {
        let target = &request.target;
        for (part, rule) in &self.rules {
            if target.contains(part)
                && let Some(answer) = rule(request, before)
            {
                return answer;
            }
        }
        if target.starts_with("/api/models/owner/name/revision/") {
            return Answer::new(200, self.listing());
        }
        let path = target.strip_prefix(&format!("/owner/name/resolve/{COMMIT}/"));
        match path.and_then(|path| self.files.get(path)) {
            Some(bytes) => ranged(bytes, request),
            None => Answer::new(404, "").with("X-Error-Code", "EntryNotFound"),
        }
    }
}

/// The bytes asked for, as a server that knows ranges gives them.
pub(crate) fn ranged(bytes: &[u8], request: &Request) -> Answer {
    let total = bytes.len();
    match request.from() {
        None => Answer::new(200, bytes),
        Some(from) if from < total => {
            let range = format!("bytes {from}-{}/{total}", total - 1);
            Answer::new(206, &bytes[from..]).with("Content-Range", &range)
        }
        Some(_) => Answer::new(416, "").with("Content-Range", &format!("bytes */{total}")),
    }
}

/// A server that runs until it is dropped.
pub(crate) struct Server {
    address: String,
    port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
    stopped: Arc<AtomicBool>,
    /// Connections held open wait for this to be dropped.
    _open: Sender<()>,
}

impl Server {
    pub(crate) fn new(repository: Repository) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (open, held) = channel();
        let held = Arc::new(Mutex::new(held));
        let server = Self {
            address: format!("http://127.0.0.1:{port}"),
            port,
            requests: Arc::default(),
            stopped: Arc::default(),
            _open: open,
        };
        let (requests, stopped) = (Arc::clone(&server.requests), Arc::clone(&server.stopped));
        let repository = Arc::new(repository);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (requests, held) = (Arc::clone(&requests), Arc::clone(&held));
                let repository = Arc::clone(&repository);
                // A client that goes away in the middle is what some tests are about.
                std::thread::spawn(move || {
                    let _ = serve(stream?, &repository, &requests, &held);
                    std::io::Result::Ok(())
                });
            }
        });
        server
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The requests so far whose target contains a text.
    pub(crate) fn requests(&self, target: &str) -> Vec<Request> {
        let requests = self.requests.lock().unwrap();
        requests.iter().filter(|request| request.target.contains(target)).cloned().collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(
    mut stream: TcpStream,
    repository: &Repository,
    requests: &Mutex<Vec<Request>>,
    held: &Mutex<Receiver<()>>,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let target = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = Vec::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let request = Request { target, headers };
    let before = {
        let mut requests = requests.lock().unwrap();
        let before = requests.iter().filter(|other| other.target == request.target).count();
        requests.push(request.clone());
        before
    };
    let answer = repository.answer(&request, before);
    let mut head = format!("HTTP/1.1 {} Status\r\nConnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("Content-Length: {}\r\n\r\n", answer.body.len());
    stream.write_all(head.as_bytes())?;
    stream.write_all(&answer.body[..answer.cut.unwrap_or(answer.body.len())])?;
    stream.flush()?;
    if answer.silent {
        let _ = held.lock().unwrap().recv();
    }
    Ok(())
}
