//! What Anthropic's errors mean, and how they are told
//! (<https://docs.anthropic.com/en/api/errors>).

use bytes::Bytes;
use donjon_core::{ErrorKind, LlmError};
use http::StatusCode;
use serde::Serialize;

use crate::{
    fault::{Told, kind_of_status, unreadable},
    json,
};

/// Reads an error that came with a status of its own.
pub(super) fn decode(status: StatusCode, content_type: Option<&str>, body: &[u8]) -> LlmError {
    match Told::read(body) {
        Some(told) => {
            let kind = kind(Some(status.as_u16()), &told);
            told.into_error(kind)
        }
        None => unreadable(status.as_u16(), content_type),
    }
}

/// Reads an error that came where an answer was expected, or in the middle of one.
pub(super) fn decode_unannounced(body: &[u8]) -> Option<LlmError> {
    let told = Told::read(body)?;
    let kind = kind(None, &told);
    Some(told.into_error(kind))
}

/// The one table from status and type to kind.
#[rustfmt::skip]
fn kind(status: Option<u16>, told: &Told) -> ErrorKind {
    match told.kind.as_deref() {
        Some("invalid_request_error") => kind_of_text(&told.message)
            .or_else(|| status.filter(|s| *s > 400).map(kind_of_status))
            .unwrap_or(ErrorKind::InvalidRequest),
        Some("authentication_error")  => ErrorKind::Authentication,
        Some("billing_error")         => ErrorKind::QuotaExhausted,
        Some("permission_error")      => ErrorKind::PermissionDenied,
        Some("not_found_error")       => ErrorKind::ModelNotFound,
        Some("request_too_large")     => ErrorKind::RequestTooLarge,
        Some("rate_limit_error")      => ErrorKind::RateLimited,
        Some("timeout_error")         => ErrorKind::Unavailable,
        Some("overloaded_error")      => ErrorKind::Overloaded,
        // `api_error` among them: the status says as much.
        _ => match status.filter(|status| *status >= 400).or_else(|| told.status()) {
            Some(status) => kind_of_status(status),
            None => ErrorKind::ServerError,
        },
    }
}

/// What an `invalid_request_error` is really about. The API gives all of these one type and no code,
/// so that it is told by its text, as at the other providers that leave it at a sentence: without it, a
/// prompt that only a larger window can hold would be taken for one that makes no sense.
#[rustfmt::skip]
fn kind_of_text(message: &str) -> Option<ErrorKind> {
    let says = |words: &str| message.contains(words);
    if says("prompt is too long") || says("exceed context limit") {
        Some(ErrorKind::ContextLength)
    } else if says("credit balance is too low") {
        Some(ErrorKind::QuotaExhausted)
    } else if says("content filtering policy") {
        Some(ErrorKind::ContentPolicy)
    } else {
        None
    }
}

/// The body that tells `error` to a client of Anthropic; the same text is the data of an in-band
/// `error` event.
pub fn error_to_json(error: &LlmError) -> Bytes {
    #[derive(Serialize)]
    struct Body<'a> {
        r#type: &'static str,
        error: Members<'a>,
    }
    #[derive(Serialize)]
    struct Members<'a> {
        r#type: &'static str,
        message: &'a str,
    }
    json::to_bytes(&Body {
        r#type: "error",
        error: Members {
            r#type: type_of(error),
            message: crate::openai::public_message(error),
        },
    })
}

fn type_of(error: &LlmError) -> &'static str {
    match (error.kind(), error.http_status()) {
        (ErrorKind::QuotaExhausted, _) => "billing_error",
        (ErrorKind::Overloaded, _) => "overloaded_error",
        (ErrorKind::RequestTooLarge, _) => "request_too_large",
        (_, 401) => "authentication_error",
        (_, 403) => "permission_error",
        (_, 404) => "not_found_error",
        (_, 413) => "request_too_large",
        (_, 429) => "rate_limit_error",
        (_, 504) => "timeout_error",
        (_, ..500) => "invalid_request_error",
        (_, 500..) => "api_error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bodies as they were recorded.
    #[test]
    #[rustfmt::skip]
    fn recorded_errors() {
        use ErrorKind as K;
        let body = |kind: &str, message: &str| {
            serde_json::json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}).to_string()
        };
        for (status, word, message, kind) in [
            (400, "invalid_request_error", "prompt is too long: 207791 tokens > 200000 maximum", K::ContextLength),
            (400, "invalid_request_error", "input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000, decrease input length or `max_tokens` and try again", K::ContextLength),
            (400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits.", K::QuotaExhausted),
            (400, "invalid_request_error", "Output blocked by content filtering policy", K::ContentPolicy),
            (400, "invalid_request_error", "max_tokens: Field required", K::InvalidRequest),
            (401, "authentication_error", "invalid x-api-key", K::Authentication),
            (402, "billing_error", "m", K::QuotaExhausted),
            (403, "permission_error", "m", K::PermissionDenied),
            (404, "not_found_error", "model: claude-nonesuch", K::ModelNotFound),
            (413, "request_too_large", "Request exceeds the maximum size", K::RequestTooLarge),
            (429, "rate_limit_error", "m", K::RateLimited),
            (500, "api_error", "Internal server error", K::ServerError),
            (503, "api_error", "Service Unavailable", K::Unavailable),
            (504, "timeout_error", "m", K::Unavailable),
            (529, "overloaded_error", "Overloaded", K::Overloaded),
            (408, "invalid_request_error", "m", K::Unavailable),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            let error = decode(status, None, body(word, message).as_bytes());
            assert_eq!((error.kind(), error.code(), error.message()), (kind, Some(word), message), "{status}");
        }
        for (word, kind) in [("overloaded_error", K::Overloaded), ("api_error", K::ServerError), ("rate_limit_error", K::RateLimited)] {
            assert_eq!(decode_unannounced(body(word, "m").as_bytes()).expect("an error").kind(), kind);
        }
    }

    #[test]
    fn a_page_is_told_by_its_status() {
        for (status, kind) in [
            (200, ErrorKind::InvalidResponse),
            (502, ErrorKind::Unavailable),
            (529, ErrorKind::Overloaded),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(decode(status, Some("text/html"), b"<html>").kind(), kind);
        }
    }

    #[test]
    #[rustfmt::skip]
    fn errors_are_told_in_anthropics_words() {
        use ErrorKind as K;
        for (kind, word) in [
            (K::InvalidRequest, "invalid_request_error"), (K::ContextLength, "invalid_request_error"),
            (K::RateLimited, "rate_limit_error"), (K::Overloaded, "overloaded_error"), (K::QuotaExhausted, "billing_error"),
            (K::ModelNotFound, "not_found_error"), (K::Authentication, "authentication_error"), (K::RequestTooLarge, "request_too_large"),
            (K::AllTargetsFailed, "api_error"), (K::Timeout(donjon_core::TimeoutClock::Total), "timeout_error"),
        ] {
            let told: serde_json::Value = serde_json::from_slice(&error_to_json(&LlmError::new(kind, "m"))).expect("JSON");
            assert_eq!(told, serde_json::json!({"type": "error", "error": {"type": word, "message": "m"}}));
        }
    }
}
