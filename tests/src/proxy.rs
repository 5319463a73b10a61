//! A TCP proxy that spoils what goes through it: slow, narrow, dead, cut or reset links.
//!
//! Knows no protocol. Bytes are read only when those before have been written, so a link that is
//! slow on one side is slow on the other.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, sleep_until};

use crate::ports::Port;

/// Bytes that are on their way at a time, in each direction of a connection.
const BUFFER: usize = 16 * 1024;
/// What a narrow link lets through at a time, in parts of a second.
const PORTION: u64 = 20;

/// What happens to bytes on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// They arrive.
    None,
    /// They arrive later by this.
    Delay(Duration),
    /// So many arrive a second, in each direction of each connection.
    Throttle(u64),
    /// None arrive, and nobody is told: connections stay open, and new ones are taken.
    HalfOpen,
    /// Connections are closed, and new ones as soon as they come.
    Cut,
}

/// A proxy in front of a port of this machine. It ends, with all its connections, when dropped.
#[derive(Debug)]
pub struct Proxy {
    port: Port,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    /// The first that takes a connection gets it.
    targets: Vec<SocketAddr>,
    fault: watch::Sender<Fault>,
    open: Mutex<Open>,
}

/// The connections.
#[derive(Debug, Default)]
struct Open {
    next: u64,
    /// Each with what ends it.
    all: BTreeMap<u64, (AbortHandle, watch::Sender<Fate>)>,
}

/// What becomes of a connection, whatever happens to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    Reset,
    Forgotten,
}

impl Proxy {
    /// Starts one in front of a port.
    ///
    /// # Errors
    /// If there is no free port.
    pub async fn start(target: u16) -> Result<Self> {
        Self::start_before(&[target]).await
    }

    /// Starts one in front of several ports that are as good as each other.
    ///
    /// # Errors
    /// If there is no free port.
    pub async fn start_before(targets: &[u16]) -> Result<Self> {
        let port = Port::free()?;
        let listener = TcpListener::bind(("127.0.0.1", port.number())).await?;
        let state = Arc::new(State {
            targets: targets.iter().map(|port| SocketAddr::from(([127, 0, 0, 1], *port))).collect(),
            fault: watch::Sender::new(Fault::None),
            open: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&state)));
        Ok(Self { port, state, accepting })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// What happens from now on, to the connections that are there and to new ones.
    pub fn set(&self, fault: Fault) {
        self.state.fault.send_replace(fault);
        if fault == Fault::Cut {
            for (abort, _) in std::mem::take(&mut self.state.open().all).into_values() {
                abort.abort();
            }
        }
    }

    /// Resets all connections, as a router does that forgot them; says how many there were.
    pub fn reset(&self) -> usize {
        self.state.open().all_become(Fate::Reset)
    }

    /// Forgets all connections without a word: they stay open and dead for ever, while new ones
    /// work; says how many there were.
    pub fn forget(&self) -> usize {
        self.state.open().all_become(Fate::Forgotten)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        for (abort, _) in std::mem::take(&mut self.state.open().all).into_values() {
            abort.abort();
        }
    }
}

impl Open {
    fn all_become(&self, fate: Fate) -> usize {
        for (_, told) in self.all.values() {
            told.send_replace(fate);
        }
        self.all.len()
    }
}

