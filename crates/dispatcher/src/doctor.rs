//! What a dispatcher reaches, and what to do where it does not.

use std::time::Duration;

use excite_jobs::Lane;
use excite_jobs::api::{Check, Doctor};
use excite_jobs::queue::{QueueError, QueueName};
use tokio::time::Instant;

use crate::config::Dispatcher;
use crate::models::Models;
use crate::ports::Ports;

/// No check takes longer.
const LIMIT: Duration = Duration::from_secs(15);

/// Runs all checks at the same time.
pub async fn doctor(ports: &Ports, models: &Models, config: &Dispatcher) -> Doctor {
    let (broker, topology, store, progress, models, leader) = tokio::join!(
        limited("broker", async { broker(ports) }),
        limited("topology", topology(ports, config)),
        limited("store", store(ports)),
        limited("progress", progress(ports)),
        limited("models", known_models(models, config)),
        limited("leader", leader(ports)),
    );
    let checks = vec![broker, topology, store, progress, models, leader];
    Doctor { ok: checks.iter().all(|check| check.ok), checks }
}

/// What was found, or what is wrong and what to do.
type Found = Result<String, (String, String)>;

async fn limited(name: &str, check: impl Future<Output = Found>) -> Check {
    let found = tokio::time::timeout(LIMIT, check).await.unwrap_or_else(|_| {
        let what = format!("no answer within {} s", LIMIT.as_secs());
        Err((what, "Look whether the server is overloaded or the network drops packets.".into()))
    });
    let name = name.to_owned();
    match found {
        Ok(detail) => Check { name, ok: true, detail, remedy: None },
        Err((detail, remedy)) => Check { name, ok: false, detail, remedy: Some(remedy) },
    }
}

fn broker(ports: &Ports) -> Found {
    let health = ports.queue.health();
    let server = health.server.unwrap_or_else(|| "the broker".into());
    match (health.connected, health.blocked) {
        (true, false) => Ok(format!("connected to {server}")),
        (true, true) => {
            let remedy = "Give the broker memory or disk; until then nothing is fed.";
            Err((format!("{server} takes no publications"), remedy.into()))
        }
        (false, _) => {
            let why = health.last_error.unwrap_or_else(|| "no connection yet".into());
            Err((why, "Check `broker.url`, and that the broker runs.".into()))
        }
    }
}

async fn topology(ports: &Ports, config: &Dispatcher) -> Found {
    let jobs = config.classes.iter().flat_map(|class| Lane::ALL.map(|l| QueueName::jobs(class, l)));
    let mut consumers = 0;
    let mut queues = 0;
    for queue in jobs.chain([QueueName::Control]) {
        match ports.queue.depth(&queue).await {
            Ok(depth) => {
                queues += 1;
                consumers += depth.consumers;
            }
            Err(error @ QueueError::Unroutable(_)) => {
                let remedy = "Run `excite-dispatcher topology apply`.";
                return Err((error.to_string(), remedy.into()));
            }
            Err(error) => {
                return Err((error.to_string(), "See `broker`.".into()));
            }
        }
    }
    Ok(format!("{queues} queues, {consumers} consumers"))
}

async fn store(ports: &Ports) -> Found {
    let start = Instant::now();
    // Two doctors at a time must not meet.
    let name = format!("doctor-{}", excite_jobs::BatchId::new());
    ports.store.probe(&name).await.map_err(|error| {
        (error.to_string(), "Check `store.url`, `store.endpoint` and the credentials.".into())
    })?;
    let took = start.elapsed().as_millis();
    Ok(format!("written, read and taken away in {took} ms; conditions hold"))
}

async fn progress(ports: &Ports) -> Found {
    match ports.progress.workers().await {
        Ok(workers) => Ok(format!("reached; {} workers", workers.len())),
        Err(error) => {
            let remedy = "Check `progress.url`; jobs are done without it, only not shown.";
            Err((error.to_string(), remedy.into()))
        }
    }
}

async fn known_models(models: &Models, config: &Dispatcher) -> Found {
    let names = models.names().await;
    let names = names.map_err(|error| (error.to_string(), "See `store`.".to_owned()))?;
    let default = &config.default_model;
    if names.contains(default) {
        return Ok(names.join(", "));
    }
    let remedy = format!("Push it: `excite model push {default}`, or set another default_model.");
    Err((format!("the default model `{default}` is not there"), remedy))
}

async fn leader(ports: &Ports) -> Found {
    let error = |e: excite_jobs::progress::ProgressError| (e.to_string(), "See `progress`.".into());
    match ports.progress.status().await.map_err(error)? {
        Some(status) => Ok(format!(
            "{} leads since epoch {}; {} batches are active",
            status.dispatcher, status.epoch, status.active_batches
        )),
        None => {
            let remedy = "Wait half a minute; if it stays, look at the dispatchers' logs.";
            Err(("no dispatcher leads".into(), remedy.into()))
        }
    }
}
