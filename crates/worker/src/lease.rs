//! Where jobs come from: a consumer a lane.
//!
//! Bulk deliveries may wait here for the next micro-batch. Express ones may not: somebody waits for
//! them, and another worker may be idle. So there is an express consumer only while nothing runs
//! here, or what runs ends soon. Not here: what is done with deliveries (`worker`).

use std::sync::Arc;
use std::time::Instant;

use excite_jobs::Lane;
use excite_jobs::queue::{Consumer, Delivery, Queue, QueueName};

/// The consumers of a worker.
pub(crate) struct Lanes {
    queue: Arc<dyn Queue>,
    class: String,
    express: Option<Consumer>,
    bulk: Option<Consumer>,
    /// What the bulk consumer may hold.
    bulk_prefetch: u16,
    /// When the express consumer was made.
    express_since: Instant,
}

/// The queue was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed;

impl Lanes {
    /// No consumer yet.
    pub(crate) fn new(queue: Arc<dyn Queue>, class: &str) -> Self {
        Self {
            queue,
            class: class.to_owned(),
            express: None,
            bulk: None,
            bulk_prefetch: 0,
            express_since: Instant::now(),
        }
    }

    /// Takes so many bulk jobs at a time, and so many express ones while nothing runs; 0 for none.
    /// What a consumer holds that ends by this is returned: it was delivered.
    pub(crate) async fn adjust(&mut self, bulk: u16, express: u16) -> Vec<Delivery> {
        let mut left = Vec::new();
        if bulk != self.bulk_prefetch {
            self.bulk_prefetch = bulk;
            left.extend(self.renew_bulk().await);
        }
        if express == 0 {
            left.extend(end(self.express.take()));
        } else if self.express.is_none() {
            let queue = QueueName::jobs(&self.class, Lane::Express);
            self.express = Some(self.queue.consume(&queue, express).await);
            self.express_since = Instant::now();
        }
        left
    }

    /// Takes as many bulk jobs as before, however many are not acknowledged yet. What the consumer
    /// holds that ends by this is returned: it was delivered.
    pub(crate) async fn renew_bulk(&mut self) -> Vec<Delivery> {
        let left = end(self.bulk.take());
        if self.bulk_prefetch > 0 {
            let queue = QueueName::jobs(&self.class, Lane::Bulk);
            self.bulk = Some(self.queue.consume(&queue, self.bulk_prefetch).await);
        }
        left
    }

    /// When the express consumer was made, if there is one: what waits in its queue needs a moment
    /// to arrive.
    pub(crate) fn express_since(&self) -> Option<Instant> {
        self.express.as_ref().map(|_| self.express_since)
    }

    /// The next delivery, express first; waits for ever without consumers. Loses nothing when it
    /// is dropped.
    ///
    /// # Errors
    /// If the queue was closed.
    pub(crate) async fn next(&mut self) -> Result<Delivery, Closed> {
        tokio::select! {
            biased;
            delivery = receive(&mut self.express) => delivery,
            delivery = receive(&mut self.bulk) => delivery,
        }
        .ok_or(Closed)
    }
}

async fn receive(consumer: &mut Option<Consumer>) -> Option<Delivery> {
    match consumer {
        Some(consumer) => consumer.recv().await,
        None => std::future::pending().await,
    }
}

fn end(consumer: Option<Consumer>) -> Vec<Delivery> {
    let Some(mut consumer) = consumer else { return Vec::new() };
    std::iter::from_fn(|| consumer.try_recv()).collect()
}
