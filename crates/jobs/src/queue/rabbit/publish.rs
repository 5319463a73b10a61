//! Publishing with confirms, hundreds at a time.
//!
//! One task owns the channel. lapin numbers a publication and queues its frames in two steps, so
//! two tasks on one channel could get each other's confirm. And it gives a returned message to
//! whichever confirm comes next: so each publication carries a number (`correlation_id`), and
//! nobody is told that a message is stored before every confirm up to its own was looked at.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::supervisor::{Common, Link, Pause};
use crate::queue::{Message, QueueError};

/// Publications without a confirm: several windows of a feeder. More wait outside.
const IN_FLIGHT_MAX: usize = 4096;
/// Those that wait for the task: it takes them at once unless its flight is full.
const WAITING_MAX: usize = 1024;
const OPEN_LIMIT: Duration = Duration::from_secs(10);

/// Where a message goes.
pub(super) struct Route {
    pub(super) exchange: String,
    pub(super) key: String,
}

struct Request {
    route: Route,
    body: Bytes,
    properties: BasicProperties,
    reply: oneshot::Sender<Result<(), QueueError>>,
}

/// Publishes over a link.
pub(super) struct Publisher {
    requests: mpsc::Sender<Request>,
    link: Link,
    common: Arc<Common>,
    limit: Duration,
}

impl Publisher {
    pub(super) fn start(link: Link, common: Arc<Common>, limit: Duration) -> Self {
        let (requests, receiver) = mpsc::channel(WAITING_MAX);
        let task = serve(link.clone(), common.clone(), receiver);
        let until = common.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = task => {}
                () = until.until_closed() => {}
            }
        });
        Self { requests, link, common, limit }
    }

    pub(super) async fn publish(&self, route: Route, message: Message) -> Result<(), QueueError> {
        let mut blocked = self.common.blocked.subscribe();
        if let Some(reason) = blocked.borrow().clone() {
            return Err(QueueError::Blocked(reason));
        }
        if self.link.now().is_none() {
            return Err(self.common.unavailable());
        }
        let (reply, answer) = oneshot::channel();
        let properties = properties(&message);
        let request = Request { route, body: message.body, properties, reply };
        let confirmed = async {
            let gone = |_| self.common.unavailable();
            self.requests.send(request).await.map_err(|_| self.common.unavailable())?;
            answer.await.map_err(gone)?
        };
        tokio::select! {
            biased;
            done = timeout(self.limit, confirmed) => {
                done.unwrap_or(Err(QueueError::Timeout(self.limit)))
            }
            reason = blocked.wait_for(Option::is_some) => {
                let reason = reason.ok().and_then(|reason| reason.clone());
                Err(QueueError::Blocked(reason.unwrap_or_default()))
            }
        }
    }
}

fn properties(message: &Message) -> BasicProperties {
    let mut headers = FieldTable::default();
    if let Some(trace) = &message.traceparent {
        headers.insert("traceparent".into(), AMQPValue::LongString(trace.as_str().into()));
    }
    // What a person reads in the broker's pages; nothing is decided by it.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_content_type("application/json".into())
        .with_type(message.kind.as_str().into())
        .with_message_id(message.id.as_str().into())
        .with_timestamp(now)
        .with_headers(headers);
    match message.expires {
        Some(after) => properties.with_expiration(after.as_millis().to_string().into()),
        None => properties,
    }
}

/// Opens a channel whenever there is a connection, and publishes over it.
async fn serve(mut link: Link, common: Arc<Common>, mut requests: mpsc::Receiver<Request>) {
    let mut pause = Pause::new();
    loop {
        let connection = link.wait().await;
        match open(&connection).await {
            Ok(channel) => {
                let mut flight = Flight::new(channel);
                if !flight.run(&mut requests).await {
                    return;
                }
                if flight.last > 0 {
                    pause = Pause::new();
                }
            }
            Err(error) => common.went_wrong("a channel to publish", &error),
        }
        pause.wait().await;
    }
}

async fn open(connection: &Connection) -> Result<Channel, String> {
    let opening = async {
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        lapin::Result::Ok(channel)
    };
    match timeout(OPEN_LIMIT, opening).await {
        Ok(opened) => opened.map_err(|error| error.to_string()),
        Err(_) => Err(format!("not open within {} s", OPEN_LIMIT.as_secs())),
    }
}

