//! Consuming: a channel a consumer, made again whenever it or its connection is lost.

use std::time::Duration;

use futures::StreamExt;
use lapin::message::Delivery as Received;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Consumer as Subscription};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::connection::Link;
use super::publish::TRACEPARENT;
use super::{ANSWER, open_channel};
use crate::queue::{Acked, Acker, AckerKind, Consumer, Delivery, QueueError};

/// Between two tries to subscribe on a connection that works: the queue may not be there yet.
const AGAIN: Duration = Duration::from_millis(500);

/// Acknowledges one delivery of a channel.
#[derive(Debug)]
pub(crate) struct RabbitAcker {
    acker: lapin::Acker,
    /// A channel that nobody has is closed, and its deliveries go back.
    _channel: Channel,
}

impl RabbitAcker {
    pub(crate) async fn ack(self) -> Acked {
        settled(timeout(ANSWER, self.acker.ack(BasicAckOptions::default())).await)
    }

    /// Whether the channel is known to be gone.
    pub(crate) fn is_lost(&self) -> bool {
        !self.acker.usable()
    }

    pub(crate) async fn requeue(self) -> Acked {
        let options = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
        settled(timeout(ANSWER, self.acker.nack(options)).await)
    }
}

fn settled<E>(answer: Result<lapin::Result<bool>, E>) -> Acked {
    match answer {
        Ok(Ok(true)) => Acked::Yes,
        // Of a connection that is gone, or no answer: the message is delivered again.
        _ => Acked::LeaseLost,
    }
}

/// Subscribes to a queue, now or once there is a connection.
pub(super) fn start(link: Link, queue: String, prefetch: u16) -> Consumer {
    let (sender, deliveries) = mpsc::channel(usize::from(prefetch.max(1)));
    let (subscription, stop) = watch::channel(());
    let pump = Pump { link, queue, prefetch: prefetch.max(1), sender };
    tokio::spawn(pump.run(stop));
    Consumer::new(deliveries, move |untaken| {
        // Before the pump hears of it: it must not send what nobody can take.
        drop(subscription);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            for delivery in untaken {
                delivery.acker.requeue().await;
            }
        });
    })
}

struct Pump {
    link: Link,
    queue: String,
    prefetch: u16,
    /// As many as can be unacknowledged, so sending never waits.
    sender: mpsc::Sender<Delivery>,
}

impl Pump {
    /// Until the consumer is dropped, or the link closed for good.
    async fn run(self, mut stop: watch::Receiver<()>) {
        // An error means that the other end, the consumer, was dropped.
        let mut dropped = async || while stop.changed().await.is_ok() {};
        loop {
            let live = tokio::select! {
                () = dropped() => return,
                live = self.link.live() => live,
            };
            let Some(live) = live else { return };
            let subscribed = async {
                let channel = open_channel(&live).await?;
                let subscription = self.subscribe(&channel).await?;
                Ok::<_, QueueError>((channel, subscription))
            };
            let failed = match subscribed.await {
                Ok((channel, mut subscription)) => {
                    let ended = tokio::select! {
                        () = dropped() => None,
                        why = self.forward(&channel, &mut subscription) => Some(why),
                    };
                    match ended {
                        Some(why) => why,
                        None => return cancel(channel, subscription).await,
                    }
                }
                Err(error) => error.to_string(),
            };
            debug!(queue = self.queue, failed, "the subscription ended");
            self.link.failed(format!("{}: {failed}", self.queue));
            tokio::select! {
                () = dropped() => return,
                () = sleep(AGAIN) => {}
            }
        }
    }

    async fn subscribe(&self, channel: &Channel) -> Result<Subscription, QueueError> {
        let subscribe = async {
            channel.basic_qos(self.prefetch, BasicQosOptions::default()).await?;
            let (queue, tag) = (self.queue.as_str().into(), "".into());
            let options = BasicConsumeOptions::default();
            channel.basic_consume(queue, tag, options, FieldTable::default()).await
        };
        let subscribed = timeout(ANSWER, subscribe).await;
        let subscribed = subscribed.map_err(|_| QueueError::Timeout(ANSWER))?;
        subscribed.map_err(|error| QueueError::Unavailable(error.to_string()))
    }

    /// Hands deliveries on until there are no more, and says why.
    async fn forward(&self, channel: &Channel, subscription: &mut Subscription) -> String {
        loop {
            match subscription.next().await {
                Some(Ok(received)) => {
                    let sent = self.sender.send(delivery(received, channel.clone())).await;
                    if let Err(mpsc::error::SendError(delivery)) = sent {
                        delivery.acker.requeue().await;
                    }
                }
                Some(Err(error)) => return error.to_string(),
                None => return "the broker ended it".into(),
            }
        }
    }
}

/// Takes no more; what was on its way goes back.
async fn cancel(channel: Channel, mut subscription: Subscription) {
    let cancelled = channel.basic_cancel(subscription.tag(), BasicCancelOptions::default());
    if !matches!(timeout(ANSWER, cancelled).await, Ok(Ok(()))) {
        return;
    }
    while let Ok(Some(Ok(received))) = timeout(ANSWER, subscription.next()).await {
        delivery(received, channel.clone()).acker.requeue().await;
    }
}

fn delivery(received: Received, channel: Channel) -> Delivery {
    let headers = received.properties.headers().as_ref();
    let text = |name: &str| {
        let value = headers.and_then(|headers| headers.inner().get(name));
        match value {
            Some(AMQPValue::LongString(text)) => Some(text.to_string()),
            Some(AMQPValue::ShortString(text)) => Some(text.to_string()),
            _ => None,
        }
    };
    Delivery {
        traceparent: text(TRACEPARENT),
        dead_reason: text("x-first-death-reason"),
        body: received.data.into(),
        redelivered: received.redelivered,
        acker: Acker(AckerKind::Rabbit(RabbitAcker { acker: received.acker, _channel: channel })),
    }
}
