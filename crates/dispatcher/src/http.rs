//! The HTTP API: routes, limits and what every request goes through.
//!
//! Documents are those of `excite_jobs::api`; errors are problem details with a code and a remedy,
//! whatever goes wrong.

mod access;
mod batches;
mod dashboard;
mod dead;
mod events;
mod extract;
mod files;
mod find;
mod job;
mod jobs;
mod list;
mod looks;
mod models;
mod openapi;
mod overview;
mod problem;
mod receive;
mod results;
mod server;
mod subjects;
mod system;
mod uploads;
mod view;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use excite_prompt::TokenizerError;
use excite_service::health;
use prometheus::Registry;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::{Instrument, error, info_span};
use utoipa::OpenApi;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;
use uuid::Uuid;

use self::events::Hubs;
use self::list::BatchList;
use self::looks::Looks;
use self::openapi::{Whole, Written};
use self::problem::Fault;
use crate::accept::Accept;
use crate::config::Dispatcher;
use crate::estimates::EstimatesCache;
use crate::header;
use crate::job_index::JobIndexes;
use crate::manifest::Manifests;
use crate::metrics::Metrics;
use crate::models::Models;
use crate::ports::Ports;
use crate::tokens::{Tokens, TokensError};
use crate::uploads::Uploads;

pub use self::server::serve;

/// Bytes of a JSON body: a replay of many indices is the largest.
const DOCUMENT_BYTES_MAX: usize = 4 << 20;
/// How long a request may take that carries no file.
const REQUEST_MAX: Duration = Duration::from_secs(60);
/// How long one may take that moves many objects.
const LONG_REQUEST_MAX: Duration = Duration::from_secs(600);
/// Thumbnails that are made at a time.
const THUMBNAILS: usize = 2;
/// Where a request's own id travels.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What handlers work with.
pub struct App {
    ports: Ports,
    config: Dispatcher,
    accept: Accept,
    models: Arc<Models>,
    manifests: Manifests,
    estimates: Arc<EstimatesCache>,
    batches: BatchList,
    looks: Arc<Looks>,
    indexes: JobIndexes,
    uploads: Uploads,
    /// Turns of making thumbnails.
    thumbnails: Arc<Semaphore>,
    hubs: Hubs,
    metrics: Metrics,
    /// Who may; none where everybody may.
    tokens: Option<Arc<Tokens>>,
}

/// Why requests cannot be answered.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The tokenizer that is part of the program cannot be made.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Nobody could be told from nobody.
    #[error("the tokens: {0}")]
    Tokens(#[from] TokensError),
}

impl App {
    /// On these ports.
    ///
    /// # Errors
    /// See [`AppError`].
    pub fn new(ports: Ports, config: Dispatcher, metrics: Metrics) -> Result<Arc<Self>, AppError> {
        let store = ports.store.clone();
        let tokens = config.tokens_file.as_deref().map(Tokens::open).transpose()?.map(Arc::new);
        let models = Arc::new(Models::new(store.clone()));
        let estimates = Arc::new(EstimatesCache::new(store.clone()));
        let accept = Accept::new(
            ports.clone(),
            models.clone(),
            estimates.clone(),
            metrics.clone(),
            config.default_model.clone(),
        )?;
        Ok(Arc::new(Self {
            manifests: Manifests::new(store.clone()),
            batches: BatchList::new(store.clone()),
            looks: Looks::new(store.clone()),
            indexes: JobIndexes::new(store.clone()),
            uploads: Uploads::new(store),
            thumbnails: Arc::new(Semaphore::new(THUMBNAILS)),
            hubs: Hubs::default(),
            ports,
            config,
            accept,
            models,
            estimates,
            metrics,
            tokens,
        }))
    }
}

