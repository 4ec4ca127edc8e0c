//! The failures providers really answer with, status and body, each in the words of its dialect.
//!
//! Sources: <https://platform.openai.com/docs/guides/error-codes>, <https://docs.anthropic.com/en/api/errors>,
//! <https://learn.microsoft.com/azure/ai-foundry/openai/concepts/content-filter>,
//! <https://ai.google.dev/gemini-api/docs/troubleshooting>, <https://docs.ollama.com/api/errors>, and bodies quoted in public
//! issue threads.

use bytes::Bytes;
use http::StatusCode;
use serde_json::json;

use super::form::{Form, anthropic, form, google, ollama, openai, page};
use super::record::Dialect;

/// What Ollama says when its queue is full.
const BUSY: &str = "server busy, please try again.  maximum pending requests exceeded";

/// A failure as a provider tells it: its status and its body in each dialect.
#[derive(Debug, Clone)]
#[must_use]
pub struct Failure {
    openai: Form,
    anthropic: Form,
    gemini: Form,
    ollama: Form,
}

impl Failure {
    /// 429: too many tokens or requests a minute. Hints are added by the script's header methods; there are none by default.
    pub fn rate_limited() -> Self {
        Self {
            openai: openai(
                429,
                "Rate limit reached for gpt-4o in organization org-testkit on tokens per min (TPM): Limit 30000, Used 29937, \
                 Requested 385. Please try again in 644ms. Visit https://platform.openai.com/account/rate-limits to learn more.",
                "tokens",
                None,
                Some("rate_limit_exceeded"),
            ),
            anthropic: anthropic(
                429,
                "rate_limit_error",
                "This request would exceed your organization's rate limit of 30,000 input tokens per minute. For details, \
                 refer to: https://docs.claude.com/en/api/rate-limits. You can see the response headers for current usage.",
            ),
            gemini: google(
                429,
                "RESOURCE_EXHAUSTED",
                "Resource has been exhausted (e.g. check quota).",
                &json!([]),
            ),
            ollama: ollama(429, "too many concurrent requests"),
        }
    }

