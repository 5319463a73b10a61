//! `/v1/openapi.json`: what is said of the API as a whole. What is said of a route stands at its
//! handler, and what of a document at its type, so that neither can be forgotten.

use std::collections::BTreeMap;

use axum::Extension;
use axum::http::{HeaderName, header};
use bytes::Bytes;
use excite_jobs::api::{BatchProgressed, Overview, Problem};
use excite_jobs::{JobId, Line};
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr};
use utoipa::{IntoResponses, Modify};

use super::access::COOKIE;

/// What the document says of no route in particular.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Excite",
        description = "Images that show what their prompts say, by the batch. \
                       Submit lines, watch them become images, take those home. \
                       Errors are problem details (RFC 9457) with a stable `code` and a `remedy`.",
        license(name = "MIT", identifier = "MIT")
    ),
    tags(
        (name = "batches", description = "Submitted, watched, changed, taken home."),
        (name = "uploads", description = "Batches that come in parts, so that a cut costs one part."),
        (name = "jobs", description = "One image each."),
        (name = "dead", description = "Jobs that were given up, and back to life."),
        (name = "system", description = "Workers, models, scaling, how everything is."),
        (name = "session", description = "Who asks."),
    ),
    components(schemas(Problem, Line, JobId, BatchProgressed, Overview)),
    modifiers(&Tokens)
)]
pub(super) struct Whole;

/// Everything but signing in asks for a token where tokens are asked for.
struct Tokens;

impl Modify for Tokens {
    fn modify(&self, api: &mut OpenApi) {
        let components = api.components.get_or_insert_default();
        let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        components.add_security_scheme("token", bearer);
        let cookie = SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(COOKIE)));
        components.add_security_scheme("cookie", cookie);
        let none = [""; 0];
        api.security = Some(vec![
            SecurityRequirement::new("token", none),
            SecurityRequirement::new("cookie", none),
        ]);
    }
}

/// What any route may answer when it cannot do what was asked.
pub(super) struct Problems;

impl IntoResponses for Problems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let schema = RefOr::Ref(Ref::from_schema_name("Problem"));
        let content = ContentBuilder::new().schema(Some(schema)).build();
        let response = ResponseBuilder::new()
            .description("What is wrong, and what to do.")
            .content("application/problem+json", content)
            .build();
        BTreeMap::from([("default".to_owned(), RefOr::T(response))])
    }
}

/// The document, as it is sent.
#[derive(Clone)]
pub(super) struct Written(pub(super) Bytes);

/// This document.
#[utoipa::path(
    get,
    path = "/v1/openapi.json",
    tag = "session",
    operation_id = "showOpenApi",
    security(()),
    responses((status = 200, description = "OpenAPI 3.1.", body = Object), Problems)
)]
pub(super) async fn document(
    Extension(Written(document)): Extension<Written>,
) -> ([(HeaderName, &'static str); 1], Bytes) {
    ([(header::CONTENT_TYPE, "application/json")], document)
}
