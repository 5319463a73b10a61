//! What is around the jobs: how everything is, workers, models, scaling, checks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::model_card::ModelCard;
use crate::outcome::Class;

/// Answer of `GET /v1/overview`, and the event `overview`: how everything is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Overview {
    /// When, by the dispatcher's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Which dispatcher leads; none if nobody knows.
    pub leader: Option<String>,
    /// The broker as the leader sees it.
    pub broker: Broker,
    /// Images concluded a second, of late.
    pub images_per_second: f64,
    /// Jobs that are not terminal, paused batches left out.
    pub backlog_jobs: u64,
    /// Compute seconds that they take; none while nothing was measured.
    pub backlog_seconds: Option<f64>,
    /// Seconds until all is done; none if nobody works or nothing was measured.
    pub drain_seconds: Option<f64>,
    /// Seconds since the oldest unfinished batch that is not paused was accepted.
    pub oldest_seconds: Option<f64>,
    /// Batches that are not finished.
    pub active_batches: u64,
    /// Dead jobs of them.
    pub dead_jobs: u64,
    /// Jobs that run.
    pub running_jobs: u64,
    /// Failures a second, in the last point of the charts.
    pub failures_per_second: f64,
    /// Failures of the last hour by class.
    pub failures: BTreeMap<Class, u64>,
    /// Workers.
    pub workers: WorkerCounts,
    /// Accepted images for each hour of a ready GPU (or of a worker without one), over the last hour.
    pub accepted_per_gpu_hour: Option<f64>,
    /// What the workers cost an hour; none where no price is set.
    pub cost_per_hour: Option<f64>,
    /// What an image costs, idle workers included, over the last hour.
    pub cost_per_image: Option<f64>,
    /// Of the price.
    pub currency: Option<String>,
}

/// The broker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Broker {
    /// It can be reached.
    pub connected: bool,
    /// It takes nothing.
    pub blocked: bool,
}

/// Workers, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerCounts {
    /// Those that take jobs.
    pub ready: u64,
    /// All.
    pub total: u64,
    /// As many as the scaling wants; none where nothing is scaled.
    pub desired: Option<u64>,
}

/// Answer of `GET /v1/statistics?minutes=`: what charts show.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Statistics {
    /// Seconds between two points, while a dispatcher leads.
    pub every_seconds: u64,
    /// The points, the oldest first.
    pub points: Vec<StatisticsPoint>,
}

/// A point of the charts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StatisticsPoint {
    /// In seconds since 1970.
    pub at: i64,
    /// Images concluded a second.
    pub images_per_second: f64,
    /// Failures a second, whatever followed.
    pub failures_per_second: f64,
    /// Jobs that are not terminal.
    pub backlog_jobs: u64,
    /// Jobs that run.
    pub running_jobs: u64,
    /// Workers that take jobs.
    pub workers_ready: u64,
    /// Seconds until all is done; none if nobody works or nothing was measured.
    pub drain_seconds: Option<f64>,
}

/// Answer of `GET /v1/models`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ModelList {
    /// Their current cards. `PUT /v1/models/{name}` takes a [`ModelCard`] once its files are there:
    /// `HEAD` and `PUT /v1/models/{name}/files/{sha256}`.
    pub models: Vec<ModelCard>,
}

/// Answer of `GET /v1/scale?pool=`, for KEDA's `metrics-api`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Scale {
    /// Workers wanted.
    pub desired: u32,
    /// How that number came about.
    pub reason: String,
}

/// Answer of `GET /v1/doctor`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Doctor {
    /// Whether all checks passed.
    pub ok: bool,
    /// The checks.
    pub checks: Vec<Check>,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// Whether it is well.
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// What to do, if it is not.
    pub remedy: Option<String>,
}
