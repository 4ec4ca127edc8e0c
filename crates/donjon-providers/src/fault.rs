//! What error bodies have in common, whoever wrote them.

use donjon_core::{ErrorKind, LlmError};
use serde_json::Value;

/// The most that is kept of a provider's sentence, in bytes.
const MAX_MESSAGE: usize = 2048;

/// An error as a provider told it.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) message: String,
    /// The kind of error by the provider's words (`type`).
    pub(crate) kind: Option<String>,
    /// The provider's code, a number as its digits.
    pub(crate) code: Option<String>,
    /// The code behind the code (Azure's `innererror`).
    pub(crate) inner_code: Option<String>,
    pub(crate) param: Option<String>,
}

impl Told {
    /// Reads the error in `body`, whichever of the common forms it has: `{"error": {…}}`,
    /// `{"error": "…"}`, the members at the top (`"object": "error"`), an `error` in a choice,
    /// `{"detail": …}`, or a list of one of these. `None` if it holds none.
    pub(crate) fn read(body: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(body).ok()?;
        Self::of(&value)
    }

    fn of(value: &Value) -> Option<Self> {
        if let Value::Array(list) = value {
            return Self::of(list.first()?);
        }
        let top = value.as_object()?;
        match top.get("error") {
            Some(Value::String(message)) => Some(Self {
                message: message.clone(),
                kind: text(top.get("type")),
                code: text(top.get("code")),
                ..Self::default()
            }),
            Some(error @ Value::Object(_)) => Some(Self::members(error)),
            _ if top.get("object").and_then(Value::as_str) == Some("error")
                || top.get("type").and_then(Value::as_str) == Some("error")
                || (top.contains_key("message") && !top.contains_key("choices")) =>
            {
                Some(Self::members(value))
            }
            _ => Self::in_choice(top.get("choices")).or_else(|| {
                top.get("detail").map(|detail| Self {
                    message: text(Some(detail)).unwrap_or_else(|| detail.to_string()),
                    ..Self::default()
                })
            }),
        }
    }

    /// Reads the error that the first failed choice tells (OpenRouter's place for it).
    fn in_choice(choices: Option<&Value>) -> Option<Self> {
        let errors = choices?.as_array()?.iter();
        errors
            .filter_map(|choice| match choice.get("error")? {
                Value::String(message) => Some(Self {
                    message: message.clone(),
                    ..Self::default()
                }),
                error @ Value::Object(_) => Some(Self::members(error)),
                _ => None,
            })
            .next()
    }

    fn members(error: &Value) -> Self {
        let inner = error.get("innererror");
        Self {
            message: text(error.get("message")).unwrap_or_default(),
            kind: text(error.get("type")),
            code: text(error.get("code")),
            inner_code: inner.and_then(|inner| text(inner.get("code"))),
            param: text(error.get("param")),
        }
    }

    /// The words of it, most particular first.
    pub(crate) fn words(&self) -> impl Iterator<Item = &str> {
        [&self.inner_code, &self.code, &self.kind]
            .into_iter()
            .filter_map(|word| word.as_deref())
    }

    /// The status that some servers tell in place of a code.
    pub(crate) fn status(&self) -> Option<u16> {
        let status = self.code.as_deref()?.parse().ok()?;
        (400..600).contains(&status).then_some(status)
    }

    /// The error of `kind` that this is.
    pub(crate) fn into_error(self, kind: ErrorKind) -> LlmError {
        let mut error = LlmError::new(kind, shortened(self.message));
        if let Some(code) = self.code.or(self.kind) {
            error = error.with_code(code);
        }
        if let Some(param) = self.param {
            error = error.with_field(param);
        }
        error
    }
}

/// The kind of error that a status says, where no word of the provider says more.
pub(crate) fn kind_of_status(status: u16) -> ErrorKind {
    match status {
        401 => ErrorKind::Authentication,
        402 => ErrorKind::QuotaExhausted,
        403 => ErrorKind::PermissionDenied,
        404 => ErrorKind::ModelNotFound,
        408 | 409 => ErrorKind::Unavailable,
        413 => ErrorKind::RequestTooLarge,
        429 => ErrorKind::RateLimited,
        // Groq's word for a full flexible tier, and Anthropic's for being overloaded.
        498 | 529 => ErrorKind::Overloaded,
        400..=499 => ErrorKind::InvalidRequest,
        // 520 to 530 are Cloudflare's, of an origin that it does not reach.
        502..=504 | 520..=530 => ErrorKind::Unavailable,
        500..=599 => ErrorKind::ServerError,
        // A redirect, or a success that is none.
        _ => ErrorKind::InvalidResponse,
    }
}

/// The error of an answer that holds no error that could be read.
pub(crate) fn unreadable(status: u16, content_type: Option<&str>) -> LlmError {
    let kind = kind_of_status(status);
    let form = content_type.unwrap_or("of no type");
    LlmError::new(
        kind,
        format!("status {status} with a body that says nothing ({form})"),
    )
}

fn text(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn shortened(mut message: String) -> String {
    if message.len() > MAX_MESSAGE {
        let mut end = MAX_MESSAGE;
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_common_form_is_read() {
        for (body, message, code) in [
            (
                r#"{"error":{"message":"m","type":"t","code":"c","param":"p"}}"#,
                "m",
                Some("c"),
            ),
            (
                r#"{"error":"model 'x' not found"}"#,
                "model 'x' not found",
                None,
            ),
            (r#"{"error":{"message":"m","code":429}}"#, "m", Some("429")),
            (
                r#"[{"error":{"message":"m","code":429,"status":"RESOURCE_EXHAUSTED"}}]"#,
                "m",
                Some("429"),
            ),
            (
                r#"{"object":"error","message":"m","type":"BadRequestError","code":400}"#,
                "m",
                Some("400"),
            ),
            (
                r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#,
                "m",
                None,
            ),
            (r#"{"message":"m","request_id":"r"}"#, "m", None),
            (r#"{"detail":"m"}"#, "m", None),
            (
                r#"{"detail":[{"loc":["body"]}]}"#,
                r#"[{"loc":["body"]}]"#,
                None,
            ),
        ] {
            let told = Told::read(body.as_bytes()).expect(body);
            assert_eq!(
                (told.message.as_str(), told.code.as_deref()),
                (message, code),
                "{body}"
            );
        }
        for none in [
            "",
            "<html>",
            "[]",
            "3",
            r#"{"choices":[]}"#,
            r#"{"error":null}"#,
        ] {
            assert!(Told::read(none.as_bytes()).is_none(), "{none}");
        }
    }

    #[test]
    fn long_sentences_are_cut_between_characters() {
        let told = Told {
            message: "é".repeat(MAX_MESSAGE),
            ..Told::default()
        };
        let error = told.into_error(ErrorKind::ServerError);
        assert!(error.message().len() <= MAX_MESSAGE + '…'.len_utf8());
    }

    proptest! {
        #[test]
        fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..200), status in 0_u16..1000) {
            if let Some(told) = Told::read(&body) {
                let _ = (told.status(), told.words().count(), told.into_error(kind_of_status(status)));
            }
            let _ = unreadable(status, None);
        }
    }
}
