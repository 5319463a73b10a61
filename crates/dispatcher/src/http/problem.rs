//! Errors as people and programs see them: problem details (RFC 9457), one table from each error of
//! this program to status, code and remedy.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use excite_jobs::BatchId;
use excite_jobs::api::Problem;
use excite_jobs::limits;
use excite_jobs::progress::ProgressError;
use excite_jobs::queue::QueueError;
use excite_jobs::store::StoreError;

use crate::accept::{AcceptError, BodyFault};
use crate::header::HeaderError;
use crate::job_index::IndexError;
use crate::manifest::ManifestError;
use crate::models::{CardFault, PushError};

/// Seconds after which to ask again when something is down.
const RETRY_SECONDS: u64 = 5;

/// An answer that is an error.
#[derive(Debug)]
pub(crate) struct Fault(Box<Problem>);

impl Fault {
    pub(crate) fn new(
        status: StatusCode,
        code: &str,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self(Box::new(Problem {
            kind: "about:blank".into(),
            title: status.canonical_reason().unwrap_or("Error").into(),
            status: status.as_u16(),
            detail: detail.into(),
            code: code.into(),
            remedy: remedy.into(),
            errors: Vec::new(),
            refused: None,
        }))
    }

    pub(crate) fn bad(code: &str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail, remedy)
    }

    pub(crate) fn refused(code: &str, detail: String, remedy: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail, remedy)
    }

    pub(crate) fn missing(what: String) -> Self {
        let remedy =
            "Check the name; `excite batch list` shows batches, `excite model list` models.";
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("there is no {what}"), remedy)
    }

    pub(crate) fn no_batch(id: BatchId) -> Self {
        Self::missing(format!("batch {id}"))
    }

    pub(crate) fn unavailable(code: &str, detail: String) -> Self {
        let remedy = "Try again later; `excite doctor` says what is wrong.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail, remedy)
    }

    pub(crate) fn internal(detail: String) -> Self {
        let remedy = "This is a fault of the dispatcher: look at its log.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail, remedy)
    }

    pub(crate) fn status(&self) -> u16 {
        self.0.status
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or_default();
        let body = crate::header::json(&*self.0);
        let kind = HeaderValue::from_static("application/problem+json");
        let mut response = (status, [(header::CONTENT_TYPE, kind)], body).into_response();
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_SECONDS.into());
        }
        response
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Key(_) => Self::bad("bad_name", error.to_string(), "Use another name."),
            StoreError::Damaged { .. } => Self::internal(error.to_string()),
            StoreError::Conflict(_) => Self::new(
                StatusCode::CONFLICT,
                "conflict",
                error.to_string(),
                "Read it again, then try again.",
            ),
            _ => Self::unavailable("store_unavailable", error.to_string()),
        }
    }
}

impl From<HeaderError> for Fault {
    fn from(error: HeaderError) -> Self {
        match error {
            HeaderError::Store(error) => error.into(),
            HeaderError::Contended { .. } => Self::unavailable("contended", error.to_string()),
            HeaderError::Unreadable { .. } => Self::internal(error.to_string()),
        }
    }
}

impl From<ManifestError> for Fault {
    fn from(error: ManifestError) -> Self {
        match error {
            ManifestError::Store(error) => error.into(),
            ManifestError::NoJob(index) => Self::missing(format!("job {index}")),
            ManifestError::Damaged { .. } => Self::internal(error.to_string()),
        }
    }
}

impl From<IndexError> for Fault {
    fn from(error: IndexError) -> Self {
        match error {
            IndexError::Store(error) => error.into(),
            IndexError::TooLarge { batch, .. } => {
                let remedy = format!(
                    "Read `/v1/batches/{batch}/results`, or fetch images with `excite batch fetch {batch}`."
                );
                Self::refused("too_large", error.to_string(), remedy)
            }
        }
    }
}

impl From<QueueError> for Fault {
    fn from(error: QueueError) -> Self {
        Self::unavailable("broker_unavailable", error.to_string())
    }
}

impl From<ProgressError> for Fault {
    fn from(error: ProgressError) -> Self {
        Self::unavailable("progress_unavailable", error.to_string())
    }
}

impl From<CardFault> for Fault {
    fn from(fault: CardFault) -> Self {
        Self::refused(fault.code, fault.message, fault.remedy)
    }
}

impl From<PushError> for Fault {
    fn from(error: PushError) -> Self {
        match error {
            PushError::Card(fault) => fault.into(),
            PushError::Store(error) => error.into(),
        }
    }
}

impl From<BodyFault> for Fault {
    fn from(fault: BodyFault) -> Self {
        let detail = fault.to_string();
        match fault {
            BodyFault::Cut(_) => {
                Self::bad("body_cut", detail, "Send it again; nothing of it was accepted.")
            }
            BodyFault::NotGzip(_) => {
                Self::bad("not_gzip", detail, "Send it without `Content-Encoding`, or zip it anew.")
            }
            BodyFault::TooLarge { .. } => {
                let remedy = "Split the file.";
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail, remedy)
            }
            BodyFault::RowTooLong { .. } => {
                Self::refused("line_too_long", detail, "Look for a quote that is not closed.")
            }
        }
    }
}

impl From<AcceptError> for Fault {
    fn from(error: AcceptError) -> Self {
        let detail = error.to_string();
        match error {
            AcceptError::Option { code, remedy, .. } => Self::refused(code, detail, remedy),
            AcceptError::UnknownModel { name, known } => {
                Self::refused("unknown_model", detail, model_remedy(&name, &known))
            }
            AcceptError::Lines { refused, refusals, .. } => {
                let remedy = "Mend the lines that are listed, then send all of it again.";
                let mut fault = Self::refused("lines_refused", detail, remedy);
                fault.0.errors = refusals;
                fault.0.refused = Some(refused);
                fault
            }
            AcceptError::Empty => Self::refused("empty", detail, "Write one job or prompt a line."),
            AcceptError::Body(fault) => fault.into(),
            AcceptError::TooManyLines => Self::refused("too_many_lines", detail, "Split the file."),
            AcceptError::TooManyJobs { .. } => {
                Self::refused("too_many_jobs", detail, "Split the file, or ask for fewer seeds.")
            }
            AcceptError::TooManyForExpress { .. } => {
                let max = limits::EXPRESS_JOBS_MAX;
                let remedy = format!("Leave `lane` out; express is for at most {max} jobs.");
                Self::refused("too_many_for_express", detail, remedy)
            }
            AcceptError::KeyReused { .. } => Self::new(
                StatusCode::CONFLICT,
                "idempotency_key_reused",
                detail,
                "Use a new `Idempotency-Key` for each batch.",
            ),
            AcceptError::Busy => {
                let remedy = "Try again in a moment.";
                Self::new(StatusCode::TOO_MANY_REQUESTS, "busy", detail, remedy)
            }
            AcceptError::Store(error) => error.into(),
            AcceptError::Header(error) => error.into(),
            AcceptError::Internal(_) => Self::internal(detail),
        }
    }
}

fn model_remedy(name: &str, known: &[String]) -> String {
    let push = if name == "emoji" {
        "Push the bundled model with `excite model push emoji`".to_owned()
    } else {
        "Push it with `excite model push PATH`".to_owned()
    };
    match known {
        [] => format!("{push}; there is no other model yet."),
        known => format!("{push}, or use one of: {}.", known.join(", ")),
    }
}
