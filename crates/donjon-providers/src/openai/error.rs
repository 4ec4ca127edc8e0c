//! What the errors of OpenAI and compatible servers mean, and how they are told.
//!
//! Sources: <https://platform.openai.com/docs/guides/error-codes>,
//! <https://learn.microsoft.com/azure/ai-foundry/openai/concepts/content-filter>,
//! <https://openrouter.ai/docs/api-reference/errors>.

use bytes::Bytes;
use donjon_core::{ErrorKind, Extra, FinishReason, LlmError};
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

/// Reads an error that came where an answer or an event of one was expected.
pub(super) fn decode_unannounced(body: &[u8]) -> Option<LlmError> {
    let told = Told::read(body)?;
    let kind = kind(None, &told);
    Some(told.into_error(kind))
}

/// Reads the error of an answer, or of an event of one, that is known to have failed.
pub(super) fn decode_failed(body: &[u8]) -> LlmError {
    decode_unannounced(body).unwrap_or_else(|| {
        LlmError::new(
            ErrorKind::ServerError,
            "the provider failed and does not say why",
        )
    })
}

/// Whether a choice ended in an error.
pub(super) fn ends_in_error(reason: Option<&FinishReason>) -> bool {
    reason.is_some_and(|reason| reason.as_str() == "error")
}

/// Whether an error is told among `members`.
pub(super) fn tells_error(members: &Extra) -> bool {
    members
        .get("error")
        .is_some_and(|error| !matches!(error.get(), "null" | "false" | "\"\""))
}

/// The one table from status and words to kind; the first row that fits counts.
fn kind(status: Option<u16>, told: &Told) -> ErrorKind {
    // A body too large for a limit carries the limit's code at some servers, but no wait helps it.
    if status == Some(413) {
        return ErrorKind::RequestTooLarge;
    }
    if let Some(kind) = told.words().find_map(|word| kind_of_word(word, status)) {
        return kind;
    }
    match status
        .filter(|status| *status >= 400)
        .or_else(|| told.status())
    {
        Some(status) => kind_of_status(status),
        None => ErrorKind::ServerError,
    }
}

#[rustfmt::skip]
fn kind_of_word(word: &str, status: Option<u16>) -> Option<ErrorKind> {
    Some(match word {
        "context_length_exceeded"
        | "model_max_prompt_tokens_exceeded"   => ErrorKind::ContextLength,
        "content_policy_violation"
        | "content_filter"
        | "ResponsibleAIPolicyViolation"
        | "moderation_blocked"                 => ErrorKind::ContentPolicy,
        "insufficient_quota"
        | "billing_hard_limit_reached"
        | "billing_not_active"
        | "insufficient_credits"               => ErrorKind::QuotaExhausted,
        "model_not_found"
        | "DeploymentNotFound"                 => ErrorKind::ModelNotFound,
        "invalid_api_key"
        | "authentication_error"               => ErrorKind::Authentication,
        "permission_denied"
        | "permission_error"                   => ErrorKind::PermissionDenied,
        "rate_limit_exceeded"
        | "rate_limit_error"                   => ErrorKind::RateLimited,
        "overloaded"
        | "overloaded_error"
        | "engine_overloaded"
        | "slow_down"                          => ErrorKind::Overloaded,
        "service_unavailable"                  => ErrorKind::Unavailable,
        "unsupported_parameter"
        | "unsupported_value"                  => ErrorKind::Unsupported,
        // These say less than a status, where there is one.
        "invalid_request_error" if status.is_none_or(|s| s < 400) => ErrorKind::InvalidRequest,
        "timeout" if status.is_none_or(|s| s < 400)               => ErrorKind::Unavailable,
        "not_found_error" if status.is_none_or(|s| s < 400)       => ErrorKind::ModelNotFound,
        _ => return None,
    })
}

/// The body that tells `error` to a client of OpenAI; the same text is the data of an in-band error
/// event.
pub fn error_to_json(error: &LlmError) -> Bytes {
    #[derive(Serialize)]
    struct Body<'a> {
        error: Members<'a>,
    }
    #[derive(Serialize)]
    struct Members<'a> {
        message: &'a str,
        r#type: &'static str,
        param: Option<&'a str>,
        code: &'a str,
    }
    json::to_bytes(&Body {
        error: Members {
            message: crate::openai::public_message(error),
            r#type: type_of(error),
            param: error.field(),
            code: own_code(error).unwrap_or(error.kind().as_str()),
        },
    })
}