    /// The account has no money left: 429 at OpenAI, 400 at Anthropic; at Gemini the quota of the day is used up. Waiting
    /// does not help, though Ollama's words for it do not tell.
    pub fn insufficient_quota() -> Self {
        Self {
            openai: openai(
                429,
                "You exceeded your current quota, please check your plan and billing details. For more information on this \
                 error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors.",
                "insufficient_quota",
                None,
                Some("insufficient_quota"),
            ),
            anthropic: anthropic(
                400,
                "invalid_request_error",
                "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or \
                 purchase credits.",
            ),
            gemini: google(
                429,
                "RESOURCE_EXHAUSTED",
                "You exceeded your current quota, please check your plan and billing details.",
                &json!([{"@type": "type.googleapis.com/google.rpc.QuotaFailure",
                    "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}]),
            ),
            ollama: ollama(
                429,
                "you've reached your weekly usage limit, please upgrade to continue",
            ),
        }
    }

    /// 401, at Gemini 400: the key is wrong.
    pub fn invalid_api_key() -> Self {
        Self {
            openai: openai(
                401,
                "Incorrect API key provided: sk-test****. You can find your API key at \
                 https://platform.openai.com/account/api-keys.",
                "invalid_request_error",
                None,
                Some("invalid_api_key"),
            ),
            anthropic: anthropic(401, "authentication_error", "invalid x-api-key"),
            gemini: google(
                400,
                "INVALID_ARGUMENT",
                "API key not valid. Please pass a valid API key.",
                &json!([{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID",
                    "domain": "googleapis.com"}]),
            ),
            ollama: ollama(401, "unauthorized"),
        }
    }

    /// 403: the key may not do this.
    pub fn permission_denied() -> Self {
        Self {
            openai: openai(
                403,
                "You are not allowed to sample from this model",
                "invalid_request_error",
                None,
                Some("permission_denied"),
            ),
            anthropic: anthropic(
                403,
                "permission_error",
                "Your API key does not have permission to use the specified resource.",
            ),
            gemini: google(
                403,
                "PERMISSION_DENIED",
                "The caller does not have permission",
                &json!([]),
            ),
            ollama: ollama(403, "forbidden"),
        }
    }

    /// 404: no such model.
    pub fn model_not_found() -> Self {
        Self {
            openai: openai(
                404,
                "The model `gpt-nonesuch` does not exist or you do not have access to it.",
                "invalid_request_error",
                None,
                Some("model_not_found"),
            ),
            anthropic: anthropic(404, "not_found_error", "model: claude-nonesuch"),
            gemini: google(
                404,
                "NOT_FOUND",
                "models/gemini-nonesuch is not found for API version v1beta",
                &json!([]),
            ),
            ollama: ollama(404, "model 'llama-nonesuch' not found"),
        }
    }

    /// 400: the prompt does not fit this model.
    pub fn context_length_exceeded() -> Self {
        Self {
            openai: openai(
                400,
                "This model's maximum context length is 8192 tokens. However, your messages resulted in 8227 tokens. Please \
                 reduce the length of the messages.",
                "invalid_request_error",
                Some("messages"),
                Some("context_length_exceeded"),
            ),
            anthropic: anthropic(
                400,
                "invalid_request_error",
                "prompt is too long: 207791 tokens > 200000 maximum",
            ),
            gemini: google(
                400,
                "INVALID_ARGUMENT",
                "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
                &json!([]),
            ),
            ollama: ollama(400, "the input length exceeds the context length"),
        }
    }

    /// 400: the prompt breaks the provider's policy; at Gemini 200 with the reason in place of candidates, an event where a
    /// stream was asked for. Ollama has no such thing: a plain 400.
    pub fn content_policy() -> Self {
        Self {
            openai: openai(
                400,
                "Your request was rejected as a result of our safety system.",
                "invalid_request_error",
                None,
                Some("content_policy_violation"),
            ),
            anthropic: anthropic(
                400,
                "invalid_request_error",
                "Output blocked by content filtering policy",
            ),
            gemini: Form {
                event: true,
                ..form(
                    200,
                    &json!({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"},
                    "usageMetadata": {"promptTokenCount": 12, "totalTokenCount": 12}}),
                )
            },
            ollama: ollama(400, "the prompt was blocked"),
        }
    }

    /// 400: the prompt was filtered by Azure (its own body for OpenAI's dialect).
    pub fn content_policy_azure() -> Self {
        let verdict =
            |filtered: bool, severity: &str| json!({"filtered": filtered, "severity": severity});
        let body = json!({"error": {
            "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. \
                        Please modify your prompt and retry. To learn more about our content filtering policies please read \
                        our documentation: https://go.microsoft.com/fwlink/?linkid=2198766",
            "type": null,
            "param": "prompt",
            "code": "content_filter",
            "status": 400,
            "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {
                "hate": verdict(false, "safe"), "jailbreak": {"filtered": false, "detected": false},
                "self_harm": verdict(false, "safe"), "sexual": verdict(false, "safe"), "violence": verdict(true, "medium"),
            }},
        }});
        Self {
            openai: form(400, &body),
            ..Self::content_policy()
        }
    }

    /// 400: the request is wrong in some other way.
    pub fn invalid_request() -> Self {
        Self::invalid(
            "Unsupported value: 'temperature' does not support 7 with this model.",
            Some("temperature"),
        )
    }

    /// 413: the body is too large. Anthropic's edge answers with JSON, those of the others with a page.
    pub fn too_large() -> Self {
        Self {
            openai: page(413, "Request Entity Too Large"),
            anthropic: anthropic(413, "request_too_large", "Request exceeds the maximum size"),
            gemini: page(413, "Request Entity Too Large"),
            ollama: page(413, "Request Entity Too Large"),
        }
    }

    /// 500.
    pub fn server_error() -> Self {
        Self {
            openai: openai(
                500,
                "The server had an error while processing your request. Sorry about that!",
                "server_error",
                None,
                None,
            ),
            anthropic: anthropic(500, "api_error", "Internal server error"),
            gemini: google(
                500,
                "INTERNAL",
                "An internal error has occurred.",
                &json!([]),
            ),
            ollama: ollama(500, "llama runner process has terminated: exit status 2"),
        }
    }

    /// 502: the HTML page of a proxy, whatever the dialect.
    pub fn bad_gateway() -> Self {
        let page = page(502, "Bad Gateway");
        Self {
            openai: page.clone(),
            anthropic: page.clone(),
            gemini: page.clone(),
            ollama: page,
        }
    }

    /// 503.
    pub fn service_unavailable() -> Self {
        Self {
            openai: openai(
                503,
                "The engine is currently overloaded, please try again later",
                "server_error",
                None,
                Some("service_unavailable"),
            ),
            anthropic: anthropic(503, "api_error", "Service Unavailable"),
            gemini: google(
                503,
                "UNAVAILABLE",
                "The service is currently unavailable.",
                &json!([]),
            ),
            ollama: ollama(503, BUSY),
        }
    }

    /// 504: a proxy's page in OpenAI's dialect and in Ollama's, `timeout_error` in Anthropic's, `DEADLINE_EXCEEDED` in
    /// Gemini's.
    pub fn gateway_timeout() -> Self {
        Self {
            openai: page(504, "Gateway Time-out"),
            anthropic: anthropic(504, "timeout_error", "Request timed out"),
            gemini: google(
                504,
                "DEADLINE_EXCEEDED",
                "Deadline expired before operation could complete.",
                &json!([]),
            ),
            ollama: page(504, "Gateway Time-out"),
        }
    }

    /// 529: the provider as a whole is overloaded. Anthropic's own status; compatible servers pass it on. 503 at Gemini and
    /// Ollama.
    pub fn overloaded() -> Self {
        Self {
            openai: openai(529, "Overloaded", "overloaded_error", None, None),
            anthropic: anthropic(529, "overloaded_error", "Overloaded"),
            gemini: google(
                503,
                "UNAVAILABLE",
                "The model is overloaded. Please try again later.",
                &json!([]),
            ),
            ollama: ollama(503, BUSY),
        }
    }

    /// 200 with the body of an error, as some compatible servers and proxies answer.
    pub fn error_in_200() -> Self {
        Self::server_error().with_status(200)
    }

    /// 200 with an HTML page: a login or maintenance page of something in between.
    pub fn page_in_200() -> Self {
        let page = page(200, "Down for maintenance");
        Self {
            openai: page.clone(),
            anthropic: page.clone(),
            gemini: page.clone(),
            ollama: page,
        }
    }

    /// The same body under another status.
    ///
    /// # Panics
    ///
    /// On a status outside 100–999.
    #[track_caller]
    pub fn with_status(mut self, status: u16) -> Self {
        let Ok(status) = StatusCode::from_u16(status) else {
            panic!("{status} is no HTTP status")
        };
        for form in [
            &mut self.openai,
            &mut self.anthropic,
            &mut self.gemini,
            &mut self.ollama,
        ] {
            form.status = status;
        }
        self
    }

    pub(super) fn plain(status: StatusCode, content_type: &'static str, body: Bytes) -> Self {
        let form = Form {
            status,
            content_type,
            body,
            event: false,
        };
        Self {
            openai: form.clone(),
            anthropic: form.clone(),
            gemini: form.clone(),
            ollama: form,
        }
    }

    pub(super) fn invalid(message: &str, param: Option<&str>) -> Self {
        Self {
            openai: openai(400, message, "invalid_request_error", param, None),
            anthropic: anthropic(400, "invalid_request_error", message),
            gemini: google(400, "INVALID_ARGUMENT", message, &json!([])),
            ollama: ollama(400, message),
        }
    }

    pub(super) fn unknown_url(method: &str, path: &str) -> Self {
        let message = format!("Invalid URL ({method} {path})");
        Self {
            openai: openai(404, &message, "invalid_request_error", None, None),
            anthropic: anthropic(404, "not_found_error", &message),
            gemini: google(404, "NOT_FOUND", &message, &json!([])),
            ollama: ollama(404, &message),
        }
    }

    pub(super) fn form(&self, dialect: Dialect) -> &Form {
        match dialect {
            Dialect::OpenAi => &self.openai,
            Dialect::Anthropic => &self.anthropic,
            Dialect::Gemini => &self.gemini,
            Dialect::Ollama => &self.ollama,
        }
    }

    /// The body as it is told in a stream.
    pub(super) fn told(&self, dialect: Dialect) -> String {
        String::from_utf8_lossy(&self.form(dialect).body).into_owned()
    }
}
