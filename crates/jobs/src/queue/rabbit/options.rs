//! How to reach a RabbitMQ, and reaching it.

use std::fmt;
use std::time::Duration;

use futures::io::{AsyncReadExt, AsyncWriteExt};
use lapin::tcp::{AMQPUriTcpExt, OwnedTLSConfig};
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties};
use tokio::time::timeout;

use crate::queue::QueueError;

/// How long connecting may take, with TLS and authentication.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
/// No frame of a handshake is larger.
const START_BYTES_MAX: usize = 64 * 1024;

/// How to reach a RabbitMQ.
#[derive(Clone)]
pub struct RabbitOptions {
    /// `amqp://user:password@host:port/vhost`, or `amqps://`.
    pub url: String,
    /// Who connects, as the broker lists it.
    pub name: String,
    /// Certificates (PEM) to trust beside the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// How long a confirm may take.
    pub confirm_timeout: Duration,
    /// A peer that is silent for twice as long is gone. Whole seconds.
    pub heartbeat: Duration,
}

impl RabbitOptions {
    /// The usual times.
    pub fn new(url: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            name: name.into(),
            ca_pem: None,
            confirm_timeout: Duration::from_secs(10),
            heartbeat: Duration::from_secs(10),
        }
    }
}

impl fmt::Debug for RabbitOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = Target::new(self).map(|target| target.place());
        f.debug_struct("RabbitOptions")
            .field("url", &place.unwrap_or_else(|_| "invalid".to_owned()))
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Options that were understood.
pub(super) struct Target {
    uri: AMQPUri,
    name: String,
    ca_pem: Option<String>,
}

impl Target {
    /// The error never holds the URL, for that may hold a password.
    pub(super) fn new(options: &RabbitOptions) -> Result<Self, QueueError> {
        let wrong = |what: &str| {
            QueueError::Unavailable(format!(
                "the broker's URL is invalid: {what}; write `amqp://user:password@host:port/vhost`"
            ))
        };
        let uri: Result<AMQPUri, String> = options.url.parse();
        // The parser's own words may repeat the URL.
        let mut uri = uri.map_err(|_| wrong("it cannot be read"))?;
        if options.url.contains("@[") || options.url.contains("//[") {
            return Err(wrong("an IPv6 address is not supported, name the host"));
        }
        let heartbeat = u16::try_from(options.heartbeat.as_secs()).unwrap_or(u16::MAX);
        uri.query.heartbeat.get_or_insert(heartbeat.max(1));
        let ca_pem = options.ca_pem.clone().map(String::from_utf8).transpose();
        let ca_pem = ca_pem.map_err(|_| {
            QueueError::Unavailable("the broker's certificates are no PEM text".to_owned())
        })?;
        Ok(Self { uri, name: options.name.clone(), ca_pem })
    }

    /// Where it is, without a password.
    pub(super) fn place(&self) -> String {
        let (scheme, authority) = (&self.uri.scheme, &self.uri.authority);
        format!("{scheme}://{}:{}/{}", authority.host, authority.port, self.uri.vhost)
    }

    pub(super) fn vhost(&self) -> &str {
        &self.uri.vhost
    }

    /// Connects once. `what` is shown in the broker's list of connections.
    pub(super) async fn connect(&self, what: &str) -> Result<Connection, String> {
        let name = format!("{} {what}", self.name);
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let runtime = lapin::runtime::default_runtime().map_err(|error| error.to_string())?;
        let connecting =
            Connection::connect_uri_with_config(self.uri.clone(), properties, self.tls(), runtime);
        match timeout(CONNECT_LIMIT, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(format!("{}: {error}", self.place())),
            Err(_) => {
                Err(format!("{}: no connection within {} s", self.place(), CONNECT_LIMIT.as_secs()))
            }
        }
    }

    /// Product and version, such as `RabbitMQ 3.10.8`, from the broker's greeting. lapin reads
    /// and drops it, so a connection of its own asks, which goes no further.
    pub(super) async fn server(&self) -> Option<String> {
        let asking = async {
            let runtime = lapin::runtime::default_runtime().ok()?;
            let config = self.tls();
            let stream = self.uri.connect_with_config_async(config.as_ref(), &runtime).await;
            let mut stream = stream.ok()?;
            stream.write_all(b"AMQP\x00\x00\x09\x01").await.ok()?;
            stream.flush().await.ok()?;
            // Type, channel, size; then the payload.
            let mut head = [0; 7];
            stream.read_exact(&mut head).await.ok()?;
            let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
            let mut start = vec![0; size.min(START_BYTES_MAX)];
            stream.read_exact(&mut start).await.ok()?;
            Some(format!("{} {}", property(&start, "product")?, property(&start, "version")?))
        };
        timeout(CONNECT_LIMIT, asking).await.ok().flatten()
    }

    fn tls(&self) -> OwnedTLSConfig {
        OwnedTLSConfig { cert_chain: self.ca_pem.clone(), ..OwnedTLSConfig::default() }
    }
}

/// A text of an AMQP table: length, name, `S`, length of 4 bytes, text.
fn property(table: &[u8], name: &str) -> Option<String> {
    let mut key = vec![u8::try_from(name.len()).ok()?];
    key.extend(name.as_bytes());
    key.push(b'S');
    let at = table.windows(key.len()).position(|window| window == key)? + key.len();
    let size = u32::from_be_bytes(table.get(at..at + 4)?.try_into().ok()?) as usize;
    let text = table.get(at + 4..(at + 4).checked_add(size)?)?;
    String::from_utf8(text.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_shown() {
        for url in ["amqp://me:secret@host:7/v", "secret", "amqp:secret", "http://me:secret@host"] {
            let options = RabbitOptions::new(url, "test");
            let shown = format!("{options:?}");
            assert!(!shown.contains("secret"), "{shown}");
            if let Err(error) = Target::new(&options) {
                assert!(!error.to_string().contains("secret"), "{error}");
            }
        }
        let options = RabbitOptions::new("amqps://me:secret@host/v", "test");
        assert_eq!(Target::new(&options).unwrap().place(), "amqps://host:5671/v");
    }

    #[test]
    fn the_version_is_found_in_the_greeting() {
        let start = b"\x00\x0a\x00\x0a\x00\x09\x00\x00\x00\x40\x07productS\x00\x00\x00\x08RabbitMQ\
                      \x07versionS\x00\x00\x00\x063.10.8";
        assert_eq!(property(start, "product").as_deref(), Some("RabbitMQ"));
        assert_eq!(property(start, "version").as_deref(), Some("3.10.8"));
        assert_eq!(property(start, "platform"), None);
        assert_eq!(property(&start[..start.len() - 1], "version"), None);
    }
}