impl State {
    fn open(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    loop {
        // What fails here is that one connection.
        let Ok((client, _)) = listener.accept().await else { continue };
        if *state.fault.borrow() == Fault::Cut {
            continue;
        }
        let fate = watch::Sender::new(Fate::Open);
        let mut open = state.open();
        let id = open.next;
        open.next += 1;
        let link = link(client, Arc::clone(&state), fate.subscribe());
        let ending = Arc::clone(&state);
        let task = tokio::spawn(async move {
            link.await;
            ending.open().all.remove(&id);
        });
        open.all.insert(id, (task.abort_handle(), fate));
    }
}

/// One connection, until either side ends it or its fate is known.
async fn link(mut client: TcpStream, state: Arc<State>, mut fate: watch::Receiver<Fate>) {
    let mut fault = state.fault.subscribe();
    // A dead link reaches nobody, but whoever connects does not know.
    while *fault.borrow_and_update() == Fault::HalfOpen {
        if fault.changed().await.is_err() {
            return;
        }
    }
    // Nobody there: the client sees its connection closed.
    let Ok(mut server) = TcpStream::connect(&state.targets[..]).await else { return };
    for end in [&client, &server] {
        // Small messages are not collected: a link without faults adds nothing.
        let _ = end.set_nodelay(true);
    }
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let sides = async {
        tokio::join!(
            pass(from_client, to_server, state.fault.subscribe()),
            pass(from_server, to_client, state.fault.subscribe()),
        )
    };
    let fate = tokio::select! {
        _ = sides => Fate::Open,
        fate = fate.wait_for(|fate| *fate != Fate::Open) => fate.map_or(Fate::Open, |fate| *fate),
    };
    match fate {
        Fate::Open => {}
        Fate::Reset => {
            for end in [&client, &server] {
                let _ = end.set_zero_linger();
            }
        }
        // Neither side hears of the other again, nor of the end.
        Fate::Forgotten => std::future::pending().await,
    }
}

/// One direction.
async fn pass(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut fault: watch::Receiver<Fault>) {
    let mut buffer = vec![0; BUFFER];
    loop {
        let now = *fault.borrow_and_update();
        let most = match now {
            Fault::Throttle(rate) => usize::try_from(rate / PORTION).unwrap_or(BUFFER).max(1),
            _ => BUFFER,
        };
        let read = from.read(&mut buffer[..most.min(BUFFER)]).await;
        let Ok(count @ 1..) = read else { break };
        let came = Instant::now();
        if !hold(&mut fault, came, count as u64).await
            || to.write_all(&buffer[..count]).await.is_err()
        {
            break;
        }
    }
    // The other direction may go on; an error means that the end is gone already.
    let _ = to.shutdown().await;
}

/// Waits as long as what came must wait, also when that changes meanwhile; `false` if it is lost.
async fn hold(fault: &mut watch::Receiver<Fault>, came: Instant, bytes: u64) -> bool {
    loop {
        let now = *fault.borrow_and_update();
        let until = match now {
            Fault::None => return true,
            Fault::Cut => return false,
            Fault::HalfOpen => None,
            Fault::Delay(delay) => Some(came + delay),
            Fault::Throttle(rate) => {
                Some(came + Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64))
            }
        };
        let over = async {
            match until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = over => return true,
            changed = fault.changed() => if changed.is_err() { return false },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use tokio::time::timeout;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    /// Something that says again what it hears, behind a proxy; and a connection to it.
    async fn echo() -> (Proxy, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        let proxy = Proxy::start(port).await.unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
        assert_eq!(said(&mut stream, b"hello").await, b"hello");
        (proxy, stream)
    }

    async fn said(stream: &mut TcpStream, what: &[u8]) -> Vec<u8> {
        stream.write_all(what).await.unwrap();
        let mut heard = vec![0; what.len()];
        timeout(LIMIT, stream.read_exact(&mut heard)).await.unwrap().unwrap();
        heard
    }

    #[tokio::test]
    async fn a_slow_link_delays_and_a_narrow_one_takes_its_time() {
        let (proxy, mut stream) = echo().await;
        let delay = Duration::from_millis(150);
        proxy.set(Fault::Delay(delay));
        let began = Instant::now();
        assert_eq!(said(&mut stream, b"there and back").await, b"there and back");
        assert!(began.elapsed() >= delay * 2, "{:?}", began.elapsed());
        proxy.set(Fault::Throttle(10_000));
        let much = vec![7; 5000];
        let began = Instant::now();
        assert_eq!(said(&mut stream, &much).await, much);
        assert!(began.elapsed() >= Duration::from_millis(450), "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_dead_link_says_nothing_until_it_lives_again() {
        let (proxy, mut stream) = echo().await;
        proxy.set(Fault::HalfOpen);
        stream.write_all(b"anybody?").await.unwrap();
        let mut newcomer = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
        newcomer.write_all(b"me too").await.unwrap();
        let mut heard = [0; 8];
        let silent = timeout(Duration::from_millis(300), stream.read_exact(&mut heard)).await;
        assert!(silent.is_err(), "{silent:?}");
        proxy.set(Fault::None);
        timeout(LIMIT, stream.read_exact(&mut heard)).await.unwrap().unwrap();
        assert_eq!(&heard, b"anybody?");
        timeout(LIMIT, newcomer.read_exact(&mut heard[..6])).await.unwrap().unwrap();
        assert_eq!(&heard[..6], b"me too");
    }

    #[tokio::test]
    async fn a_cut_link_closes_and_takes_nobody() {
        let (proxy, mut stream) = echo().await;
        proxy.set(Fault::Cut);
        let mut heard = [0; 1];
        let end = timeout(LIMIT, stream.read(&mut heard)).await.unwrap();
        assert!(end.as_ref().map_or(true, |count| *count == 0), "{end:?}");
        let mut newcomer = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
        let end = timeout(LIMIT, newcomer.read(&mut heard)).await.unwrap();
        assert!(end.as_ref().map_or(true, |count| *count == 0), "{end:?}");
        proxy.set(Fault::None);
        let mut again = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
        assert_eq!(said(&mut again, b"back").await, b"back");
    }

    #[tokio::test]
    async fn a_reset_reaches_both_ends_as_one() {
        let (proxy, mut stream) = echo().await;
        assert_eq!(proxy.reset(), 1);
        let mut heard = [0; 1];
        let end = timeout(LIMIT, stream.read(&mut heard)).await.unwrap();
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
        let mut again = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
        assert_eq!(said(&mut again, b"back").await, b"back");
    }

    #[tokio::test]
    async fn a_forgotten_connection_is_dead_and_new_ones_live() {
        let (proxy, mut stream) = echo().await;
        assert_eq!(proxy.forget(), 1);
        stream.write_all(b"anybody?").await.unwrap();
        let silent = timeout(Duration::from_millis(300), stream.read(&mut [0; 8])).await;
        assert!(silent.is_err(), "{silent:?}");
        let mut again = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
        assert_eq!(said(&mut again, b"back").await, b"back");
    }

    #[tokio::test]
    async fn a_target_that_is_away_closes_connections() {
        let port = Port::free().unwrap();
        let proxy = Proxy::start(port.number()).await.unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
        let end = timeout(LIMIT, stream.read(&mut [0; 1])).await.unwrap();
        assert!(end.as_ref().map_or(true, |count| *count == 0), "{end:?}");
    }
}
