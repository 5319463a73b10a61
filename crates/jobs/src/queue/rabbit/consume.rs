//! Subscriptions, which are made again whenever their channel or connection is lost.
//!
//! Each has a channel of its own: an acknowledgement belongs to its channel, and a fault of one
//! subscription is none of another's.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::supervisor::{Common, Link, Pause};
use crate::queue::{Acked, Acker, AckerKind, Consumer, Delivery};

/// How long an acknowledgement may take to be written, and the broker to answer a question.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Acknowledges one delivery. It keeps its channel open.
#[derive(Debug)]
pub(crate) struct RabbitAcker {
    acker: lapin::Acker,
    _channel: Channel,
}

impl RabbitAcker {
    pub(crate) async fn ack(self) -> Acked {
        acked(timeout(ANSWER_LIMIT, self.acker.ack(BasicAckOptions::default())).await)
    }

    pub(crate) async fn requeue(self) -> Acked {
        acked(timeout(ANSWER_LIMIT, self.acker.nack(give_back())).await)
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.acker.poisoned()
    }
}

/// `Ok(false)` is how lapin says that the channel is gone.
fn acked<E>(written: Result<lapin::Result<bool>, E>) -> Acked {
    match written {
        Ok(Ok(true)) => Acked::Yes,
        _ => Acked::LeaseLost,
    }
}

fn give_back() -> BasicNackOptions {
    BasicNackOptions { multiple: false, requeue: true }
}

/// Subscribes as soon as there is a connection and the queue, again and again.
pub(super) fn subscribe(link: Link, common: Arc<Common>, key: String, prefetch: u16) -> Consumer {
    let prefetch = prefetch.max(1);
    // No more than the prefetch is ever live; what lost its connection may lie beside it.
    let (deliveries, receiver) = mpsc::channel(2 * usize::from(prefetch));
    let (end, ended) = oneshot::channel();
    tokio::spawn(async move {
        let subscription = Subscription { link, key, prefetch, deliveries, ended };
        tokio::select! {
            () = subscription.run(&common) => {}
            () = common.until_closed() => {}
        }
    });
    // Without the task, everything went back with the connection.
    Consumer::new(receiver, move |untaken| drop(end.send(untaken)))
}

struct Subscription {
    link: Link,
    key: String,
    prefetch: u16,
    deliveries: mpsc::Sender<Delivery>,
    /// The consumer was dropped, with what it had not taken.
    ended: oneshot::Receiver<Vec<Delivery>>,
}

impl Subscription {
    async fn run(mut self, common: &Common) {
        let mut pause = Pause::new();
        loop {
            let opened = tokio::select! {
                _ = &mut self.ended => return,
                connection = self.link.wait() => open(&connection, &self.key, self.prefetch).await,
            };
            match opened {
                Ok((channel, consumer)) => {
                    pause = Pause::new();
                    let Some(why) = self.follow(channel, consumer).await else { return };
                    common.went_wrong(&format!("consumer of `{}`", self.key), &why);
                }
                Err(error) => common.went_wrong(&format!("consumer of `{}`", self.key), &error),
            }
            tokio::select! {
                _ = &mut self.ended => return,
                () = pause.wait() => {}
            }
        }
    }

    /// Hands on what comes, until the subscription is lost: then why. Nothing if it was ended.
    async fn follow(&mut self, channel: Channel, mut consumer: lapin::Consumer) -> Option<String> {
        loop {
            let came = tokio::select! {
                untaken = &mut self.ended => {
                    cancel(&channel, consumer, untaken.unwrap_or_default(), None).await;
                    return None;
                }
                came = consumer.next() => came,
            };
            let delivery = match came {
                Some(Ok(delivery)) => delivery,
                Some(Err(error)) => return Some(error.to_string()),
                None => return Some("the broker cancelled it".to_owned()),
            };
            let delivery = convert(delivery, &channel);
            tokio::select! {
                untaken = &mut self.ended => {
                    let untaken = untaken.unwrap_or_default();
                    cancel(&channel, consumer, untaken, Some(delivery)).await;
                    return None;
                }
                // Somebody drops the consumer this moment: then `ended` says so next, and
                // the delivery must not be lost meanwhile.
                permit = self.deliveries.reserve() => match permit {
                    Ok(permit) => permit.send(delivery),
                    Err(_) => {
                        let untaken = (&mut self.ended).await.unwrap_or_default();
                        cancel(&channel, consumer, untaken, Some(delivery)).await;
                        return None;
                    }
                },
            }
        }
    }
}

async fn open(
    connection: &Connection,
    key: &str,
    prefetch: u16,
) -> Result<(Channel, lapin::Consumer), String> {
    let opening = async {
        let channel = connection.create_channel().await?;
        channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        let consumer = channel.basic_consume(key.into(), "".into(), options, arguments).await?;
        lapin::Result::Ok((channel, consumer))
    };
    match timeout(ANSWER_LIMIT, opening).await {
        Ok(opened) => opened.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", ANSWER_LIMIT.as_secs())),
    }
}

/// Ends a subscription, then gives back what nobody took: earlier, the broker would deliver it
/// here again, which counts. What was taken keeps the channel.
async fn cancel(
    channel: &Channel,
    mut consumer: lapin::Consumer,
    untaken: Vec<Delivery>,
    in_hand: Option<Delivery>,
) {
    let tag = consumer.tag();
    let cancelling = channel.basic_cancel(tag, BasicCancelOptions::default());
    // If the channel is lost, everything goes back without us.
    if !matches!(timeout(ANSWER_LIMIT, cancelling).await, Ok(Ok(()))) {
        return;
    }
    let rest = std::iter::from_fn(|| consumer.next().now_or_never().flatten()?.ok());
    let rest: Vec<_> = rest.map(|delivery| convert(delivery, channel)).collect();
    for delivery in untaken.into_iter().chain(in_hand).chain(rest) {
        delivery.acker.requeue().await;
    }
}

fn convert(delivery: lapin::message::Delivery, channel: &Channel) -> Delivery {
    let headers = delivery.properties.headers();
    let header = |name: &str| headers.as_ref().and_then(|headers| text(headers.inner().get(name)?));
    Delivery {
        traceparent: header("traceparent"),
        published_at: published_at(&delivery.properties),
        dead_reason: header("x-first-death-reason"),
        redelivered: delivery.redelivered,
        body: Bytes::from(delivery.data),
        acker: Acker(AckerKind::Rabbit(RabbitAcker {
            acker: delivery.acker,
            _channel: channel.clone(),
        })),
    }
}

/// None also where another client wrote a time that there is not.
fn published_at(properties: &BasicProperties) -> Option<SystemTime> {
    let since = Duration::from_secs((*properties.timestamp())?);
    SystemTime::UNIX_EPOCH.checked_add(since)
}

fn text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => String::from_utf8(text.as_bytes().to_vec()).ok(),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}
