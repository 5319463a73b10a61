//! The queue in RabbitMQ.
//!
//! Two connections: one publishes, the other consumes, acknowledges and asks. A broker that is short
//! of memory or disk blocks connections that publish, and a blocked connection could not
//! acknowledge either. Each connection has one supervisor that makes it again after any error and
//! never gives up (`connection`); the client library's own recovery is off, because it hides that
//! deliveries were lost.
//!
//! Not here: what the objects in the broker are (`topology`).

mod connection;
mod consume;
mod options;
mod publish;
mod topology;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use tokio::time::timeout;

use super::{Consumer, Depth, Health, Message, Queue, QueueError, QueueName};
use crate::job::Lane;
use crate::keys;
use crate::retry::Rung;

use connection::{Link, Live, Purpose};
pub(crate) use consume::RabbitAcker;
pub use options::RabbitOptions;

/// How long the broker may take to answer a question.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a call waits for a connection that is being made.
const CONNECTION: Duration = Duration::from_secs(2);

/// RabbitMQ. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RabbitQueue {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: RabbitOptions,
    publishing: Link,
    consuming: Link,
    /// Asks for depths; closed by the broker when a queue is not there.
    asking: Mutex<Option<(u64, lapin::Channel)>>,
}

impl RabbitQueue {
    /// Begins to connect and returns at once: the broker may come later.
    ///
    /// # Errors
    /// If the URL or the certificates cannot be read.
    pub fn connect(options: RabbitOptions) -> Result<Self, QueueError> {
        let address = options.address()?;
        let publishing = Link::start(address.clone(), &options.name, Purpose::Publish);
        let consuming = Link::start(address, &options.name, Purpose::Consume);
        let inner = Inner { options, publishing, consuming, asking: Mutex::new(None) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// A channel for one task of topology, closed behind it.
    async fn channel(&self) -> Result<lapin::Channel, QueueError> {
        let live = self.inner.consuming.live_within(CONNECTION).await?;
        open_channel(&live).await
    }

    async fn asking(&self) -> Result<lapin::Channel, QueueError> {
        let live = self.inner.consuming.live_within(CONNECTION).await?;
        let lock = || self.inner.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = lock().clone();
        if let Some((generation, channel)) = kept
            && generation == live.generation
            && channel.status().connected()
        {
            return Ok(channel);
        }
        let channel = open_channel(&live).await?;
        *lock() = Some((live.generation, channel.clone()));
        Ok(channel)
    }
}

async fn open_channel(live: &Live) -> Result<lapin::Channel, QueueError> {
    let opened = timeout(ANSWER, live.connection.create_channel()).await;
    opened.map_err(|_| QueueError::Timeout(ANSWER))?.map_err(|error| unavailable(&error))
}

fn unavailable(error: &lapin::Error) -> QueueError {
    QueueError::Unavailable(error.to_string())
}

/// What the broker answered, if it was the broker: code and text.
fn refusal(error: &lapin::Error) -> Option<(u16, String)> {
    match error.kind() {
        lapin::ErrorKind::ProtocolError(error) => {
            Some((error.get_id(), error.get_message().to_string()))
        }
        _ => None,
    }
}

#[async_trait]
impl Queue for RabbitQueue {
    async fn declare(&self, classes: &[String]) -> Result<(), QueueError> {
        let channel = self.channel().await?;
        let declared = timeout(6 * ANSWER, topology::declare(&channel, classes)).await;
        declared.map_err(|_| QueueError::Timeout(6 * ANSWER))?
    }

    async fn publish_job(
        &self,
        class: &str,
        lane: Lane,
        rung: Option<Rung>,
        message: Message,
    ) -> Result<(), QueueError> {
        // A rung's exchange fans out, so the key stays the job's own and takes it back from there.
        let exchange = rung.map_or_else(keys::jobs_exchange, keys::delay_queue);
        self.send(&exchange, &keys::jobs_queue(class, lane), message).await
    }

    async fn publish(&self, queue: &QueueName, message: Message) -> Result<(), QueueError> {
        self.send("", &queue.key(), message).await
    }

    async fn consume(&self, queue: &QueueName, prefetch: u16) -> Consumer {
        consume::start(self.inner.consuming.clone(), queue.key(), prefetch)
    }

    async fn depth(&self, queue: &QueueName) -> Result<Depth, QueueError> {
        let channel = self.asking().await?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let key = queue.key();
        let declare = channel.queue_declare(key.as_str().into(), options, FieldTable::default());
        let answer = timeout(ANSWER, declare).await.map_err(|_| QueueError::Timeout(ANSWER))?;
        match answer {
            Ok(answer) => Ok(Depth {
                ready: u64::from(answer.message_count()),
                consumers: u64::from(answer.consumer_count()),
            }),
            Err(error) => match refusal(&error) {
                Some((404, _)) => Err(QueueError::Unroutable(key)),
                _ => Err(unavailable(&error)),
            },
        }
    }

    fn health(&self) -> Health {
        let (publishing, consuming) = (self.inner.publishing.state(), self.inner.consuming.state());
        Health {
            connected: publishing.connected && consuming.connected,
            blocked: publishing.blocked.is_some(),
            server: consuming.server,
            last_error: consuming.last_error.or(publishing.last_error),
        }
    }

    async fn close(&self) {
        self.inner.publishing.close().await;
        self.inner.consuming.close().await;
    }

}
