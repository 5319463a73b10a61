//! The queue in RabbitMQ.

use super::Acked;

/// Acknowledges one delivery.
#[derive(Debug)]
pub(crate) struct RabbitAcker;

impl RabbitAcker {
    pub(crate) async fn ack(self) -> Acked {
        Acked::Yes
    }

    pub(crate) async fn requeue(self) -> Acked {
        Acked::Yes
    }
}
