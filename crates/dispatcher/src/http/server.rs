//! Connections: how many, how long their headers may take, and how they end.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1::Builder;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// Connections at a time; more wait in the listener's queue.
const CONNECTIONS_MAX: usize = 2000;
/// How long a client may take to say what it wants; also how long it may keep silent between two
/// requests.
const HEADERS_MAX: Duration = Duration::from_secs(30);
/// After the listener failed: most often there are too many open files.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// Serves until `stop`; then requests that run may go on for `limit`.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
    limit: Duration,
) {
    let mut builder = Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADERS_MAX);
    let graceful = GracefulShutdown::new();
    let turns = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let turn = tokio::select! {
            () = stop.cancelled() => break,
            Ok(turn) = turns.clone().acquire_owned() => turn,
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "a connection ended early");
            }
            drop(turn);
        });
    }
    drop(listener);
    if tokio::time::timeout(limit, graceful.shutdown()).await.is_err() {
        warn!("requests were cut short");
    }
}
