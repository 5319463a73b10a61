//! What every replica sends to `control`, leading or not: ticks, and what the broker gave up.

use excite_jobs::queue::{Delivery, Message, QueueError, QueueName};
use excite_jobs::store::{Condition, Store, StoreError};
use excite_jobs::{Control, limits};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};
use uuid::Uuid;

use super::{LeadConfig, Metrics, Pause};
use crate::header::json;
use crate::ports::Ports;

/// How long a tick may wait: an old one says nothing.
const TICK_EXPIRES: std::time::Duration = std::time::Duration::from_secs(1);
/// Dead letters that are held at a time: they are rare.
const DEAD_PREFETCH: u16 = 16;

/// A message for `control`.
pub(crate) fn message(control: &Control) -> Message {
    let expires = matches!(control, Control::Tick { .. }).then_some(TICK_EXPIRES);
    let (body, kind) = (json(control), Control::TYPE.to_owned());
    Message { body, kind, expires, ..Message::default() }
}

/// Sends ticks until `stop`.
pub(super) async fn tick(ports: &Ports, config: &LeadConfig, stop: &CancellationToken) {
    let tick = Control::Tick { from: config.name.clone() };
    let mut every = tokio::time::interval(config.tick);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = every.tick() => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            sent = ports.queue.publish(&QueueName::Control, message(&tick)) => {
                if let Err(error) = sent {
                    debug!(%error, "no tick");
                }
            }
        }
    }
}

/// Hands on to `control` what the broker gave up, until `stop`.
pub(super) async fn dead_letters(ports: &Ports, metrics: &Metrics, stop: &CancellationToken) {
    let mut consumer = ports.queue.consume(&QueueName::Dead, DEAD_PREFETCH).await;
    loop {
        let delivery = tokio::select! {
            () = stop.cancelled() => return,
            delivery = consumer.recv() => delivery,
        };
        let Some(delivery) = delivery else {
            // The queue was closed: the process is ending.
            stop.cancelled().await;
            return;
        };
        if !hand_on(ports, metrics, stop, delivery).await {
            return;
        }
    }
}

/// `false` if stopped before it worked.
async fn hand_on(
    ports: &Ports,
    metrics: &Metrics,
    stop: &CancellationToken,
    delivery: Delivery,
) -> bool {
    let reason = delivery.dead_reason.clone().unwrap_or_else(|| "unknown".into());
    let body = String::from_utf8_lossy(&delivery.body).into_owned();
    let letter = message(&Control::DeadLetter { reason, body });
    let mut pause = Pause::default();
    loop {
        let sent = if letter.body.len() > limits::MESSAGE_BYTES_MAX {
            put_aside(&*ports.store, metrics, &delivery.body).await.map_err(|e| e.to_string())
        } else {
            match ports.queue.publish(&QueueName::Control, letter.clone()).await {
                Err(QueueError::TooLarge { .. }) => {
                    let put = put_aside(&*ports.store, metrics, &delivery.body).await;
                    put.map_err(|e| e.to_string())
                }
                sent => sent.map_err(|e| e.to_string()),
            }
        };
        match sent {
            Ok(()) => {
                delivery.acker.ack().await;
                return true;
            }
            Err(error) => warn!(error, "a dead letter waits"),
        }
        pause.failed();
        tokio::select! {
            () = stop.cancelled() => {
                delivery.acker.requeue().await;
                return false;
            }
            () = pause.wait() => {}
        }
    }
}

/// Stores a message that nobody can read, for a person to look at.
pub(super) async fn put_aside(
    store: &dyn Store,
    metrics: &Metrics,
    body: &bytes::Bytes,
) -> Result<(), StoreError> {
    let key = format!("unreadable/{}", Uuid::now_v7());
    store.put(&key, body.clone(), Condition::Always).await?;
    metrics.unreadable.inc();
    error!(key, "a message cannot be read and was put aside; look at it in the store");
    Ok(())
}
