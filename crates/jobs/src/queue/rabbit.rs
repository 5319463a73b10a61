//! The queue in RabbitMQ 3.10 or later.
//!
//! Two connections: a broker that is short of memory or disk stops reading from the one that
//! publishes, and acknowledgements must not be stuck behind that. Both are made again for ever
//! (`supervisor`); so are the channels on them (`publish`, `consume`). Not here: policies, which
//! AMQP cannot set; `topology` offers them for import.

mod consume;
mod options;
mod publish;
mod supervisor;
pub mod topology;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Channel, Connection};
use tokio::time::timeout;

pub(crate) use consume::RabbitAcker;
pub use options::RabbitOptions;
pub use topology::{Policy, TopologyFinding};

use self::options::Target;
use self::publish::{Publisher, Route};
use self::supervisor::{Common, Link};
use super::{Consumer, Depth, Health, Message, Queue, QueueError, QueueName};
use crate::job::Lane;
use crate::retry::Rung;
use crate::{keys, limits};

const DEPTH_LIMIT: Duration = Duration::from_secs(10);

/// A queue in RabbitMQ. A clone is the same pair of connections; they close with the last one.
#[derive(Clone)]
pub struct RabbitQueue(Arc<Inner>);

struct Inner {
    common: Arc<Common>,
    consuming: Link,
    publishing: Link,
    publisher: Publisher,
    /// Asks for depths, one at a time.
    asking: tokio::sync::Mutex<Option<Channel>>,
}

impl RabbitQueue {
    /// Starts to connect, within a runtime of tokio, and does not wait for it.
    ///
    /// # Errors
    /// Only for options that can never work; the URL is never repeated, for it may hold a password.
    pub fn connect(options: RabbitOptions) -> Result<Self, QueueError> {
        // An error means that the program has chosen its cryptography already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let common = Arc::new(Common::new(Target::new(&options)?));
        let consuming = Link::start(common.clone(), "consumes", false);
        let publishing = Link::start(common.clone(), "publishes", true);
        let limit = options.confirm_timeout;
        let publisher = Publisher::start(publishing.clone(), common.clone(), limit);
        let asking = tokio::sync::Mutex::new(None);
        Ok(Self(Arc::new(Inner { common, consuming, publishing, publisher, asking })))
    }

    /// Looks whether exchanges and queues are as they should be, and makes none.
    ///
    /// # Errors
    /// If the broker cannot be asked.
    pub async fn check(&self, classes: &[String]) -> Result<Vec<TopologyFinding>, QueueError> {
        topology::check(&*self.connection()?, self.0.common.target.vhost(), classes).await
    }

    /// The part of the broker that the URL names.
    pub fn vhost(&self) -> &str {
        self.0.common.target.vhost()
    }

    fn connection(&self) -> Result<Arc<Connection>, QueueError> {
        self.0.consuming.now().ok_or_else(|| self.0.common.unavailable())
    }

    async fn publish_to(&self, route: Route, message: Message) -> Result<(), QueueError> {
        let bytes = message.body.len();
        if bytes > limits::MESSAGE_BYTES_MAX {
            return Err(QueueError::TooLarge { bytes, max: limits::MESSAGE_BYTES_MAX });
        }
        self.0.publisher.publish(route, message).await
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.common.closed.send_replace(true);
    }
}

impl fmt::Debug for RabbitQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RabbitQueue({})", self.0.common.target.place())
    }
}

#[async_trait]
impl Queue for RabbitQueue {
    async fn declare(&self, classes: &[String]) -> Result<(), QueueError> {
        let (connection, common) = (self.connection()?, &self.0.common);
        topology::is_new_enough(common.server().as_deref())?;
        topology::declare(&connection, common.target.vhost(), classes).await
    }

    async fn publish_job(
        &self,
        class: &str,
        lane: Lane,
        rung: Option<Rung>,
        message: Message,
    ) -> Result<(), QueueError> {
        let exchange = rung.map_or_else(keys::jobs_exchange, keys::delay_queue);
        self.publish_to(Route { exchange, key: keys::jobs_queue(class, lane) }, message).await
    }

    async fn publish(&self, queue: &QueueName, message: Message) -> Result<(), QueueError> {
        // Every queue is bound to the default exchange by its name.
        self.publish_to(Route { exchange: String::new(), key: queue.key() }, message).await
    }

    async fn consume(&self, queue: &QueueName, prefetch: u16) -> Consumer {
        let inner = &self.0;
        consume::subscribe(inner.consuming.clone(), inner.common.clone(), queue.key(), prefetch)
    }

    async fn depth(&self, queue: &QueueName) -> Result<Depth, QueueError> {
        let connection = self.connection()?;
        let key = queue.key();
        let asking = async {
            let mut slot = self.0.asking.lock().await;
            let channel = match slot.take().filter(|channel| channel.status().connected()) {
                Some(channel) => channel,
                None => connection.create_channel().await?,
            };
            let options = QueueDeclareOptions { passive: true, ..Default::default() };
            let asked = channel.queue_declare(key.as_str().into(), options, FieldTable::default());
            let queue = asked.await?;
            *slot = Some(channel);
            lapin::Result::Ok(Depth {
                ready: queue.message_count().into(),
                consumers: queue.consumer_count().into(),
            })
        };
        match timeout(DEPTH_LIMIT, asking).await {
            Ok(Ok(depth)) => Ok(depth),
            Ok(Err(error)) if topology::is_missing(&error, &key) => {
                Err(QueueError::Unroutable(key))
            }
            Ok(Err(error)) => Err(QueueError::Unavailable(error.to_string())),
            Err(_) => Err(QueueError::Timeout(DEPTH_LIMIT)),
        }
    }

    fn health(&self) -> Health {
        let inner = &self.0;
        let connected = inner.consuming.now().is_some() && inner.publishing.now().is_some();
        inner.common.health(connected)
    }

    async fn close(&self) {
        let inner = &self.0;
        inner.common.closed.send_replace(true);
        tokio::join!(inner.consuming.clone().ended(), inner.publishing.clone().ended());
    }
}
