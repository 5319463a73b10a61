//! A dispatcher that plays the answers of a test, and keeps what it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;

/// What came in.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// What goes out.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Nothing goes out, the connection ends.
    lost: bool,
}

impl Answer {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), lost: false }
    }

    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::new(status, body.to_string())
    }

    pub(crate) fn lost() -> Self {
        Self { lost: true, ..Self::new(0, "") }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// Answers a request; the number is how many with its method and target came before.
type Script = dyn Fn(&Request, usize) -> Answer + Send + Sync;
/// Answers a request before its body has come.
type Early = dyn Fn(&Request, usize) -> Option<Answer> + Send + Sync;

/// A server that runs until it is dropped.
pub(crate) struct Server {
    port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
    stopped: Arc<AtomicBool>,
}

impl Server {
    pub(crate) fn new(script: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static) -> Self {
        Self::with_early(|_, _| None, script)
    }

    pub(crate) fn with_early(
        early: impl Fn(&Request, usize) -> Option<Answer> + Send + Sync + 'static,
        script: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Self { port, requests: Arc::default(), stopped: Arc::default() };
        let (requests, stopped) = (Arc::clone(&server.requests), Arc::clone(&server.stopped));
        let (early, script): (Arc<Early>, Arc<Script>) = (Arc::new(early), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (requests, early, script) =
                    (Arc::clone(&requests), Arc::clone(&early), Arc::clone(&script));
                // A client that goes away in the middle is what some tests are about.
                std::thread::spawn(move || {
                    let _ = serve(stream?, &*early, &*script, &requests);
                    std::io::Result::Ok(())
                });
            }
        });
        server
    }

    pub(crate) fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The requests so far of a method whose target begins with a text.
    pub(crate) fn requests(&self, method: &str, target: &str) -> Vec<Request> {
        let requests = self.requests.lock().unwrap();
        let same = |r: &&Request| r.method == method && r.target.starts_with(target);
        requests.iter().filter(same).cloned().collect()
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
    early: &Early,
    script: &Script,
    requests: &Mutex<Vec<Request>>,
) -> std::io::Result<()> {
    let mut input = BufReader::new(stream.try_clone()?);
    let mut request = head(&mut input)?;
    let before = {
        let requests = requests.lock().unwrap();
        let same = |r: &&Request| r.method == request.method && r.target == request.target;
        requests.iter().filter(same).count()
    };
    let answer = match early(&request, before) {
        Some(answer) => {
            requests.lock().unwrap().push(request.clone());
            answer
        }
        None => {
            if request.header("expect").is_some() {
                stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            request.body = body(&mut input, &request)?;
            requests.lock().unwrap().push(request.clone());
            script(&request, before)
        }
    };
    if answer.lost {
        return Ok(());
    }
    let mut head = format!("HTTP/1.1 {} Status\r\nConnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("Content-Length: {}\r\n\r\n", answer.body.len());
    stream.write_all(head.as_bytes())?;
    if request.method != "HEAD" {
        stream.write_all(&answer.body)?;
    }
    stream.flush()
}

fn head(input: &mut impl BufRead) -> std::io::Result<Request> {
    let mut line = String::new();
    input.read_line(&mut line)?;
    let mut words = line.split(' ').map(str::to_owned);
    let mut request = Request {
        method: words.next().unwrap_or_default(),
        target: words.next().unwrap_or_default(),
        ..Request::default()
    };
    loop {
        line.clear();
        input.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else { return Ok(request) };
        request.headers.push((name.to_owned(), value.trim().to_owned()));
    }
}

fn body(input: &mut impl BufRead, request: &Request) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if let Some(length) = request.header("content-length") {
        body.resize(length.parse().unwrap(), 0);
        input.read_exact(&mut body)?;
    } else if request.header("transfer-encoding") == Some("chunked") {
        loop {
            let mut size = String::new();
            input.read_line(&mut size)?;
            let size = u64::from_str_radix(size.trim(), 16).unwrap();
            input.by_ref().take(size).read_to_end(&mut body)?;
            input.read_line(&mut String::new())?;
            if size == 0 {
                break;
            }
        }
    }
    Ok(body)
}
