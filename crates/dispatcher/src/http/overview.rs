//! `/v1/overview` and `/v1/statistics`: how everything is, and how it was.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use excite_jobs::Class;
use excite_jobs::api::{Broker, Overview, Statistics, StatisticsPoint, WorkerCounts};
use excite_jobs::progress::{POINTS_MAX, Point, WorkerState};
use serde::Deserialize;
use time::OffsetDateTime;
use utoipa::IntoParams;

use super::App;
use super::extract::Asked;
use super::openapi::Problems;
use super::problem::Fault;
use crate::lead::activity::EVERY;
use crate::scale;

/// What `the last hour` is.
const HOUR_SECONDS: i64 = 3600;

/// How everything is: images a second, backlog, time to drain, failures, workers, cost.
#[utoipa::path(
    get,
    path = "/v1/overview",
    tag = "system",
    operation_id = "showOverview",
    responses((status = 200, description = "As it is now.", body = Overview), Problems)
)]
pub(super) async fn overview(State(app): State<Arc<App>>) -> Json<Overview> {
    Json(app.overview().await)
}

impl App {
    /// How everything is. What nobody knows is left out.
    pub(super) async fn overview(&self) -> Overview {
        let progress = &self.ports.progress;
        let status = progress.status().await.ok().flatten();
        let workers = progress.workers().await.unwrap_or_default();
        let now = OffsetDateTime::now_utc();
        let points = progress.points((HOUR_SECONDS / EVERY.as_secs() as i64) as usize).await;
        let mut points = points.unwrap_or_default();
        points.retain(|point| point.at > now.unix_timestamp() - HOUR_SECONDS);
        let hour = Hour::of(&points);
        let ready = workers.iter().filter(|beat| beat.state == WorkerState::Ready).count() as u64;
        let desired = status.as_ref().map(|status| {
            let pools = &self.config.pools;
            let desired = |pool| scale::desired(pool, pools, status, &workers).desired;
            pools.values().map(|pool| u64::from(desired(pool))).sum()
        });
        let price = self.config.price_per_gpu_hour;
        let classes = status.as_ref().map(|status| status.classes.as_slice()).unwrap_or_default();
        let mut drains =
            classes.iter().filter(|class| class.jobs > 0).map(|class| class.drain_seconds);
        Overview {
            at: now,
            leader: status.as_ref().map(|status| status.dispatcher.clone()),
            broker: status.as_ref().map_or_else(Broker::default, |status| Broker {
                connected: status.connected,
                blocked: status.blocked,
            }),
            images_per_second: status.as_ref().map_or(0., |status| status.images_per_second),
            backlog_jobs: classes.iter().map(|class| class.jobs).sum(),
            backlog_seconds: classes
                .iter()
                .map(|class| class.seconds)
                .try_fold(0., |sum, seconds| Some(sum + seconds?)),
            // Classes drain side by side.
            drain_seconds: drains.try_fold(0_f64, |most, one| Some(most.max(one?))),
            oldest_seconds: classes
                .iter()
                .filter_map(|class| class.oldest_seconds)
                .reduce(f64::max),
            active_batches: status.as_ref().map_or(0, |status| status.active_batches),
            dead_jobs: status.as_ref().map_or(0, |status| status.dead_jobs),
            running_jobs: workers.iter().map(|beat| beat.jobs.len() as u64).sum(),
            failures_per_second: points.last().map_or(0., failures_per_second),
            failures: hour.failures,
            workers: WorkerCounts { ready, total: workers.len() as u64, desired },
            accepted_per_gpu_hour: (hour.worker_hours > 0.)
                .then(|| hour.accepted as f64 / hour.worker_hours),
            cost_per_hour: price.map(|price| price * workers.len() as f64),
            cost_per_image: price
                .filter(|_| hour.images > 0)
                .map(|price| price * hour.worker_hours / hour.images as f64),
            currency: price.map(|_| self.config.currency.clone()),
        }
    }
}

/// Sums over points.
#[derive(Debug, Default, PartialEq)]
struct Hour {
    images: u64,
    accepted: u64,
    failures: BTreeMap<Class, u64>,
    worker_hours: f64,
}

impl Hour {
    fn of(points: &[Point]) -> Self {
        let mut hour = Self::default();
        for point in points {
            hour.images += point.images;
            hour.accepted += point.accepted;
            hour.worker_hours += point.workers_ready as f64 * point.seconds / HOUR_SECONDS as f64;
            for (class, count) in &point.failures {
                *hour.failures.entry(*class).or_default() += count;
            }
        }
        hour
    }
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct StatisticsQuery {
    /// How far back; 60 if left out.
    #[param(minimum = 1, maximum = 360, example = 60, nullable = false)]
    minutes: Option<u32>,
}

/// The same over time, a point every ten seconds.
#[utoipa::path(
    get,
    path = "/v1/statistics",
    tag = "system",
    operation_id = "showStatistics",
    params(StatisticsQuery),
    responses((status = 200, description = "Points for charts.", body = Statistics), Problems)
)]
pub(super) async fn statistics(
    State(app): State<Arc<App>>,
    Asked(query): Asked<StatisticsQuery>,
) -> Result<Json<Statistics>, Fault> {
    let every = EVERY.as_secs();
    let most = POINTS_MAX as u64 * every / 60;
    let minutes = u64::from(query.minutes.unwrap_or(60));
    if !(1..=most).contains(&minutes) {
        let detail = format!("`minutes` is {minutes}");
        return Err(Fault::bad("bad_query", detail, format!("Set `minutes` to 1 to {most}.")));
    }
    let points = app.ports.progress.points((minutes * 60 / every) as usize).await?;
    let points = points.iter().map(|point| StatisticsPoint {
        at: point.at,
        images_per_second: a_second(point.images, point),
        failures_per_second: failures_per_second(point),
        backlog_jobs: point.backlog_jobs,
        running_jobs: point.running_jobs,
        workers_ready: point.workers_ready,
        drain_seconds: point.drain_seconds,
    });
    Ok(Json(Statistics { every_seconds: every, points: points.collect() }))
}

fn failures_per_second(point: &Point) -> f64 {
    a_second(point.failures.values().sum(), point)
}

fn a_second(count: u64, point: &Point) -> f64 {
    count as f64 / point.seconds.max(0.001)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_the_sum_of_its_points() {
        let point = |images, accepted, workers_ready| Point {
            seconds: 10.,
            images,
            accepted,
            workers_ready,
            failures: BTreeMap::from([(Class::Timeout, 2)]),
            ..Point::default()
        };
        let hour = Hour::of(&[point(10, 9, 36), point(2, 1, 0)]);
        let failures = BTreeMap::from([(Class::Timeout, 4)]);
        let want = Hour { images: 12, accepted: 10, failures, worker_hours: 0.1 };
        assert_eq!(hour, want);
    }
}
