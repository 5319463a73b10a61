//! What a server's answer means. No request is ever shown: it holds the signature.

use std::error::Error;

use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStreamError;

use crate::store::StoreError;

/// What is looked at of an error, of a whole call or of one object among many.
pub(super) trait Answer {
    /// HTTP's status, if the server answered.
    fn status(&self) -> Option<u16>;
    /// S3's code.
    fn code(&self) -> Option<&str>;
    /// The server's words, or what went wrong in front of it.
    fn words(&self) -> String;
    /// No request was sent for want of an identity.
    fn is_unsigned(&self) -> bool {
        false
    }
}

impl<E: ProvideErrorMetadata + Error + 'static> Answer for SdkError<E> {
    fn status(&self) -> Option<u16> {
        self.raw_response().map(|response| response.status().as_u16())
    }

    fn code(&self) -> Option<&str> {
        ProvideErrorMetadata::code(self)
    }

    fn words(&self) -> String {
        match (self, ProvideErrorMetadata::message(self)) {
            (_, Some(message)) => message.to_owned(),
            (Self::ServiceError(_), None) => String::new(),
            (Self::ResponseError(_), None) => "the answer cannot be read".to_owned(),
            (Self::TimeoutError(_), None) => "no answer in time".to_owned(),
            // The chain of causes without the request.
            _ => causes(self),
        }
    }

    fn is_unsigned(&self) -> bool {
        let before = matches!(self, Self::DispatchFailure(_) | Self::ConstructionFailure(_));
        before && causes(self).contains("credential")
    }
}

impl Answer for aws_sdk_s3::types::Error {
    fn status(&self) -> Option<u16> {
        None
    }

    fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    fn words(&self) -> String {
        self.message.clone().unwrap_or_default()
    }
}

fn causes(error: &(dyn Error + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = error.source();
    while let Some(error) = next {
        let text = error.to_string();
        if texts.last().is_none_or(|last| !last.contains(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    texts.join(": ")
}

/// What a failed call means.
pub(super) fn failure(bucket: &str, key: &str, error: &impl Answer) -> StoreError {
    let (status, code) = (error.status(), error.code().unwrap_or_default());
    let words = error.words();
    let said = match (code, status, words.as_str()) {
        ("", None, words) => words.to_owned(),
        ("", Some(status), words) => format!("HTTP status {status} {words}").trim().to_owned(),
        (code, _, "") => code.to_owned(),
        (code, _, words) => format!("{code}: {words}"),
    };
    let key = key.to_owned();
    match (code, status) {
        ("NoSuchBucket", _) => StoreError::NoBucket(format!("bucket `{bucket}`: make it first")),
        ("PreconditionFailed" | "ConditionalRequestConflict", _) => StoreError::Conflict(key),
        ("BadDigest" | "InvalidDigest" | "XAmzContentChecksumMismatch", _) => {
            StoreError::Damaged { key, message: said }
        }
        // Of a clock, not of a person.
        ("RequestTimeTooSkewed", _) => {
            let remedy = "set this machine's clock right, for instance with an NTP service";
            StoreError::Denied { key, message: format!("{said}; {remedy}") }
        }
        ("AccessDenied" | "AllAccessDisabled" | "AccountProblem", _) | (_, Some(401 | 403)) => {
            let message = format!("{said}{}", remedy(code));
            StoreError::Denied { key, message }
        }
        ("NotImplemented", _) | (_, Some(301 | 307 | 405 | 501)) => {
            let remedy = "check `endpoint` and `region` in the section `store`";
            StoreError::Unsuitable(format!("`{key}`: {said}; {remedy}"))
        }
        _ if error.is_unsigned() => {
            let remedy = "set `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, or give this \
                machine a role";
            StoreError::Denied {
                key,
                message: format!("there are no credentials: {said}; {remedy}"),
            }
        }
        _ => StoreError::Unavailable { key, message: said },
    }
}

fn remedy(code: &str) -> &'static str {
    match code {
        "SignatureDoesNotMatch" => "; the secret key is wrong: check `AWS_SECRET_ACCESS_KEY`",
        "InvalidAccessKeyId" | "NotSignedUp" => {
            "; the access key is unknown: check `AWS_ACCESS_KEY_ID`"
        }
        "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => {
            "; the session's token is no longer valid: get another one"
        }
        _ => "; check the rights of the key on the bucket",
    }
}

/// A body that broke off or differs from its checksum.
pub(super) fn body(key: &str, error: &ByteStreamError) -> StoreError {
    let message = DisplayErrorContext(error).to_string();
    if message.to_lowercase().contains("checksum") {
        return StoreError::Damaged { key: key.to_owned(), message };
    }
    unavailable(key, &message)
}

pub(super) fn unavailable(key: &str, message: &str) -> StoreError {
    StoreError::Unavailable { key: key.to_owned(), message: message.to_owned() }
}
