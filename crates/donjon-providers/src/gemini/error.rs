//! What Gemini's errors mean: bodies of `google.rpc.Status`
//! (<https://ai.google.dev/gemini-api/docs/troubleshooting>, <https://google.aip.dev/193>).

use donjon_core::{ErrorKind, LlmError};
use http::StatusCode;
use serde::Deserialize;

use crate::{
    fault::{Told, kind_of_status, unreadable},
    hints,
};

/// Reads an error that came with a status of its own.
pub(super) fn decode(status: StatusCode, content_type: Option<&str>, body: &[u8]) -> LlmError {
    read(Some(status.as_u16()), body).unwrap_or_else(|| unreadable(status.as_u16(), content_type))
}

/// Reads an error that came where an answer was expected, or in the middle of one.
pub(super) fn decode_unannounced(body: &[u8]) -> Option<LlmError> {
    read(None, body)
}

/// What a status says beside its sentence.
#[derive(Default, Deserialize)]
struct Status {
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    details: Vec<Detail>,
}

/// One of the standard details; each has some of these members.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Detail {
    /// `ErrorInfo`.
    #[serde(default)]
    reason: Option<String>,
    /// `RetryInfo`.
    #[serde(default)]
    retry_delay: Option<String>,
    /// `QuotaFailure`.
    #[serde(default)]
    violations: Vec<Violation>,
    /// `BadRequest`.
    #[serde(default)]
    field_violations: Vec<FieldViolation>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Violation {
    #[serde(default)]
    quota_id: String,
}

#[derive(Deserialize)]
struct FieldViolation {
    #[serde(default)]
    field: String,
}

fn read(status: Option<u16>, body: &[u8]) -> Option<LlmError> {
    #[derive(Deserialize)]
    struct Body {
        error: Status,
    }
    let told = Told::read(body)?;
    // Without `alt=sse` a stream is a list, and so is an error in place of one. A list is looked for
    // first, since a struct can be read from the members of one.
    let listed: Option<Vec<Body>> = serde_json::from_slice(body).ok();
    let rpc = match listed {
        Some(list) => list.into_iter().next(),
        None => serde_json::from_slice(body).ok(),
    };
    let rpc = rpc.map(|body: Body| body.error).unwrap_or_default();
    let kind = kind(
        status.filter(|s| *s >= 400).or_else(|| told.status()),
        &rpc,
        &told,
    );
    let mut error = told.into_error(kind);
    if let Some(word) = &rpc.status {
        error = error.with_code(&**word);
    }
    let mut fields = rpc.details.iter().flat_map(|one| &one.field_violations);
    if let Some(violation) = fields.next().filter(|one| !one.field.is_empty()) {
        error = error.with_field(&*violation.field);
    }
    let mut delays = rpc
        .details
        .iter()
        .filter_map(|one| one.retry_delay.as_deref());
    if let Some(delay) = delays.next().and_then(hints::duration) {
        error = error.with_retry_after(delay);
    }
    Some(error)
}

/// The one table from status and words to kind; the first row that fits counts.
#[rustfmt::skip]
fn kind(status: Option<u16>, rpc: &Status, told: &Told) -> ErrorKind {
    let reason = |word: &str| rpc.details.iter().any(|one| one.reason.as_deref() == Some(word));
    // A wrong key is an argument like any other to this API.
    if reason("API_KEY_INVALID") {
        return ErrorKind::Authentication;
    }
    match rpc.status.as_deref() {
        Some("INVALID_ARGUMENT" | "OUT_OF_RANGE") if is_too_long(&told.message) => ErrorKind::ContextLength,
        Some("INVALID_ARGUMENT" | "OUT_OF_RANGE") => ErrorKind::InvalidRequest,
        // The region, or an account that bills nobody: another target may serve.
        Some("FAILED_PRECONDITION") => ErrorKind::PermissionDenied,
        Some("UNAUTHENTICATED")     => ErrorKind::Authentication,
        Some("PERMISSION_DENIED")   => ErrorKind::PermissionDenied,
        Some("NOT_FOUND")           => ErrorKind::ModelNotFound,
        // What is gone for the day is not back after the wait that is told with it.
        Some("RESOURCE_EXHAUSTED") if is_daily(rpc) => ErrorKind::QuotaExhausted,
        Some("RESOURCE_EXHAUSTED")  => ErrorKind::RateLimited,
        Some("UNAVAILABLE")         => ErrorKind::Overloaded,
        Some("DEADLINE_EXCEEDED" | "CANCELLED" | "ABORTED") => ErrorKind::Unavailable,
        Some("UNIMPLEMENTED")       => ErrorKind::Unsupported,
        Some("INTERNAL" | "UNKNOWN" | "DATA_LOSS") => ErrorKind::ServerError,
        _ => status.map_or(ErrorKind::ServerError, kind_of_status),
    }
}

