//! The dashboard: pages and their files, which are part of the program.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use include_dir::{Dir, include_dir};
use sha2::{Digest, Sha256};

use super::App;
use super::extract::text;
use super::problem::Fault;

static FILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/dashboard");

/// Nothing from elsewhere, nothing written into the page, in no other page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                      img-src 'self' blob: data:; connect-src 'self'; form-action 'self'; \
                      base-uri 'none'; frame-ancestors 'none'";

/// Paths that are pages: the script shows what each is about.
pub(super) const PAGES: [&str; 7] = [
    "/",
    "/batches",
    "/batches/{id}",
    "/batches/{id}/jobs/{index}",
    "/workers",
    "/dead",
    "/submit",
];

pub(super) async fn page(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let mut page = file("index.html", &headers)?;
    if let Some(origin) = app.origin_of_images().await {
        let policy = POLICY.replace("img-src 'self'", &format!("img-src 'self' {origin}"));
        if let Ok(policy) = HeaderValue::from_str(&policy) {
            page.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
        }
    }
    Ok(page)
}

impl App {
    /// Where images come from that the store itself gives.
    async fn origin_of_images(&self) -> Option<String> {
        if !self.config.redirect {
            return None;
        }
        let any = self.ports.store.link("any", Duration::from_secs(60)).await.ok()??;
        let uri: Uri = any.parse().ok()?;
        Some(format!("{}://{}", uri.scheme_str()?, uri.authority()?))
    }
}

pub(super) async fn asset(Path(path): Path<String>, headers: HeaderMap) -> Result<Response, Fault> {
    file(&path, &headers)
}

fn file(path: &str, headers: &HeaderMap) -> Result<Response, Fault> {
    let found = FILES.get_file(path).filter(|_| !path.ends_with(".sh") && !path.ends_with(".md"));
    let file = found.ok_or_else(|| Fault::missing("such file of the dashboard".into()))?;
    let etag = format!("\"{:x}\"", Sha256::digest(file.contents()));
    let head = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind(path))),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            HeaderValue::from_static("same-origin"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::ETAG, HeaderValue::from_str(&etag).unwrap_or(HeaderValue::from_static("\"\""))),
    ];
    if text(headers, "if-none-match")?.is_some_and(|known| known == etag) {
        return Ok((StatusCode::NOT_MODIFIED, head).into_response());
    }
    Ok((head, file.contents()).into_response())
}

fn kind(path: &str) -> &'static str {
    match path.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "json" => "application/json",
        _ => "text/plain; charset=utf-8",
    }
}
