//! The management API of RabbitMQ, as far as tests need it. It answers in milliseconds, where
//! `rabbitmqctl` takes seconds.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use crate::poll::eventually;

const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// A queue as of a moment ago.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// What it is called.
    pub name: String,
    /// `quorum`, `classic` or `stream`.
    pub kind: String,
    /// How many messages wait.
    pub ready: u64,
    /// How many are with consumers.
    pub unacknowledged: u64,
    /// How many consumers it has.
    pub consumers: u64,
}

#[derive(Debug)]
pub(super) struct Api {
    client: Client,
    base: String,
}

impl Api {
    pub(super) fn new(port: u16) -> Result<Self> {
        crate::choose_cryptography();
        let client = Client::builder().timeout(ANSWER_LIMIT).no_proxy();
        // Each test has a runtime of its own, which a connection does not outlive.
        let client = client.pool_max_idle_per_host(0).build().context("the HTTP client")?;
        Ok(Self { client, base: format!("http://127.0.0.1:{port}/api") })
    }

    pub(super) async fn overview(&self) -> Result<()> {
        self.ask(Method::GET, "overview", None).await.map(drop)
    }

    pub(super) async fn version(&self) -> Result<String> {
        let overview = self.ask(Method::GET, "overview", None).await?;
        Ok(overview["rabbitmq_version"].as_str().context("no version")?.to_owned())
    }

    pub(super) async fn vhost(&self, name: &str) -> Result<()> {
        let path = format!("vhosts/{}", encode(name));
        self.ask(Method::PUT, &path, Some(json!({}))).await.map(drop)
    }

    pub(super) async fn user(&self, name: &str, password: &str) -> Result<()> {
        let path = format!("users/{}", encode(name));
        let user = json!({ "password": password, "tags": "" });
        self.ask(Method::PUT, &path, Some(user)).await.map(drop)
    }

    pub(super) async fn permit(
        &self,
        user: &str,
        vhost: &str,
        [configure, write, read]: [&str; 3],
    ) -> Result<()> {
        let path = format!("permissions/{}/{}", encode(vhost), encode(user));
        let permissions = json!({ "configure": configure, "write": write, "read": read });
        self.ask(Method::PUT, &path, Some(permissions)).await.map(drop)
    }

    pub(super) async fn policy(
        &self,
        vhost: &str,
        name: &str,
        pattern: &str,
        definition: &Value,
    ) -> Result<()> {
        let path = format!("policies/{}/{}", encode(vhost), encode(name));
        let policy = json!({ "pattern": pattern, "definition": definition, "apply-to": "queues" });
        self.ask(Method::PUT, &path, Some(policy)).await.map(drop)
    }

    pub(super) async fn queues(&self, vhost: &str) -> Result<Vec<Queue>> {
        // Of a new queue and after a start the node has no numbers yet, which is not zero.
        eventually(ANSWER_LIMIT, "the numbers of queues", async || self.try_queues(vhost).await)
            .await
    }

    async fn try_queues(&self, vhost: &str) -> Result<Vec<Queue>> {
        let path = format!("queues/{}", encode(vhost));
        // The totals of messages are 0.2 s old, the statistics, which alone have the consumers,
        // 1 s.
        let totals = format!("{path}?disable_stats=true&enable_queue_totals=true");
        let totals = self.ask(Method::GET, &totals, None).await?;
        let statistics = self.ask(Method::GET, &path, None).await?;
        let consumers = |name: &str| {
            let queues = statistics.as_array()?;
            queues.iter().find(|queue| queue["name"] == name)?["consumers"].as_u64()
        };
        let queues = totals.as_array().context("RabbitMQ lists no queues")?;
        let queues = queues.iter().map(|queue| {
            let text = |key: &str| queue[key].as_str().with_context(|| format!("no {key}"));
            let name = text("name")?;
            let number = |key: &str| queue[key].as_u64();
            let missing = |what: &str| format!("{name}: no {what} yet");
            Ok(Queue {
                name: name.to_owned(),
                kind: text("type")?.to_owned(),
                ready: number("messages_ready").with_context(|| missing("messages"))?,
                unacknowledged: number("messages_unacknowledged")
                    .with_context(|| missing("messages"))?,
                consumers: consumers(name).with_context(|| missing("consumers"))?,
            })
        });
        queues.collect()
    }

    pub(super) async fn close_connections(&self) -> Result<usize> {
        self.close("connections").await
    }

    pub(super) async fn close_connections_to(&self, vhost: &str) -> Result<usize> {
        self.close(&format!("vhosts/{}/connections", encode(vhost))).await
    }

    async fn close(&self, listed: &str) -> Result<usize> {
        let connections = self.ask(Method::GET, listed, None).await?;
        let connections = connections.as_array().context("RabbitMQ lists no connections")?;
        let mut closed = 0;
        for name in connections.iter().filter_map(|connection| connection["name"].as_str()) {
            let path = format!("connections/{}", encode(name));
            let (status, said) = self.send(Method::DELETE, &path, None).await?;
            // Some clients go by themselves meanwhile.
            if status != StatusCode::NOT_FOUND {
                Self::check(status, &said).with_context(|| format!("closing {name}"))?;
                closed += 1;
            }
        }
        Ok(closed)
    }

    pub(super) async fn running_nodes(&self) -> Result<usize> {
        let nodes = self.ask(Method::GET, "nodes", None).await?;
        let nodes = nodes.as_array().context("RabbitMQ lists no nodes")?;
        Ok(nodes.iter().filter(|node| node["running"] == true).count())
    }

    pub(super) async fn leader(&self, vhost: &str, queue: &str) -> Result<String> {
        let path = format!("queues/{}/{}", encode(vhost), encode(queue));
        let found = self.ask(Method::GET, &path, None).await?;
        Ok(found["leader"].as_str().with_context(|| format!("{queue}: no leader"))?.to_owned())
    }

    pub(super) async fn alarmed(&self) -> Result<bool> {
        let (status, said) = self.send(Method::GET, "health/checks/alarms", None).await?;
        if status == StatusCode::SERVICE_UNAVAILABLE {
            return Ok(true);
        }
        Self::check(status, &said)?;
        Ok(false)
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
        let (status, said) = self.send(method.clone(), path, body).await?;
        Self::check(status, &said).with_context(|| format!("{method} {path}"))?;
        // What makes or takes away something is answered with nothing.
        if said.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_str(&said)?) }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<(StatusCode, String)> {
        let request = self.client.request(method, format!("{}/{path}", self.base));
        let mut request = request.basic_auth("guest", Some("guest"));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.context("the management API does not answer")?;
        Ok((response.status(), response.text().await.context("the management API broke off")?))
    }

    fn check(status: StatusCode, said: &str) -> Result<()> {
        if !status.is_success() {
            bail!("the management API answers {status}: {said}");
        }
        Ok(())
    }
}

/// A name as a part of a path.
pub(super) fn encode(name: &str) -> String {
    let mut encoded = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(byte.into());
        } else {
            // Writing to a string does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded() {
        assert_eq!(encode("a-b_1"), "a-b_1");
        assert_eq!(encode("/"), "%2F");
        assert_eq!(encode("127.0.0.1:1 -> ü"), "127.0.0.1%3A1%20-%3E%20%C3%BC");
    }
}
