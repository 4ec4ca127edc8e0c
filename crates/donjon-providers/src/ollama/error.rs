//! What Ollama's errors mean (<https://docs.ollama.com/api/errors>).

use donjon_core::{ErrorKind, LlmError};
use http::StatusCode;

use crate::fault::{Told, kind_of_status, unreadable};

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

/// The one table from status to kind.
fn kind(status: Option<u16>, told: &Told) -> ErrorKind {
    let status = status.filter(|status| *status >= 400);
    match status.or_else(|| told.status()) {
        Some(400) => kind_of_text(&told.message).unwrap_or(ErrorKind::InvalidRequest),
        // The server's own queue is full; there is no front before it that could be down.
        Some(503) => ErrorKind::Overloaded,
        Some(status) => kind_of_status(status),
        None => kind_of_text(&told.message).unwrap_or(ErrorKind::ServerError),
    }
}

/// What an error without a code is really about. The server tells errors by a sentence alone, and
/// without these a model that cannot do what is asked would be taken for a request that makes no
/// sense, which no other target is asked for.
fn kind_of_text(message: &str) -> Option<ErrorKind> {
    let says = |words: &str| message.contains(words);
    if says("does not support") {
        Some(ErrorKind::Unsupported)
    } else if says("exceeds the context length") || says("exceeds maximum context length") {
        Some(ErrorKind::ContextLength)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn errors_by_status_and_sentence() {
        use ErrorKind as K;
        for (status, body, kind) in [
            (400, r#"{"error":"missing request body"}"#, K::InvalidRequest),
            (400, r#"{"error":"registry.ollama.ai/library/gemma:2b does not support tools"}"#, K::Unsupported),
            (400, r#"{"error":"\"llama3.2\" does not support thinking"}"#, K::Unsupported),
            (400, r#"{"error":"the input length exceeds the context length"}"#, K::ContextLength),
            (401, r#"{"error":"unauthorized"}"#, K::Authentication),
            (403, r#"{"error":"forbidden"}"#, K::PermissionDenied),
            (404, r#"{"error":"model 'llama9' not found"}"#, K::ModelNotFound),
            (429, r#"{"error":"too many concurrent requests"}"#, K::RateLimited),
            (500, r#"{"error":"model requires more system memory (5.6 GiB) than is available (3.1 GiB)"}"#, K::ServerError),
            (502, r#"{"error":"upstream error"}"#, K::Unavailable),
            (503, r#"{"error":"server busy, please try again.  maximum pending requests exceeded"}"#, K::Overloaded),
            (500, "<html>", K::ServerError),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            let error = decode(status, Some("application/json"), body.as_bytes());
            assert_eq!(error.kind(), kind, "{body}");
            assert!(!error.message().is_empty());
        }
    }

    #[test]
    fn errors_in_place_of_an_answer() {
        let kind = |body: &str| decode_unannounced(body.as_bytes()).map(|error| error.kind());
        let died = r#"{"error":"llama runner process has terminated: exit status 2"}"#;
        assert_eq!(kind(died), Some(ErrorKind::ServerError));
        let unable = r#"{"error":"this model does not support images"}"#;
        assert_eq!(kind(unable), Some(ErrorKind::Unsupported));
        assert_eq!(kind(r#"{"model":"m","done":true}"#), None);
    }
}
