//! What a failure looks like in each dialect.

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

/// A failure in one dialect.
#[derive(Debug, Clone)]
pub(super) struct Form {
    pub(super) status: StatusCode,
    pub(super) content_type: &'static str,
    pub(super) body: Bytes,
    /// Whether it is an event where a stream was asked for.
    pub(super) event: bool,
}

pub(super) fn openai(
    status: u16,
    message: &str,
    kind: &str,
    param: Option<&str>,
    code: Option<&str>,
) -> Form {
    form(
        status,
        &json!({"error": {"message": message, "type": kind, "param": param, "code": code}}),
    )
}

pub(super) fn anthropic(status: u16, kind: &str, message: &str) -> Form {
    let body = json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_testkit"});
    form(status, &body)
}

pub(super) fn google(status: u16, word: &str, message: &str, details: &Value) -> Form {
    let body =
        json!({"error": {"code": status, "message": message, "status": word, "details": details}});
    form(status, &body)
}

pub(super) fn ollama(status: u16, message: &str) -> Form {
    form(status, &json!({"error": message}))
}

pub(super) fn form(status: u16, body: &Value) -> Form {
    let status = StatusCode::from_u16(status).expect("the statuses of this file are valid");
    Form {
        status,
        content_type: "application/json",
        body: body.to_string().into(),
        event: false,
    }
}

pub(super) fn page(status: u16, title: &str) -> Form {
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
