//! Three nodes of RabbitMQ on one machine that are one broker.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{Rabbit, START_LIMIT, reach};
use crate::ports::Port;
use crate::process::Recipe;
use crate::server::Server;

/// Three nodes agree on what they hold; two of them can go on.
const NODES: usize = 3;

/// What a node of a cluster shares with the others.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) name: String,
    all: Vec<String>,
    pub(super) secret: String,
    /// The port of the name service.
    pub(super) names: u16,
}

impl Member {
    /// Lines of rabbitmq.conf.
    pub(super) fn config(&self) -> String {
        let mut config = "cluster_formation.peer_discovery_backend = classic_config\n\
                          cluster_partition_handling = pause_minority\n"
            .to_owned();
        for (place, name) in (1..).zip(&self.all) {
            config += &format!("cluster_formation.classic_config.nodes.{place} = {name}\n");
        }
        config
    }
}

/// A broker of three nodes, gone when this is dropped.
#[derive(Debug)]
pub struct Trio {
    /// Its nodes.
    pub nodes: Vec<Rabbit>,
    _epmd: Server,
    _names: Port,
}

impl Trio {
    /// Starts the nodes, and waits until they are one broker.
    pub async fn start() -> Result<Self> {
        let names = Port::free()?;
        let port = names.number().to_string();
        let recipe = Recipe::new("epmd", "epmd").alone();
        let epmd = Server::new(recipe.args(["-port", &port, "-address", "127.0.0.1"]));
        epmd.start(START_LIMIT, async || reach(&names).await).await?;
        let all: Vec<String> = (1..=NODES).map(|at| format!("excite{at}@localhost")).collect();
        let secret = uuid::Uuid::new_v4().simple().to_string();
        let starting = all.iter().map(|name| {
            let (name, all, secret) = (name.clone(), all.clone(), secret.clone());
            let member = Member { name, all, secret, names: names.number() };
            super::RabbitBuilder { member: Some(member), ..super::RabbitBuilder::default() }.start()
        });
        let nodes = futures::future::try_join_all(starting).await?;
        let trio = Self { nodes, _epmd: epmd, _names: names };
        let first = &trio.nodes[0];
        crate::eventually(Duration::from_secs(120), "one broker", async || {
            let running = first.api.running_nodes().await?;
            anyhow::ensure!(running == NODES, "{running} nodes");
            anyhow::Ok(())
        })
        .await?;
        Ok(trio)
    }

    /// The node that leads a quorum queue.
    pub async fn leader(&self, vhost: &str, queue: &str) -> Result<&Rabbit> {
        let mut last = None;
        // Whoever runs knows.
        for node in &self.nodes {
            match node.api.leader(vhost, queue).await {
                Ok(name) => {
                    let leader = self.nodes.iter().find(|node| node.name == name);
                    return leader.with_context(|| format!("{name} is none of these nodes"));
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("there are no nodes")?)
    }

    /// The ports of AMQP.
    pub fn ports(&self) -> Vec<u16> {
        self.nodes.iter().map(Rabbit::port).collect()
    }
}
