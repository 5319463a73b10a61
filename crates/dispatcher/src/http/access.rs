//! Who may ask for what: bearer tokens, or the cookie that the dashboard signs in with.
//!
//! Without a file of tokens everybody may do everything, and only this machine is served. Then the
//! name in `Host` must be one of this machine, so that no page from elsewhere can reach it under a
//! name of its own. What changes anything is refused if a browser says that another site asks.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::App;
use super::extract::Document;
use super::openapi::Problems;
use super::problem::Fault;
use crate::tokens::{Holder, Scope, Tokens};

/// The cookie that holds the token of a person who signed in.
pub(super) const COOKIE: &str = "excite_token";
/// How long a browser keeps it, in seconds.
const COOKIE_SECONDS: u64 = 30 * 24 * 3600;

/// Who asks: what handlers and streams look at.
#[derive(Clone)]
pub(super) struct Caller {
    holder: Option<Holder>,
    token: Option<String>,
    tokens: Option<Arc<Tokens>>,
}

impl Caller {
    /// Whether the caller may still look: a token may be taken away while a stream runs.
    pub(super) fn is_welcome(&self) -> bool {
        match (&self.tokens, &self.token) {
            (None, _) => true,
            (Some(tokens), Some(token)) => tokens.holder(token).is_some(),
            (Some(_), None) => false,
        }
    }
}

/// Answer of `GET /v1/session`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(super) struct Session {
    /// Whose token it is; none where nobody is asked.
    name: Option<String>,
    /// What may be done.
    scopes: Vec<Scope>,
    /// Whether tokens are asked for.
    tokens: bool,
    /// Of the program.
    version: String,
}

/// Body of `POST /v1/session`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SignIn {
    token: String,
}

impl Session {
    fn of(holder: Option<&Holder>) -> Self {
        let most = holder.map_or(Scope::Admin, |holder| holder.scope);
        Self {
            name: holder.map(|holder| holder.name.clone()),
            scopes: Scope::ALL.into_iter().filter(|scope| *scope <= most).collect(),
            tokens: holder.is_some(),
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }
}

/// Lets a request through, or says why not.
pub(super) async fn check(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Response {
    match admit(&app, &request) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(fault) => fault.into_response(),
    }
}

fn admit(app: &App, request: &Request) -> Result<Caller, Fault> {
    let (headers, path) = (request.headers(), request.uri().path());
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if changes && comes_from_elsewhere(headers) {
        let detail = "another site asked for this".to_owned();
        let remedy = "Use the dashboard's own page, or a program.";
        return Err(Fault::new(StatusCode::FORBIDDEN, "cross_site", detail, remedy));
    }
    let Some(tokens) = &app.tokens else {
        if !app.config.anyone && !is_of_this_machine(headers) {
            let detail = "the name in `Host` is none of this machine".to_owned();
            let remedy = "Use 127.0.0.1 or localhost, or set dispatcher.tokens_file.";
            return Err(Fault::new(StatusCode::FORBIDDEN, "foreign_host", detail, remedy));
        }
        return Ok(Caller { holder: None, token: None, tokens: None });
    };
    let token = token_of(headers);
    let holder = token.as_deref().and_then(|token| tokens.holder(token));
    let caller = Caller { token, tokens: Some(tokens.clone()), holder };
    let Some(needed) = needed(request.method(), path) else { return Ok(caller) };
    let Some(holder) = &caller.holder else { return Err(unauthorized(caller.token.is_some())) };
    if holder.scope < needed {
        let detail = format!("the token of `{}` may not do this", holder.name);
        let remedy = format!("Use a token with the scope `{needed}`.");
        return Err(Fault::new(StatusCode::FORBIDDEN, "forbidden", detail, remedy));
    }
    Ok(caller)
}

/// The scope that a request needs; none where everybody may: probes, the page itself, signing in.
fn needed(method: &Method, path: &str) -> Option<Scope> {
    let api = path.strip_prefix("/v1/")?;
    let read = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    let first = api.split('/').next().unwrap_or_default();
    match (first, method) {
        ("session" | "openapi.json", _) => None,
        _ if read => Some(Scope::Read),
        ("batches", &Method::DELETE) | ("workers" | "models", _) => Some(Scope::Admin),
        ("subjects", _) => Some(Scope::Read),
        _ => Some(Scope::Submit),
    }
}

fn unauthorized(given: bool) -> Fault {
    let detail = if given { "the token is not known" } else { "a token is needed" };
    let remedy = "Send `Authorization: Bearer TOKEN`; `excite-dispatcher token new` makes tokens, \
                  and EXCITE_TOKEN tells `excite`.";
    Fault::new(StatusCode::UNAUTHORIZED, "unauthorized", detail, remedy)
}

/// Browsers say where a request comes from; programs do not.
fn comes_from_elsewhere(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").and_then(|value| value.to_str().ok());
    site.is_some_and(|site| !matches!(site, "same-origin" | "none"))
}

/// Whether a page that asks was loaded from this machine: its name would be another one else.
fn is_of_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else {
        return true;
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let loopback = name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    loopback || name.eq_ignore_ascii_case("localhost") || name.is_empty()
}

fn token_of(headers: &HeaderMap) -> Option<String> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|value| {
        let (kind, token) = value.split_once(' ')?;
        kind.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    });
    bearer.or_else(|| {
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|c| c.to_str().ok());
        let mut pairs = cookies.flat_map(|cookies| cookies.split(';'));
        pairs.find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('=').map(Into::into))
    })
}