fn is_daily(rpc: &Status) -> bool {
    let mut violations = rpc.details.iter().flat_map(|one| &one.violations);
    violations.any(|one| one.quota_id.contains("PerDay"))
}

/// Whether an invalid argument is a prompt that is too long: there is no word for it but the sentence,
/// and without this no larger window would be asked.
fn is_too_long(message: &str) -> bool {
    message.contains("exceeds the maximum number of tokens")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn error(code: u16, word: &str, message: &str, details: &str) -> LlmError {
        let body = format!(
            r#"{{"error":{{"code":{code},"message":"{message}","status":"{word}","details":[{details}]}}}}"#
        );
        let status = StatusCode::from_u16(code).expect("a status");
        let listed = format!("[{body}]");
        let one = decode(status, Some("application/json"), body.as_bytes());
        for other in [
            decode(status, None, listed.as_bytes()),
            decode_unannounced(body.as_bytes()).expect("an error"),
        ] {
            assert_eq!(other.kind(), one.kind(), "{body}");
        }
        one
    }

    #[test]
    #[rustfmt::skip]
    fn errors_by_status_and_details() {
        use ErrorKind as K;
        let key = r#"{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID","domain":"googleapis.com"}"#;
        let minute = r#"{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaId":"GenerateRequestsPerMinutePerProjectPerModel-FreeTier"}]}"#;
        let day = r#"{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaId":"GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}"#;
        for (code, word, message, details, kind) in [
            (400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", key, K::Authentication),
            (400, "INVALID_ARGUMENT", "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).", "", K::ContextLength),
            (400, "INVALID_ARGUMENT", "Request contains an invalid argument.", "", K::InvalidRequest),
            (400, "FAILED_PRECONDITION", "User location is not supported for the API use.", "", K::PermissionDenied),
            (401, "UNAUTHENTICATED", "m", "", K::Authentication),
            (403, "PERMISSION_DENIED", "m", "", K::PermissionDenied),
            (404, "NOT_FOUND", "models/x is not found for API version v1beta", "", K::ModelNotFound),
            (429, "RESOURCE_EXHAUSTED", "m", minute, K::RateLimited),
            (429, "RESOURCE_EXHAUSTED", "m", day, K::QuotaExhausted),
            (500, "INTERNAL", "m", "", K::ServerError),
            (503, "UNAVAILABLE", "The model is overloaded. Please try again later.", "", K::Overloaded),
            (504, "DEADLINE_EXCEEDED", "m", "", K::Unavailable),
            (499, "CANCELLED", "m", "", K::Unavailable),
            (501, "UNIMPLEMENTED", "m", "", K::Unsupported),
        ] {
            let error = error(code, word, message, details);
            assert_eq!(error.kind(), kind, "{code} {word} {message}");
            assert_eq!(error.code(), Some(word));
        }
        let page = decode(StatusCode::BAD_GATEWAY, Some("text/html"), b"<html>");
        assert_eq!(page.kind(), K::Unavailable);
    }

    #[test]
    fn details_are_read() {
        let details = r#"{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"34.5s"},
            {"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":[{"field":"contents[0].parts"}]}"#;
        let error = error(429, "RESOURCE_EXHAUSTED", "m", details);
        assert_eq!(error.retry_after(), Some(Duration::from_millis(34_500)));
        assert_eq!(error.field(), Some("contents[0].parts"));
    }
}