/// The code of an error, where it says more than its kind: one that we gave ourselves, or one by
/// which an OpenAI-compatible provider says what is wrong with a request. Any other provider's words
/// are its own, and its kind has a word that clients know.
fn own_code(error: &LlmError) -> Option<&str> {
    let says_more = match error.provider() {
        None => true,
        Some(provider) => {
            !["anthropic", "gcp.gemini"].contains(&&*provider)
                && error.kind() == ErrorKind::InvalidRequest
        }
    };
    error.code().filter(|_| says_more)
}

fn type_of(error: &LlmError) -> &'static str {
    match (error.kind(), error.http_status()) {
        // Clients tell by this type that waiting does not help.
        (ErrorKind::QuotaExhausted, _) => "insufficient_quota",
        (_, 401) => "authentication_error",
        (_, 403) => "permission_error",
        (_, 429) => "rate_limit_error",
        (_, ..500) => "invalid_request_error",
        (_, 500..) => "server_error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, body: &str) -> LlmError {
        let status = StatusCode::from_u16(status).expect("a status");
        decode(status, Some("application/json"), body.as_bytes())
    }

    /// Bodies as they were recorded from the named servers.
    #[test]
    #[rustfmt::skip]
    fn recorded_errors() {
        use ErrorKind as K;
        for (status, body, kind, code) in [
            (400, r#"{"error":{"message":"This model's maximum context length is 8192 tokens. However, your messages resulted in 8227 tokens.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#, K::ContextLength, "context_length_exceeded"),
            (400, r#"{"error":{"message":"Your request was rejected as a result of our safety system.","type":"invalid_request_error","param":null,"code":"content_policy_violation"}}"#, K::ContentPolicy, "content_policy_violation"),
            (400, r#"{"error":{"message":"The response was filtered","type":null,"param":"prompt","code":"content_filter","status":400,"innererror":{"code":"ResponsibleAIPolicyViolation","content_filter_result":{}}}}"#, K::ContentPolicy, "content_filter"),
            (400, r#"{"error":{"message":"m","code":null,"innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#, K::ContentPolicy, ""),
            (400, r#"{"error":{"message":"Unsupported value: 'temperature' does not support 7 with this model.","type":"invalid_request_error","param":"temperature","code":"unsupported_value"}}"#, K::Unsupported, "unsupported_value"),
            (400, r#"{"error":{"message":"you must provide a model parameter","type":"invalid_request_error","param":null,"code":null}}"#, K::InvalidRequest, "invalid_request_error"),
            (422, r#"{"detail":[{"loc":["body","x"],"msg":"extra fields not permitted"}]}"#, K::InvalidRequest, ""),
            (429, r#"{"error":{"message":"Rate limit reached for gpt-4o","type":"tokens","param":null,"code":"rate_limit_exceeded"}}"#, K::RateLimited, "rate_limit_exceeded"),
            (429, r#"{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#, K::QuotaExhausted, "insufficient_quota"),
            (429, r#"{"error":{"code":"429","message":"Requests have exceeded call rate limit"}}"#, K::RateLimited, "429"),
            (402, r#"{"error":{"message":"Insufficient credits","code":402}}"#, K::QuotaExhausted, "402"),
            (401, r#"{"error":{"message":"Incorrect API key provided","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}"#, K::Authentication, "invalid_api_key"),
            (403, r#"{"error":{"message":"Country not supported","type":"request_forbidden","param":null,"code":"unsupported_country_region_territory"}}"#, K::PermissionDenied, "unsupported_country_region_territory"),
            (404, r#"{"error":{"message":"The model `x` does not exist","type":"invalid_request_error","param":null,"code":"model_not_found"}}"#, K::ModelNotFound, "model_not_found"),
            (404, r#"{"error":{"code":"DeploymentNotFound","message":"The API deployment for this resource does not exist."}}"#, K::ModelNotFound, "DeploymentNotFound"),
            (404, r#"{"error":"model 'llama9' not found"}"#, K::ModelNotFound, ""),
            (413, r#"{"error":{"message":"Request too large for model","type":"tokens","code":"rate_limit_exceeded"}}"#, K::RequestTooLarge, "rate_limit_exceeded"),
            (408, r#"{"error":{"message":"m"}}"#, K::Unavailable, ""),
            (409, r#"{"error":{"message":"m"}}"#, K::Unavailable, ""),
            (500, r#"{"error":{"message":"The server had an error","type":"server_error","param":null,"code":null}}"#, K::ServerError, "server_error"),
            (502, r#"{"error":{"message":"m","code":502}}"#, K::Unavailable, "502"),
            (503, r#"{"error":{"message":"The engine is currently overloaded","type":"server_error","param":null,"code":"service_unavailable"}}"#, K::Unavailable, "service_unavailable"),
            (503, r#"{"error":{"message":"Slow down","type":"requests","code":"slow_down"}}"#, K::Overloaded, "slow_down"),
            (504, r#"{"error":{"message":"m"}}"#, K::Unavailable, ""),
            (529, r#"{"error":{"message":"Overloaded","type":"overloaded_error","param":null,"code":null}}"#, K::Overloaded, "overloaded_error"),
        ] {
            let error = read(status, body);
            assert_eq!(error.kind(), kind, "{status} {body}");
            assert_eq!(error.code().unwrap_or_default(), code, "{body}");
            assert!(!error.message().is_empty());
        }
        assert_eq!(read(400, r#"{"error":{"message":"m","param":"messages[0].role"}}"#).field(), Some("messages[0].role"));
    }

    #[test]
    fn a_page_is_told_by_its_status() {
        for (status, kind) in [
            (200, ErrorKind::InvalidResponse),
            (302, ErrorKind::InvalidResponse),
            (403, ErrorKind::PermissionDenied),
            (413, ErrorKind::RequestTooLarge),
            (502, ErrorKind::Unavailable),
            (521, ErrorKind::Unavailable),
        ] {
            let error = read(status, "<html><title>sorry</title></html>");
            assert_eq!(error.kind(), kind, "{status}");
            assert!(!error.message().contains("html>"), "no page is quoted");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn errors_in_place_of_an_answer() {
        use ErrorKind as K;
        for (body, kind) in [
            (r#"{"error":{"message":"m","type":"server_error","code":null}}"#, K::ServerError),
            (r#"{"error":{"message":"m","type":"overloaded_error"}}"#, K::Overloaded),
            (r#"{"error":{"message":"m","code":429}}"#, K::RateLimited),
            (r#"{"error":{"message":"Provider disconnected","code":"server_error"}}"#, K::ServerError),
            (r#"{"error":{"message":"m","type":"invalid_request_error"}}"#, K::InvalidRequest),
            (r#"{"error":{"message":"m","code":"insufficient_quota"}}"#, K::QuotaExhausted),
            (r#"{"object":"error","message":"m","code":503}"#, K::Unavailable),
        ] {
            assert_eq!(decode_unannounced(body.as_bytes()).expect("an error").kind(), kind, "{body}");
        }
        assert!(decode_unannounced(b"{\"choices\":[]}").is_none());
    }

    #[test]
    fn errors_are_told_in_openais_words() {
        let tell = |error: &LlmError| -> serde_json::Value {
            serde_json::from_slice(&error_to_json(error)).expect("JSON")
        };
        let told = tell(&LlmError::invalid_field("messages[0].role", "is missing"));
        assert_eq!(told["error"]["type"], "invalid_request_error");
        assert_eq!(told["error"]["param"], "messages[0].role");
        let told = tell(&LlmError::new(ErrorKind::QuotaExhausted, "no money"));
        assert_eq!(told["error"]["type"], "insufficient_quota");
        assert_eq!(told["error"]["code"], "insufficient_quota");
        let key = LlmError::new(ErrorKind::Authentication, "wrong key sk-12").with_status(401);
        let told = tell(&key);
        assert_eq!(told["error"]["type"], "authentication_error");
        assert!(!told.to_string().contains("sk-12"));
        // One that was told in a stream has no status.
        for kind in [ErrorKind::Authentication, ErrorKind::PermissionDenied] {
            let in_stream = LlmError::new(kind, "wrong key sk-12").with_provider("openai");
            assert!(!tell(&in_stream).to_string().contains("sk-12"), "{kind:?}");
            let own = tell(&LlmError::new(kind, "unknown caller"));
            assert_eq!(own["error"]["message"], "unknown caller");
        }
    }
}