type Confirmed = (u64, Route, oneshot::Sender<Result<(), QueueError>>, lapin::Result<Confirmation>);

/// What is published over one channel.
struct Flight {
    channel: Channel,
    pending: FuturesUnordered<BoxFuture<'static, Confirmed>>,
    /// Publications that came back, whoever's confirm told it.
    returned: HashSet<u64>,
    last: u64,
}

impl Flight {
    fn new(channel: Channel) -> Self {
        Self { channel, pending: FuturesUnordered::new(), returned: HashSet::new(), last: 0 }
    }

    /// Until the channel is closed, and all who wait are answered; false if nobody publishes any
    /// more.
    async fn run(&mut self, requests: &mut mpsc::Receiver<Request>) -> bool {
        loop {
            let room = self.pending.len() < IN_FLIGHT_MAX && self.channel.status().connected();
            tokio::select! {
                biased;
                Some(first) = self.pending.next() => self.settle(first),
                request = requests.recv(), if room => match request {
                    Some(request) => self.send(request),
                    None => return false,
                },
                // An idle channel can close without a word.
                () = tokio::time::sleep(Duration::from_secs(1)), if self.pending.is_empty() => {}
            }
            if self.pending.is_empty() && !self.channel.status().connected() {
                return true;
            }
        }
    }

    fn send(&mut self, request: Request) {
        let Request { route, body, properties, reply } = request;
        if reply.is_closed() {
            // Whoever asked has given up.
            return;
        }
        self.last += 1;
        let (number, channel) = (self.last, self.channel.clone());
        let properties = properties.with_correlation_id(number.to_string().into());
        let publication = async move {
            let options = BasicPublishOptions { mandatory: true, ..Default::default() };
            let (exchange, key) = (route.exchange.as_str().into(), route.key.as_str().into());
            let confirm = channel.basic_publish(exchange, key, options, &body, properties);
            let confirmed = async { confirm.await?.await };
            let confirmed = confirmed.await;
            (number, route, reply, confirmed)
        };
        let mut publication = publication.boxed();
        // The first poll numbers it and queues its frames, in this order for all of them.
        match (&mut publication).now_or_never() {
            Some(refused) => self.settle(refused),
            None => self.pending.push(publication),
        }
    }

    /// Answers this one and all others that are confirmed by now. A message that came back is
    /// told by a confirm no later than its own: so all are taken before any is answered.
    fn settle(&mut self, first: Confirmed) {
        let mut confirmed = vec![first];
        // Nothing twice could only mean that the set took a break (it does after as many futures
        // as it holds); three times is more than it can have work for.
        let mut nothing = 0;
        while nothing < 3 {
            match self.pending.next().now_or_never().flatten() {
                Some(next) => confirmed.push(next),
                None => nothing += 1,
            }
        }
        for (.., result) in &confirmed {
            if let Ok(Confirmation::Ack(Some(message)) | Confirmation::Nack(Some(message))) = result
            {
                let number = message.properties.correlation_id().as_ref();
                self.returned.extend(number.and_then(|number| number.as_str().parse::<u64>().ok()));
            }
        }
        for (number, route, reply, result) in confirmed {
            let came_back = self.returned.remove(&number);
            // Whoever has given up does not read it.
            let _ = reply.send(answer(came_back, &route, result));
        }
    }
}

fn answer(
    came_back: bool,
    route: &Route,
    result: lapin::Result<Confirmation>,
) -> Result<(), QueueError> {
    match result {
        _ if came_back => Err(QueueError::Unroutable(route.key.clone())),
        Ok(Confirmation::Ack(_)) => Ok(()),
        Ok(Confirmation::Nack(_)) => Err(QueueError::Full(route.key.clone())),
        Ok(Confirmation::NotRequested) => {
            Err(QueueError::Unavailable("the channel does not confirm".to_owned()))
        }
        Err(error) if super::topology::is_missing(&error, &route.exchange) => {
            Err(QueueError::Unroutable(route.key.clone()))
        }
        Err(error) => Err(QueueError::Unavailable(error.to_string())),
    }
}
