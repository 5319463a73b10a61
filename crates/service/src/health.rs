//! `/healthz`, `/readyz` and `/metrics`.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::{Encoder, Registry, TextEncoder};
use tokio::net::TcpListener;
use tower_http::timeout::TimeoutLayer;

/// Asked for the state of a service; the error says what is wrong.
pub type Probe = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Routes for probes and metrics. `live` must not depend on other servers: an outage of the broker
/// must not restart a pool and throw its models away.
pub fn router(registry: Registry, live: Probe, ready: Probe) -> Router {
    let answer = |probe: Probe| {
        move || async move {
            match probe() {
                Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
                Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
            }
        }
    };
    Router::new()
        .route("/healthz", get(answer(live)))
        .route("/readyz", get(answer(ready)))
        .route("/metrics", get(move || async move { metrics(&registry) }))
}

fn metrics(registry: &Registry) -> Response {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    match encoder.encode(&registry.gather(), &mut text) {
        Ok(()) => {
            ([(header::CONTENT_TYPE, encoder.format_type().to_owned())], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Serves these routes alone until `stop`.
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let timeout = TimeoutLayer::with_status_code(status, Duration::from_secs(10));
    axum::serve(listener, router.layer(timeout)).with_graceful_shutdown(stop).await
}