/// All routes, with probes and metrics.
pub fn router(app: Arc<App>, registry: Registry) -> Router {
    // A broker or mirror that is away must take no dispatcher out of service: batches are accepted
    // without them.
    let well: health::Probe = Arc::new(|| Ok(()));
    let probes = health::router(registry, well.clone(), well);
    let any = || DefaultBodyLimit::disable();
    let (api, document) = OpenApiRouter::with_openapi(Whole::openapi())
        .routes(routes!(batches::list))
        .routes(routes!(batches::submit).layer(any()))
        .routes(routes!(batches::show, batches::change, batches::delete))
        .routes(routes!(events::of_batch))
        .routes(routes!(results::results))
        .routes(routes!(results::images))
        .routes(routes!(jobs::list))
        .routes(routes!(job::show))
        .routes(routes!(files::file))
        .routes(routes!(uploads::begin))
        .routes(routes!(uploads::show, uploads::delete))
        .routes(routes!(uploads::put_part).layer(any()))
        .routes(routes!(uploads::commit))
        .routes(routes!(events::of_system))
        .routes(routes!(subjects::subjects))
        .routes(routes!(overview::overview))
        .routes(routes!(overview::statistics))
        .routes(routes!(dead::list))
        .routes(routes!(dead::replay))
        .routes(routes!(system::workers))
        .routes(routes!(system::drain))
        .routes(routes!(models::list))
        .routes(routes!(models::show, models::push))
        .routes(routes!(models::head_file, models::put_file).layer(any()))
        .routes(routes!(access::session, access::sign_in, access::sign_out))
        .routes(routes!(system::scale))
        .routes(routes!(system::doctor))
        .routes(routes!(openapi::document))
        .with_state(app.clone())
        .split_for_parts();
    let document = Written(header::json(&document));
    let pages = dashboard::PAGES
        .into_iter()
        .fold(Router::new(), |pages, path| pages.route(path, get(dashboard::page)))
        .route("/assets/{*path}", get(dashboard::asset))
        .with_state(app.clone());
    api.layer(Extension(document))
        .merge(probes)
        .merge(pages)
        .fallback(unknown_route)
        .method_not_allowed_fallback(unknown_method)
        .layer(DefaultBodyLimit::max(DOCUMENT_BYTES_MAX))
        .layer(from_fn_with_state(app.clone(), access::check))
        .layer(from_fn_with_state(app, through))
        .layer(CatchPanicLayer::custom(panicked))
}

async fn unknown_route(request: Request) -> Fault {
    let path: String = request.uri().path().chars().take(200).collect();
    let remedy = "Use a path of the API; they begin with /v1/.";
    Fault::new(StatusCode::NOT_FOUND, "unknown_route", format!("there is no `{path}`"), remedy)
}

async fn unknown_method(request: Request) -> Fault {
    let detail = format!("`{}` cannot be asked of this path", request.method());
    let status = StatusCode::METHOD_NOT_ALLOWED;
    Fault::new(status, "unknown_method", detail, "Use the method that the path has.")
}

/// A panic is a fault of ours that ends one request, not the service.
fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    error!(panic = text, "a request made the dispatcher panic");
    Fault::internal("the request made the dispatcher panic".into()).into_response()
}

/// What every request goes through: an id, a time limit, and a count.
async fn through(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let route = route.unwrap_or_else(|| "other".into());
    let method = request.method().clone();
    let id = request_id(&request);
    let span = info_span!("request", id = id.to_str().unwrap_or_default(), %method, route);
    let start = Instant::now();
    let answer = next.run(request).instrument(span);
    let mut response = match limit_of(&method, &route) {
        None => answer.await,
        Some(limit) => tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| {
            let detail = format!("no answer within {} s", limit.as_secs());
            Fault::unavailable("timeout", detail).into_response()
        }),
    };
    let status = response.status().as_u16().to_string();
    let method = known_method(&method);
    app.metrics.requests.with_label_values(&[method, &route, &status]).inc();
    let seconds = start.elapsed().as_secs_f64();
    app.metrics.request_seconds.with_label_values(&[method, &route]).observe(seconds);
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// The sender's id, if it is one, or a new one.
fn request_id(request: &Request) -> HeaderValue {
    let plain = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        (1..=100).contains(&bytes.len())
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
    };
    let given = request.headers().get(REQUEST_ID).filter(plain).cloned();
    given.unwrap_or_else(|| {
        let new = HeaderValue::from_str(&Uuid::now_v7().to_string());
        new.unwrap_or(HeaderValue::from_static("none"))
    })
}

/// How long a request may take; uploads limit each piece instead.
fn limit_of(method: &Method, route: &str) -> Option<Duration> {
    match (method, route) {
        (&Method::POST, "/v1/batches") | (&Method::PUT, "/v1/models/{name}/files/{sha256}") => None,
        (_, "/v1/uploads/{id}/parts/{n}" | "/v1/uploads/{id}/commit") => None,
        (_, "/v1/events" | "/v1/batches/{id}/events") => None,
        (_, "/v1/batches/{id}/results" | "/v1/batches/{id}/images.zip") => Some(LONG_REQUEST_MAX),
        (&Method::DELETE, _) | (_, "/v1/dead" | "/v1/dead/replay") => Some(LONG_REQUEST_MAX),
        _ => Some(REQUEST_MAX),
    }
}

/// Labels are of a fixed set; a method is whatever a client writes.
fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}
