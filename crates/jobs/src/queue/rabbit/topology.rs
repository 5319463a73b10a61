//! The exchanges, queues and policies in the broker: one list, from which all is declared,
//! checked and exported.
//!
//! A queue's arguments cannot be changed, so they are few and frozen; what operators tune is in
//! policies, which AMQP cannot set. `docs/operations` says how to import them.

mod check;

use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ErrorKind, ExchangeKind};
use serde_json::{Map, Value, json};
use tokio::time::timeout;

pub use check::TopologyFinding;
pub(super) use check::check;

use crate::job::Lane;
use crate::keys;
use crate::queue::QueueError;
use crate::retry::Rung;

const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Deliveries after which the broker gives a job up: a net below our own count of attempts, and
/// high, for every lost connection counts.
const DELIVERY_LIMIT: u32 = 20;
/// Four times the largest window of the feeder.
const JOBS_MAX: u32 = 20_000;

/// What operators may tune, by queue.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// Which queues, as a regular expression.
    pub pattern: String,
    /// Its keys and values.
    pub definition: Value,
}

/// The policies for a broker of such a major version.
pub fn policies(major: u32) -> Vec<Policy> {
    let prefix = keys::BROKER_PREFIX.replace('.', r"\.");
    let jobs = json!({
        "delivery-limit": DELIVERY_LIMIT,
        "dead-letter-exchange": keys::dead_queue(),
        "dead-letter-strategy": "at-least-once",
        "max-length": JOBS_MAX,
        "overflow": "reject-publish",
    });
    let policy = |name: &str, pattern: &str, definition| Policy {
        name: format!("{}.{name}", keys::BROKER_PREFIX),
        pattern: format!(r"^{prefix}\.{pattern}"),
        definition,
    };
    let mut policies = vec![policy("jobs", r"jobs\.", jobs)];
    if major >= 4 {
        // Earlier ones have no limit of their own, and do not know this value.
        policies.push(policy("control", "control$", json!({ "delivery-limit": -1 })));
    }
    policies
}

/// The broker's `definitions.json` for a vhost that serves these classes.
pub fn definitions(vhost: &str, classes: &[String], major: u32) -> Value {
    let (mut exchanges, mut queues, mut bindings) = (Vec::new(), Vec::new(), Vec::new());
    for object in objects(classes) {
        match object {
            Object::Exchange { name, fanout } => exchanges.push(json!({
                "name": name, "vhost": vhost, "type": if fanout { "fanout" } else { "direct" },
                "durable": true, "auto_delete": false, "internal": false, "arguments": {},
            })),
            Object::Queue { name, arguments, exchange } => {
                bindings.extend(exchange.map(|source| {
                    json!({
                        "source": source, "vhost": vhost, "destination": name,
                        "destination_type": "queue", "routing_key": name, "arguments": {},
                    })
                }));
                queues.push(json!({
                    "name": name, "vhost": vhost, "durable": true, "auto_delete": false,
                    "arguments": arguments,
                }));
            }
        }
    }
    let policies = policies(major).into_iter().map(|policy| {
        json!({
            "vhost": vhost, "name": policy.name, "pattern": policy.pattern, "apply-to": "queues",
            "definition": policy.definition, "priority": 1,
        })
    });
    let policies: Vec<Value> = policies.collect();
    json!({
        "exchanges": exchanges, "queues": queues, "bindings": bindings, "policies": policies,
    })
}

/// Something in the broker.
enum Object {
    Exchange {
        name: String,
        fanout: bool,
    },
    /// A quorum queue, bound with its own name.
    Queue {
        name: String,
        arguments: Map<String, Value>,
        exchange: Option<String>,
    },
}

impl Object {
    fn describe(&self) -> String {
        match self {
            Self::Exchange { name, .. } => format!("exchange `{name}`"),
            Self::Queue { name, .. } => format!("queue `{name}`"),
        }
    }
}

