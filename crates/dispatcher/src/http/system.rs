//! Workers, scale and doctor: what operators and autoscalers ask for.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use excite_jobs::api::{Doctor, Scale};
use excite_jobs::progress::WorkerBeat;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::App;
use super::extract::{Asked, OfName};
use super::openapi::Problems;
use super::problem::Fault;
use crate::{doctor, scale};

/// Answer of `GET /v1/workers`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Workers {
    workers: Vec<WorkerBeat>,
    /// Why the list may be empty though there are workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

/// Workers as they last said.
#[utoipa::path(
    get,
    path = "/v1/workers",
    tag = "system",
    operation_id = "listWorkers",
    responses((status = 200, description = "Those that live.", body = Workers), Problems)
)]
pub(super) async fn workers(State(app): State<Arc<App>>) -> Json<Workers> {
    Json(workers_now(&app).await)
}

/// The workers that live.
pub(super) async fn workers_now(app: &App) -> Workers {
    match app.ports.progress.workers().await {
        Ok(workers) => Workers { workers, note: None },
        Err(error) => {
            let note = format!("{error}; workers go on without being seen");
            Workers { workers: Vec::new(), note: Some(note) }
        }
    }
}

/// Answer of `POST /v1/workers/{name}/drain`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Drained {
    worker: String,
}

/// Let a worker finish what runs, and end.
#[utoipa::path(
    post,
    path = "/v1/workers/{name}/drain",
    tag = "system",
    operation_id = "drainWorker",
    params(OfName),
    responses((status = 202, description = "It was told.", body = Drained), Problems)
)]
pub(super) async fn drain(
    State(app): State<Arc<App>>,
    OfName(worker): OfName,
) -> Result<(StatusCode, Json<Drained>), Fault> {
    if !app.ports.progress.workers().await?.iter().any(|beat| beat.worker == worker) {
        return Err(Fault::missing(format!("worker `{worker}`")));
    }
    app.ports.progress.drain(&worker).await?;
    Ok((StatusCode::ACCEPTED, Json(Drained { worker })))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ScaleQuery {
    /// Which group of workers; `default` if left out.
    #[param(example = "default", nullable = false)]
    pool: Option<String>,
}

/// Workers wanted, and why: for an autoscaler.
#[utoipa::path(
    get,
    path = "/v1/scale",
    tag = "system",
    operation_id = "showScale",
    params(ScaleQuery),
    responses((status = 200, description = "How many.", body = Scale), Problems)
)]
pub(super) async fn scale(
    State(app): State<Arc<App>>,
    Asked(query): Asked<ScaleQuery>,
) -> Result<Json<Scale>, Fault> {
    let name = query.pool.unwrap_or_else(|| "default".into());
    let pool = app.config.pools.get(&name).ok_or_else(|| no_pool(&name, &app.config.pools))?;
    // Without numbers an autoscaler keeps what it has, which an error makes it do.
    let status = app.ports.progress.status().await?.ok_or_else(|| {
        Fault::unavailable("no_status", "no dispatcher leads, so nobody knows what waits".into())
    })?;
    let workers = app.ports.progress.workers().await.unwrap_or_default();
    let scale = scale::desired(pool, &app.config.pools, &status, &workers);
    app.metrics.scale_desired.with_label_values(&[&name]).set(i64::from(scale.desired));
    Ok(Json(scale))
}

fn no_pool(name: &str, pools: &BTreeMap<String, crate::config::Pool>) -> Fault {
    let name: String = name.chars().take(100).collect();
    let known: Vec<&str> = pools.keys().map(String::as_str).collect();
    let remedy = format!("Use one of: {}; or add `[dispatcher.pools.NAME]`.", known.join(", "));
    Fault::new(StatusCode::NOT_FOUND, "unknown_pool", format!("there is no pool `{name}`"), remedy)
}

/// What the dispatcher reaches, and what to do where it does not.
#[utoipa::path(
    get,
    path = "/v1/doctor",
    tag = "system",
    operation_id = "showDoctor",
    responses((status = 200, description = "The checks.", body = Doctor), Problems)
)]
pub(super) async fn doctor(State(app): State<Arc<App>>) -> Json<Doctor> {
    Json(doctor::doctor(&app.ports, &app.models, &app.config).await)
}
