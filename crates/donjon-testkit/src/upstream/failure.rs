//! The failures providers really answer with, status and body, each in the words of its dialect.
//!
//! Sources: <https://platform.openai.com/docs/guides/error-codes>, <https://docs.anthropic.com/en/api/errors>,
//! <https://learn.microsoft.com/azure/ai-foundry/openai/concepts/content-filter>, and bodies quoted in public issue threads.

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use super::record::Dialect;

/// A failure as a provider tells it: its status and its body in either dialect.
#[derive(Debug, Clone)]
#[must_use]
pub struct Failure {
    openai: Form,
    anthropic: Form,
}

#[derive(Debug, Clone)]
pub(super) struct Form {
    pub(super) status: StatusCode,
    pub(super) content_type: &'static str,
    pub(super) body: Bytes,
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
        }
    }

    /// The account has no money left: 429 at OpenAI, 400 at Anthropic. Waiting does not help.
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
        }
    }

    /// 401: the key is wrong.
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
        }
    }

    /// 400: the prompt breaks the provider's policy.
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

    /// 413: the body is too large. OpenAI's edge answers with a page, Anthropic's with JSON.
    pub fn too_large() -> Self {
        Self {
            openai: page(413, "Request Entity Too Large"),
            anthropic: anthropic(413, "request_too_large", "Request exceeds the maximum size"),
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
        }
    }

    /// 502: the HTML page of a proxy, whatever the dialect.
    pub fn bad_gateway() -> Self {
        let page = page(502, "Bad Gateway");
        Self {
            openai: page.clone(),
            anthropic: page,
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
        }
    }

    /// 504: a proxy's page in OpenAI's dialect, `timeout_error` in Anthropic's.
    pub fn gateway_timeout() -> Self {
        Self {
            openai: page(504, "Gateway Time-out"),
            anthropic: anthropic(504, "timeout_error", "Request timed out"),
        }
    }

    /// 529: the provider as a whole is overloaded. Anthropic's own status; compatible servers pass it on.
    pub fn overloaded() -> Self {
        Self {
            openai: openai(529, "Overloaded", "overloaded_error", None, None),
            anthropic: anthropic(529, "overloaded_error", "Overloaded"),
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
            anthropic: page,
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
        self.openai.status = status;
        self.anthropic.status = status;
        self
    }

    pub(super) fn plain(status: StatusCode, content_type: &'static str, body: Bytes) -> Self {
        let form = Form {
            status,
            content_type,
            body,
        };
        Self {
            openai: form.clone(),
            anthropic: form,
        }
    }

    pub(super) fn invalid(message: &str, param: Option<&str>) -> Self {
        Self {
            openai: openai(400, message, "invalid_request_error", param, None),
            anthropic: anthropic(400, "invalid_request_error", message),
        }
    }

    pub(super) fn unknown_url(method: &str, path: &str) -> Self {
        let message = format!("Invalid URL ({method} {path})");
        Self {
            openai: openai(404, &message, "invalid_request_error", None, None),
            anthropic: anthropic(404, "not_found_error", &message),
        }
    }

    pub(super) fn form(&self, dialect: Dialect) -> &Form {
        match dialect {
            Dialect::OpenAi => &self.openai,
            Dialect::Anthropic => &self.anthropic,
        }
    }

    /// The body as it is told in a stream.
    pub(super) fn told(&self, dialect: Dialect) -> String {
        String::from_utf8_lossy(&self.form(dialect).body).into_owned()
    }
}

fn openai(status: u16, message: &str, kind: &str, param: Option<&str>, code: Option<&str>) -> Form {
    form(
        status,
        &json!({"error": {"message": message, "type": kind, "param": param, "code": code}}),
    )
}

fn anthropic(status: u16, kind: &str, message: &str) -> Form {
    let body = json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_testkit"});
    form(status, &body)
}

fn form(status: u16, body: &Value) -> Form {
    let status = StatusCode::from_u16(status).expect("the statuses of this file are valid");
    Form {
        status,
        content_type: "application/json",
        body: body.to_string().into(),
    }
}

fn page(status: u16, title: &str) -> Form {
    let body = format!(
        "<html>\r\n<head><title>{status} {title}</title></head>\r\n<body>\r\n<center><h1>{status} {title}</h1></center>\r\n\
         <hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
    );
    Form {
        content_type: "text/html",
        body: body.into(),
        ..form(status, &Value::Null)
    }
}
