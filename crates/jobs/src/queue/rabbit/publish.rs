//! Publishing: persistent, confirmed, bounded in time.

use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Confirmation};
use time::OffsetDateTime;
use tokio::time::timeout;

use super::{CONNECTION, RabbitQueue, refusal, unavailable};
use crate::limits::MESSAGE_BYTES_MAX;
use crate::queue::{Message, QueueError};

/// Survives a restart of the broker.
const PERSISTENT: u8 = 2;
/// The header of the trace context.
pub(super) const TRACEPARENT: &str = "traceparent";

impl RabbitQueue {
    pub(super) async fn send(
        &self,
        exchange: &str,
        key: &str,
        message: Message,
    ) -> Result<(), QueueError> {
        let (bytes, max) = (message.body.len(), MESSAGE_BYTES_MAX);
        if bytes > max {
            return Err(QueueError::TooLarge { bytes, max });
        }
        let link = &self.inner.publishing;
        if let Some(reason) = link.state().blocked {
            return Err(QueueError::Blocked(reason));
        }
        let live = link.live_within(CONNECTION).await?;
        // An unroutable message that is mandatory is confirmed, and comes back.
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let properties = properties(&message);
        let publish = async {
            let channel = &live.channel;
            let (exchange, key) = (exchange.into(), key.into());
            channel.basic_publish(exchange, key, options, &message.body, properties).await?.await
        };
        let limit = self.inner.options.confirm_timeout;
        match timeout(limit, publish).await {
            Ok(Ok(confirmation)) => check(confirmation, key),
            Ok(Err(error)) => {
                // Whatever ended the channel, another one comes with another connection.
                link.broken(live.generation, &error.to_string());
                match refusal(&error) {
                    Some((404, text)) => Err(QueueError::Unroutable(format!("{key}: {text}"))),
                    _ => Err(unavailable(&error)),
                }
            }
            Err(_) => match link.state().blocked {
                Some(reason) => Err(QueueError::Blocked(reason)),
                None => Err(QueueError::Timeout(limit)),
            },
        }
    }
}

fn check(confirmation: Confirmation, key: &str) -> Result<(), QueueError> {
    match confirmation {
        Confirmation::Ack(None) => Ok(()),
        Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)) => {
            Err(QueueError::Unroutable(key.to_owned()))
        }
        Confirmation::Nack(None) => Err(QueueError::Full(key.to_owned())),
        Confirmation::NotRequested => {
            Err(QueueError::Unavailable("the channel gives no confirms".into()))
        }
    }
}

fn properties(message: &Message) -> BasicProperties {
    let seconds = OffsetDateTime::now_utc().unix_timestamp();
    let mut properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(PERSISTENT)
        .with_timestamp(u64::try_from(seconds).unwrap_or(0));
    if !message.kind.is_empty() {
        properties = properties.with_type(message.kind.as_str().into());
    }
    if !message.id.is_empty() {
        properties = properties.with_message_id(message.id.as_str().into());
    }
    if let Some(expires) = message.expires {
        properties = properties.with_expiration(expires.as_millis().to_string().into());
    }
    if let Some(traceparent) = &message.traceparent {
        let mut headers = FieldTable::default();
        headers.insert(TRACEPARENT.into(), AMQPValue::LongString(traceparent.as_str().into()));
        properties = properties.with_headers(headers);
    }
    properties
}
