//! The objects in the broker: which there are, and with which arguments.
//!
//! Arguments can never change, so there are few of them; what operators tune is in policies.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};

use super::{refusal, unavailable};
use crate::job::Lane;
use crate::keys;
use crate::queue::QueueError;
use crate::retry::Rung;

/// An exchange; all are durable.
pub(super) struct Exchange {
    pub(super) name: String,
    pub(super) kind: ExchangeKind,
}

/// A queue; all are durable quorum queues.
pub(super) struct QueueObject {
    pub(super) name: String,
    /// Beside `x-queue-type`.
    pub(super) arguments: Vec<(&'static str, AMQPValue)>,
    /// The exchange it is bound to by its own name; none for the default exchange alone.
    pub(super) exchange: Option<String>,
}

/// All exchanges.
pub(super) fn exchanges() -> Vec<Exchange> {
    let fanout = |name| Exchange { name, kind: ExchangeKind::Fanout };
    let mut all = vec![Exchange { name: keys::jobs_exchange(), kind: ExchangeKind::Direct }];
    all.extend(Rung::ALL.map(|rung| fanout(keys::delay_queue(rung))));
    all.push(fanout(keys::dead_queue()));
    all
}

/// All queues for these classes.
pub(super) fn queues(classes: &[String]) -> Vec<QueueObject> {
    let mut all: Vec<QueueObject> = Rung::ALL.map(rung_queue).into();
    all.push(QueueObject {
        name: keys::control_queue(),
        arguments: vec![("x-single-active-consumer", AMQPValue::Boolean(true))],
        exchange: None,
    });
    let name = keys::dead_queue();
    all.push(QueueObject { exchange: Some(name.clone()), name, arguments: Vec::new() });
    for class in classes {
        all.extend(Lane::ALL.map(|lane| QueueObject {
            name: keys::jobs_queue(class, lane),
            arguments: Vec::new(),
            exchange: Some(keys::jobs_exchange()),
        }));
    }
    all
}

/// Messages wait as long as the rung says, then go to the jobs exchange with their own key.
fn rung_queue(rung: Rung) -> QueueObject {
    let text = |text: &str| AMQPValue::LongString(text.into());
    let milliseconds = i32::try_from(rung.seconds() * 1000).unwrap_or(i32::MAX);
    QueueObject {
        name: keys::delay_queue(rung),
        arguments: vec![
            ("x-message-ttl", AMQPValue::LongInt(milliseconds)),
            ("x-dead-letter-exchange", text(&keys::jobs_exchange())),
            // Otherwise a message can be lost between the two queues.
            ("x-dead-letter-strategy", text("at-least-once")),
            ("x-overflow", text("reject-publish")),
        ],
        exchange: Some(keys::delay_queue(rung)),
    }
}

/// The arguments as they are sent.
pub(super) fn table(arguments: &[(&'static str, AMQPValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    table.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    for (name, value) in arguments {
        table.insert((*name).into(), value.clone());
    }
    table
}

/// Makes what is missing.
pub(super) async fn declare(channel: &Channel, classes: &[String]) -> Result<(), QueueError> {
    for Exchange { name, kind } in exchanges() {
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let declared =
            channel.exchange_declare(name.as_str().into(), kind, options, FieldTable::default());
        declared.await.map_err(|error| explain(&error, "exchange", &name))?;
    }
    for QueueObject { name, arguments, exchange } in queues(classes) {
        let options = QueueDeclareOptions::durable();
        let declared = channel.queue_declare(name.as_str().into(), options, table(&arguments));
        declared.await.map_err(|error| explain(&error, "queue", &name))?;
        let Some(exchange) = exchange else { continue };
        let (queue, exchange) = (name.as_str().into(), exchange.as_str().into());
        let options = QueueBindOptions::default();
        let bound = channel.queue_bind(
            queue,
            exchange,
            name.as_str().into(),
            options,
            FieldTable::default(),
        );
        bound.await.map_err(|error| explain(&error, "queue", &name))?;
    }
    Ok(())
}

/// What the broker's refusal means, and the two ways out.
pub(super) fn explain(error: &lapin::Error, object: &str, name: &str) -> QueueError {
    match refusal(error) {
        // "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue … received … current …"
        Some((406, text)) => QueueError::Topology(format!(
            "the {object} `{name}` is there with other arguments: {text}; nothing was changed. \
             If it is empty and not Excite's any more, delete it (`rabbitmqctl delete_{object} \
             {name}`) and start again; or give Excite a vhost of its own in broker.url"
        )),
        Some((403, text)) => QueueError::Topology(format!(
            "the {object} `{name}` may not be declared: {text}; give the dispatcher's user the \
             permission to configure `^excite\\.`"
        )),
        Some((540 | 503, text)) => QueueError::Topology(format!(
            "the broker cannot declare the {object} `{name}`: {text}; RabbitMQ 3.10 or later is needed"
        )),
        _ => unavailable(error),
    }
}