/// All of them, exchanges first.
fn objects(classes: &[String]) -> Vec<Object> {
    let exchange = |name, fanout| Object::Exchange { name, fanout };
    let queue = |name, more: &[(&str, Value)], exchange| {
        let quorum = ("x-queue-type", json!("quorum"));
        let arguments = std::iter::once(&quorum).chain(more);
        let arguments = arguments.map(|(key, value)| ((*key).to_owned(), value.clone()));
        Object::Queue { name, arguments: arguments.collect(), exchange }
    };
    let mut all = vec![exchange(keys::jobs_exchange(), false), exchange(keys::dead_queue(), true)];
    all.extend(Rung::ALL.map(|rung| exchange(keys::delay_queue(rung), true)));
    for class in classes {
        for lane in Lane::ALL {
            let name = keys::jobs_queue(class, lane);
            all.push(queue(name, &[], Some(keys::jobs_exchange())));
        }
    }
    for rung in Rung::ALL {
        let name = keys::delay_queue(rung);
        let arguments = [
            ("x-message-ttl", json!(rung.seconds() * 1000)),
            ("x-dead-letter-exchange", json!(keys::jobs_exchange())),
            ("x-dead-letter-strategy", json!("at-least-once")),
            ("x-overflow", json!("reject-publish")),
        ];
        all.push(queue(name.clone(), &arguments, Some(name)));
    }
    let single = [("x-single-active-consumer", json!(true))];
    // By the default exchange.
    all.push(queue(keys::control_queue(), &single, None));
    all.push(queue(keys::dead_queue(), &[], Some(keys::dead_queue())));
    all
}

/// Declares everything.
pub(super) async fn declare(
    connection: &Connection,
    vhost: &str,
    classes: &[String],
) -> Result<(), QueueError> {
    let mut channel = open(connection).await?;
    let mut wrong = None;
    for object in objects(classes) {
        if !channel.status().connected() {
            channel = open(connection).await?;
        }
        if let Err(error) = answer(declare_one(&channel, &object, false)).await {
            let Some(mismatch) = mismatch(&error, &object, vhost) else {
                return Err(refused(&error, &object));
            };
            // It closed the channel. What comes behind it is declared all the same.
            wrong.get_or_insert(mismatch);
            continue;
        }
        if let Object::Queue { name, exchange: Some(exchange), .. } = &object {
            let bound = channel.queue_bind(
                name.as_str().into(),
                exchange.as_str().into(),
                name.as_str().into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            );
            answer(bound).await.map_err(|error| refused(&error, &object))?;
        }
    }
    if channel.status().connected() {
        close(channel).await;
    }
    wrong.map_or(Ok(()), Err)
}

/// Refuses a broker that would accept our arguments and not do what they say.
pub(super) fn is_new_enough(server: Option<&str>) -> Result<(), QueueError> {
    let Some((product, version)) = server.and_then(|server| server.split_once(' ')) else {
        return Ok(());
    };
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let version_parts = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if product == "RabbitMQ" && version_parts < (3, 10) {
        return Err(QueueError::Topology(format!(
            "the broker is RabbitMQ {version}, whose quorum queues cannot delay messages; \
             upgrade it to 3.10 or later, best to 4.x"
        )));
    }
    Ok(())
}

/// Whether this error says that there is no such exchange or queue.
pub(super) fn is_missing(error: &lapin::Error, name: &str) -> bool {
    soft(error).is_some_and(|(kind, text)| {
        matches!(kind, AMQPSoftError::NOTFOUND) && text.contains(&format!("'{name}'"))
    })
}

/// The broker's own words, if it is a fault of one channel.
fn soft(error: &lapin::Error) -> Option<(&AMQPSoftError, &str)> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => match error.kind() {
            AMQPErrorKind::Soft(kind) => Some((kind, error.get_message().as_str())),
            AMQPErrorKind::Hard(_) => None,
        },
        _ => None,
    }
}

async fn declare_one(channel: &Channel, object: &Object, passive: bool) -> lapin::Result<()> {
    match object {
        Object::Exchange { name, fanout } => {
            let kind = if *fanout { ExchangeKind::Fanout } else { ExchangeKind::Direct };
            let options = ExchangeDeclareOptions { passive, durable: true, ..Default::default() };
            channel
                .exchange_declare(name.as_str().into(), kind, options, FieldTable::default())
                .await
        }
        Object::Queue { name, arguments, .. } => {
            let options = QueueDeclareOptions { passive, durable: true, ..Default::default() };
            let declared = channel.queue_declare(name.as_str().into(), options, table(arguments));
            declared.await.map(drop)
        }
    }
}

