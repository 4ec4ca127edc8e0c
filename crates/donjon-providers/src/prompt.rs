//! What a prompt of the vocabulary says in OpenAI's nested words, read for codecs of other dialects.

use donjon_core::{Chat, ErrorKind, LlmError, Message, Part};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::json;

/// Whether and which tool must be called (`tool_choice`).
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ToolChoice {
    Auto,
    None,
    Required,
    Function(String),
}

impl ToolChoice {
    /// Reads that of `chat`, if it says anything.
    pub(crate) fn of(chat: &Chat) -> Result<Option<Self>, LlmError> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Choice {
            Word(String),
            Function { function: Named },
        }
        #[derive(Deserialize)]
        struct Named {
            name: String,
        }
        let Some(raw) = &chat.tool_choice else {
            return Ok(None);
        };
        match serde_json::from_str(raw.get()) {
            Ok(Choice::Function { function }) => Ok(Some(Self::Function(function.name))),
            Ok(Choice::Word(word)) => match &*word {
                "auto" => Ok(Some(Self::Auto)),
                "none" => Ok(Some(Self::None)),
                "required" => Ok(Some(Self::Required)),
                _ => Err(unsupported("tool_choice", NO_WORDS)),
            },
            Err(_) => Err(unsupported("tool_choice", NO_WORDS)),
        }
    }
}

/// The form of the answer (`response_format`).
#[derive(Debug)]
pub(crate) enum ResponseFormat {
    Text,
    /// JSON of any shape.
    Json,
    /// JSON that follows this schema.
    Schema(Box<RawValue>),
}

impl ResponseFormat {
    /// Reads that of `chat`; a text if it says nothing.
    pub(crate) fn of(chat: &Chat) -> Result<Self, LlmError> {
        #[derive(Deserialize)]
        struct Format {
            #[serde(rename = "type")]
            kind: String,
            #[serde(default)]
            json_schema: Option<JsonSchema>,
        }
        #[derive(Deserialize)]
        struct JsonSchema {
            #[serde(default)]
            schema: Option<Box<RawValue>>,
        }
        let Some(raw) = &chat.response_format else {
            return Ok(Self::Text);
        };
        let format: Format = serde_json::from_str(raw.get())
            .map_err(|_| unsupported("response_format", NO_WORDS))?;
        match &*format.kind {
            "text" => Ok(Self::Text),
            "json_object" => Ok(Self::Json),
            "json_schema" => {
                let schema = format.json_schema.and_then(|schema| schema.schema);
                let schema = schema.ok_or_else(|| {
                    LlmError::invalid_field("response_format.json_schema.schema", "is missing")
                })?;
                Ok(Self::Schema(schema))
            }
            _ => Err(unsupported("response_format", NO_WORDS)),
        }
    }
}

/// How much to reason, as Anthropic's callers say it (`thinking`): whether, and with how many tokens.
#[derive(Deserialize)]
pub(crate) struct Thinking {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    pub(crate) budget_tokens: Option<u64>,
}

impl Thinking {
    pub(crate) fn of(chat: &Chat) -> Option<Self> {
        chat.extra.read("thinking")
    }

    pub(crate) fn is_on(&self) -> bool {
        self.kind != "disabled"
    }
}

/// The members of a `file` part.
#[derive(Default, Deserialize)]
pub(crate) struct File {
    #[serde(default)]
    pub(crate) file_data: Option<String>,
    #[serde(default)]
    pub(crate) file_id: Option<String>,
    #[serde(default)]
    pub(crate) filename: Option<String>,
}

impl File {
    pub(crate) fn of(part: &Part) -> Result<Self, &'static str> {
        part.extra.read("file").ok_or("a file without its members")
    }
}

/// The text of a `text` or a `refusal` part.
pub(crate) fn text_of(part: &Part) -> Option<std::borrow::Cow<'_, str>> {
    let refusal = || part.extra.read::<String>("refusal").map(Into::into);
    let text = part.text.as_deref().map(Into::into).or_else(refusal);
    text.filter(|text: &std::borrow::Cow<'_, str>| !text.is_empty())
}

/// The media type and the base64 data of a data URL
/// (<https://www.rfc-editor.org/rfc/rfc2397>).
pub(crate) fn data_url(url: &str) -> Result<(&str, &str), &'static str> {
    let rest = url.strip_prefix("data:").ok_or("is no data URL")?;
    let (head, data) = rest.split_once(',').ok_or("is no data URL")?;
    let media = head.strip_suffix(";base64").ok_or("is not in base64")?;
    // Parameters (`;charset=…`) have no place there.
    Ok((media.split(';').next().unwrap_or(media), data))
}