/// Who asks, and what they may do.
#[utoipa::path(
    get,
    path = "/v1/session",
    tag = "session",
    operation_id = "showSession",
    responses((status = 200, description = "Who.", body = Session), Problems)
)]
pub(super) async fn session(
    axum::Extension(caller): axum::Extension<Caller>,
) -> Result<Json<Session>, Fault> {
    if caller.tokens.is_some() && caller.holder.is_none() {
        return Err(unauthorized(caller.token.is_some()));
    }
    Ok(Json(Session::of(caller.holder.as_ref())))
}

/// Sign in: a browser gets a cookie.
#[utoipa::path(
    post,
    path = "/v1/session",
    tag = "session",
    operation_id = "signIn",
    security(()),
    request_body(content = SignIn, example = json!({"token": "excite_..."})),
    responses((status = 200, description = "Who.", body = Session), Problems)
)]
pub(super) async fn sign_in(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Document(sign_in): Document<SignIn>,
) -> Result<Response, Fault> {
    let Some(tokens) = &app.tokens else { return Ok(Json(Session::of(None)).into_response()) };
    let holder = tokens.holder(&sign_in.token).ok_or_else(|| unauthorized(true))?;
    let cookie = cookie(&sign_in.token, COOKIE_SECONDS, &headers)?;
    Ok(([(header::SET_COOKIE, cookie)], Json(Session::of(Some(&holder)))).into_response())
}

/// Sign out: the browser forgets the cookie.
#[utoipa::path(
    delete,
    path = "/v1/session",
    tag = "session",
    operation_id = "signOut",
    security(()),
    responses((status = 204, description = "Forgotten."), Problems)
)]
pub(super) async fn sign_out(headers: HeaderMap) -> Result<Response, Fault> {
    let cookie = cookie("", 0, &headers)?;
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}

/// A cookie that no script reads and no other site makes a browser send.
fn cookie(token: &str, seconds: u64, headers: &HeaderMap) -> Result<HeaderValue, Fault> {
    // TLS ends in front of the dispatcher, which is told so.
    let tls = headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https");
    let secure = if tls { "; Secure" } else { "" };
    let cookie =
        format!("{COOKIE}={token}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    HeaderValue::from_str(&cookie).map_err(|_| unauthorized(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_needs_its_scope() {
        use Scope::{Admin, Read, Submit};
        let get = Method::GET;
        #[rustfmt::skip]
        let table = [
            (&get,            "/v1/batches",               Some(Read)),
            (&Method::POST,   "/v1/batches",               Some(Submit)),
            (&Method::PATCH,  "/v1/batches/x",             Some(Submit)),
            (&Method::DELETE, "/v1/batches/x",             Some(Admin)),
            (&Method::POST,   "/v1/uploads",               Some(Submit)),
            (&get,            "/v1/uploads/x",             Some(Read)),
            (&Method::PUT,    "/v1/uploads/x/parts/1",     Some(Submit)),
            (&Method::POST,   "/v1/uploads/x/commit",      Some(Submit)),
            (&Method::DELETE, "/v1/uploads/x",             Some(Submit)),
            (&Method::POST,   "/v1/dead/replay",           Some(Submit)),
            (&Method::POST,   "/v1/workers/w/drain",       Some(Admin)),
            (&Method::PUT,    "/v1/models/m",              Some(Admin)),
            (&Method::HEAD,   "/v1/models/m/files/x",      Some(Read)),
            (&Method::POST,   "/v1/subjects",              Some(Read)),
            (&Method::POST,   "/v1/session",               None),
            (&get,            "/healthz",                  None),
            (&get,            "/",                         None),
        ];
        for (method, path, want) in table {
            assert_eq!(needed(method, path), want, "{method} {path}");
        }
    }

    #[test]
    fn only_names_of_this_machine_are_taken_without_tokens() {
        let of = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
            is_of_this_machine(&headers)
        };
        for host in ["127.0.0.1:8080", "localhost", "LocalHost:1", "[::1]:80", "127.1.2.3"] {
            assert!(of(host), "{host}");
        }
        for host in ["evil.example:8080", "192.168.1.2", "localhost.evil.example", "[fe80::1]"] {
            assert!(!of(host), "{host}");
        }
    }

    #[test]
    fn a_token_comes_as_header_or_cookie() {
        let mut headers = HeaderMap::new();
        assert_eq!(token_of(&headers), None);
        let cookies = HeaderValue::from_static("a=b; excite_token=two; c=d");
        headers.insert(header::COOKIE, cookies);
        assert_eq!(token_of(&headers).as_deref(), Some("two"));
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("bearer one"));
        assert_eq!(token_of(&headers).as_deref(), Some("one"));
    }
}