fn table(arguments: &Map<String, Value>) -> FieldTable {
    let mut table = FieldTable::default();
    for (key, value) in arguments {
        let value = match value {
            Value::Bool(yes) => AMQPValue::Boolean(*yes),
            Value::Number(number) => AMQPValue::LongLongInt(number.as_i64().unwrap_or(i64::MAX)),
            Value::String(text) => AMQPValue::LongString(text.as_str().into()),
            // The list above has no others.
            Value::Null | Value::Array(_) | Value::Object(_) => AMQPValue::Void,
        };
        table.insert(key.as_str().into(), value);
    }
    table
}

/// What to say if it is there otherwise.
fn mismatch(error: &lapin::Error, object: &Object, vhost: &str) -> Option<QueueError> {
    let (problem, remedy) = otherwise(error, object, vhost)?;
    let what = object.describe();
    Some(QueueError::Topology(format!("{what} is there with {problem}; {remedy}")))
}

/// Problem and remedy of an object that is there otherwise.
fn otherwise(error: &lapin::Error, object: &Object, vhost: &str) -> Option<(String, String)> {
    let (kind, text) = soft(error)?;
    if !matches!(kind, AMQPSoftError::PRECONDITIONFAILED) {
        return None;
    }
    // The broker names the argument and both values.
    let text = text.trim_start_matches("PRECONDITION_FAILED - ");
    let command = match object {
        Object::Exchange { name, .. } => {
            format!("rabbitmqadmin --vhost '{vhost}' delete exchange name={name}")
        }
        Object::Queue { name, .. } => {
            format!("rabbitmqctl delete_queue --vhost '{vhost}' --if-empty {name}")
        }
    };
    let prefix = keys::BROKER_PREFIX;
    let remedy = format!(
        "delete it when it is empty (`{command}`), or use a vhost or a release with another \
         prefix than `{prefix}`"
    );
    Some((format!("other arguments: {text}"), remedy))
}

fn refused(error: &lapin::Error, object: &Object) -> QueueError {
    let what = object.describe();
    match soft(error) {
        Some((AMQPSoftError::ACCESSREFUSED, text)) => QueueError::Topology(format!(
            "{what} cannot be declared: {text}; let the user configure, write and read `^excite\\.`"
        )),
        Some((_, text)) => QueueError::Topology(format!("{what} cannot be declared: {text}")),
        None => QueueError::Unavailable(error.to_string()),
    }
}

async fn open(connection: &Connection) -> Result<Channel, QueueError> {
    let opened = answer(connection.create_channel()).await;
    opened.map_err(|error| QueueError::Unavailable(error.to_string()))
}

async fn close(channel: Channel) {
    // It closes with the connection at the latest.
    let _ = answer(channel.close(200, "OK".into())).await;
}

async fn answer<T>(asked: impl Future<Output = lapin::Result<T>>) -> lapin::Result<T> {
    let late = || std::io::Error::new(std::io::ErrorKind::TimedOut, "the broker does not answer");
    timeout(ANSWER_LIMIT, asked).await.unwrap_or_else(|_| Err(late().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_is_too_old_is_refused() {
        for (server, fine) in [
            (Some("RabbitMQ 3.9.29"), false),
            (Some("RabbitMQ 3.10.8"), true),
            (Some("RabbitMQ 4.0.5"), true),
            (Some("LavinMQ 2.1.0"), true),
            (None, true),
        ] {
            assert_eq!(is_new_enough(server).is_ok(), fine, "{server:?}");
        }
    }

    #[test]
    fn definitions_bind_every_queue_but_control() {
        let definitions = definitions("/", &["default".to_owned()], 3);
        let size = |key: &str| definitions[key].as_array().map(Vec::len);
        assert_eq!(size("exchanges"), Some(7));
        assert_eq!(size("queues"), Some(9));
        assert_eq!(size("bindings"), Some(8));
        assert_eq!(size("policies"), Some(1));
        assert_eq!(policies(4)[1].pattern, r"^excite\.v1\.control$");
    }
}