/// The arguments of a call as an object. A model wrote them: what is no object is wrapped in one
/// rather than lost.
pub(crate) fn object_of(arguments: &str) -> Box<RawValue> {
    #[derive(Serialize)]
    struct Wrapped<'a> {
        arguments: &'a str,
    }
    let arguments = arguments.trim();
    if arguments.starts_with('{')
        && let Ok(object) = RawValue::from_string(arguments.to_owned())
    {
        return object;
    }
    let object = if arguments.is_empty() {
        json::raw(&serde_json::Map::new())
    } else {
        json::raw(&Wrapped { arguments })
    };
    object.unwrap_or_default()
}

/// The name of the function that the call `id`, made in one of `messages`, called.
pub(crate) fn called<'a>(
    messages: &'a [std::sync::Arc<Message>],
    id: Option<&str>,
) -> Option<&'a str> {
    let id = id?;
    let calls = messages.iter().rev().flat_map(|m| &m.tool_calls);
    let mut calls = calls.filter(|call| call.id.as_deref() == Some(id));
    calls.find_map(|call| call.name())
}

/// A name for a call that its provider gave none.
pub(crate) fn call_id() -> Box<str> {
    format!("call_{:024x}", fastrand::u128(..) >> 32).into()
}

/// What cannot be said in a provider's words, so that another target may be asked.
pub(crate) fn unsupported(field: &str, reason: &str) -> LlmError {
    let message = format!("`{field}`: {reason}");
    LlmError::new(ErrorKind::Unsupported, message).with_field(field)
}

pub(crate) const NO_WORDS: &str = "the provider has no words for this";

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use donjon_core::ToolCall;

    use super::*;

    fn chat(member: &str, json: &str) -> Chat {
        let text = format!(r#"{{"messages":[],"{member}":{json}}}"#);
        serde_json::from_str(&text).expect("a prompt")
    }

    #[test]
    fn tool_choices() {
        let read = |json| ToolChoice::of(&chat("tool_choice", json));
        assert_eq!(read("null").expect("read"), None);
        assert_eq!(read(r#""auto""#).expect("read"), Some(ToolChoice::Auto));
        assert_eq!(read(r#""none""#).expect("read"), Some(ToolChoice::None));
        assert_eq!(
            read(r#""required""#).expect("read"),
            Some(ToolChoice::Required)
        );
        assert_eq!(
            read(r#"{"type":"function","function":{"name":"f"}}"#).expect("read"),
            Some(ToolChoice::Function("f".into()))
        );
        for odd in [r#""other""#, "3", r#"{"type":"allowed_tools"}"#] {
            let error = read(odd).expect_err(odd);
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert_eq!(error.field(), Some("tool_choice"));
        }
    }

    #[test]
    fn response_formats() {
        let read = |json| ResponseFormat::of(&chat("response_format", json));
        assert!(matches!(read("null"), Ok(ResponseFormat::Text)));
        assert!(matches!(
            read(r#"{"type":"text"}"#),
            Ok(ResponseFormat::Text)
        ));
        assert!(matches!(
            read(r#"{"type":"json_object"}"#),
            Ok(ResponseFormat::Json)
        ));
        let schema = r#"{"type":"json_schema","json_schema":{"schema":{"a":1}}}"#;
        assert!(
            matches!(read(schema), Ok(ResponseFormat::Schema(raw)) if raw.get() == r#"{"a":1}"#)
        );
        let missing = read(r#"{"type":"json_schema"}"#).expect_err("no schema");
        assert_eq!(missing.kind(), ErrorKind::InvalidRequest);
        let odd = read(r#"{"type":"grammar"}"#).expect_err("unknown");
        assert_eq!(odd.kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn data_urls_and_arguments() {
        assert_eq!(
            data_url("data:image/png;x=y;base64,QUI="),
            Ok(("image/png", "QUI="))
        );
        for bad in ["http://a", "data:image/png,x", "data:image/png;base64"] {
            data_url(bad).expect_err(bad);
        }
        assert_eq!(object_of(r#" {"a":1} "#).get(), r#"{"a":1}"#);
        assert_eq!(object_of("").get(), "{}");
        assert_eq!(object_of("{oops").get(), r#"{"arguments":"{oops"}"#);
    }

    #[test]
    fn a_result_finds_its_call() {
        let mut first = Message::assistant("");
        first.tool_calls = vec![ToolCall::function("c1", "f", "{}")];
        let messages = [Arc::new(first), Arc::new(Message::tool("c1", "ok"))];
        assert_eq!(called(&messages, Some("c1")), Some("f"));
        assert_eq!(called(&messages, Some("c2")), None);
        assert_eq!(called(&messages, None), None);
    }
}
