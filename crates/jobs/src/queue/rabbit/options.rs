//! How RabbitMQ is reached.

use std::fmt;
use std::time::Duration;

use lapin::tcp::OwnedTLSConfig;
use lapin::uri::AMQPUri;

use crate::queue::QueueError;

/// Seconds between two heartbeats: a peer that is gone is noticed after two.
const HEARTBEAT_SECONDS: u16 = 10;

/// How RabbitMQ is reached.
#[derive(Clone)]
pub struct RabbitOptions {
    /// `amqp://user:password@host:port/vhost`, or `amqps://`.
    pub url: String,
    /// Shown in the broker's list of connections.
    pub name: String,
    /// Certificates (PEM) to trust beside the system's.
    pub ca_pem: Option<String>,
    /// How long a confirm may take.
    pub confirm_timeout: Duration,
}

impl RabbitOptions {
    /// A broker with usual settings.
    pub fn new(url: impl Into<String>, name: impl Into<String>) -> Self {
        let confirm_timeout = Duration::from_secs(10);
        Self { url: url.into(), name: name.into(), ca_pem: None, confirm_timeout }
    }

    pub(super) fn address(&self) -> Result<Address, QueueError> {
        // The error must not repeat the URL: it may hold a password.
        let mut uri: AMQPUri = self.url.parse().map_err(|error| {
            QueueError::Topology(format!(
                "the broker's URL cannot be read: {error}; write `amqp://user:password@host:5672/vhost`"
            ))
        })?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        let tls = OwnedTLSConfig { identity: None, cert_chain: self.ca_pem.clone() };
        Ok(Address { uri, tls })
    }
}

impl fmt::Debug for RabbitOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitOptions").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A broker's URL and whom to trust there.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) uri: AMQPUri,
    pub(super) tls: OwnedTLSConfig,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_in_no_error_and_no_debug_text() {
        for url in ["http://u:secret@h", "amqp://u:secret@h:port/", "secret"] {
            let options = RabbitOptions::new(url, "x");
            assert!(!format!("{options:?}").contains("secret"));
            let error = options.address().map(|_| ()).unwrap_err().to_string();
            assert!(!error.contains("u:secret"), "{error}");
        }
        let address = RabbitOptions::new("amqps://u:p@h/v", "x").address().unwrap();
        assert_eq!((address.uri.vhost.as_str(), address.uri.query.heartbeat), ("v", Some(10)));
    }
}
