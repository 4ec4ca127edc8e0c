//! Requests written in Ollama's words.
//!
//! Members that the server knows and the vocabulary has no field for are passed on under the server's
//! own names: `options` as a whole, `keep_alive`, `think`, `truncate` and `shift`. What has no meaning
//! there (`logit_bias`, `user` …) is left out, as the server's own compatible endpoint does.

use bytes::Bytes;
use donjon_core::{Chat, ErrorKind, Extra, LlmError, LlmRequest, Tool};
use serde::Serialize;
use serde_json::value::RawValue;

use super::content_out::{self, MessageOut};
use crate::{
    json,
    prompt::{NO_WORDS, ResponseFormat, Thinking, ToolChoice, unsupported},
};

/// Parameters of models that callers of compatible servers send beside the vocabulary's own.
const OPTIONS: [&str; 7] = [
    "top_k",
    "min_p",
    "typical_p",
    "presence_penalty",
    "frequency_penalty",
    "repeat_penalty",
    "num_ctx",
];

#[derive(Serialize)]
struct RequestOut<'a> {
    model: &'a str,
    messages: Vec<MessageOut<'a>>,
    // Said always: the server streams unless it is told not to.
    stream: bool,
    #[serde(skip_serializing_if = "<[Tool]>::is_empty")]
    tools: &'a [Tool],
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Extra::is_empty")]
    options: Extra,
    #[serde(skip_serializing_if = "Option::is_none")]
    think: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_alive: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncate: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shift: Option<&'a RawValue>,
}

/// Writes the body of `request`, which asks with `chat`.
pub(super) fn encode(
    request: &LlmRequest,
    chat: &Chat,
    keep_alive: Option<&str>,
) -> Result<Bytes, LlmError> {
    if chat.choices() > 1 {
        let message = "Ollama gives one choice";
        return Err(LlmError::new(ErrorKind::Unsupported, message).with_field("n"));
    }
    Ok(json::to_bytes(&RequestOut {
        model: request.model(),
        messages: content_out::conversation(&chat.messages)?,
        stream: request.is_stream(),
        tools: tools(chat)?,
        format: match ResponseFormat::of(chat)? {
            ResponseFormat::Text => None,
            ResponseFormat::Json => json::raw(&"json"),
            ResponseFormat::Schema(schema) => Some(schema),
        },
        options: options(chat),
        think: think(chat),
        keep_alive: self::keep_alive(&chat.extra, keep_alive),
        truncate: chat.extra.get("truncate"),
        shift: chat.extra.get("shift"),
    }))
}

/// What a request says of how long the model stays in memory, or else what the codec was told.
pub(super) fn keep_alive(extra: &Extra, otherwise: Option<&str>) -> Option<Box<RawValue>> {
    let said = extra.get("keep_alive").map(ToOwned::to_owned);
    said.or_else(|| {
        let time = otherwise?;
        // A number of seconds must be one; any other time is a text.
        match time.parse::<i64>() {
            Ok(seconds) => json::raw(&seconds),
            Err(_) => json::raw(&time),
        }
    })
}

/// The tools that may be called. The server cannot be made to call one.
fn tools(chat: &Chat) -> Result<&[Tool], LlmError> {
    match ToolChoice::of(chat)? {
        Some(ToolChoice::None) => return Ok(&[]),
        Some(ToolChoice::Required | ToolChoice::Function(_)) if !chat.tools.is_empty() => {
            return Err(unsupported(
                "tool_choice",
                "Ollama leaves the choice to the model",
            ));
        }
        _ => {}
    }
    for (at, tool) in chat.tools.iter().enumerate() {
        if tool.function.is_none() {
            return Err(unsupported(&format!("tools[{at}]"), NO_WORDS));
        }
    }
    Ok(&chat.tools)
}

fn options(chat: &Chat) -> Extra {
    let mut options = Extra::new();
    let mut put = |name: &str, value: Option<Box<RawValue>>| {
        if let Some(value) = value {
            options.insert(name, value);
        }
    };
    put(
        "num_predict",
        chat.output_limit().and_then(|n| json::raw(&n)),
    );
    put("temperature", chat.temperature.and_then(|t| json::raw(&t)));
    put("top_p", chat.top_p.and_then(|p| json::raw(&p)));
    put("seed", chat.seed.and_then(|seed| json::raw(&seed)));
    let stop = chat.stop.as_ref().map(|stop| stop.as_slice());
    put("stop", stop.and_then(|stop| json::raw(&stop)));
    for name in OPTIONS {
        put(name, chat.extra.get(name).map(ToOwned::to_owned));
    }
    // Whoever writes the server's own words means them.
    if let Some(own) = chat.extra.read::<Extra>("options") {
        for (name, value) in own.iter() {
            options.insert(name, value.to_owned());
        }
    }
    options
}

/// Whether, or how hard, to reason: in the server's own words, in Anthropic's, or in OpenAI's.
fn think(chat: &Chat) -> Option<Box<RawValue>> {
    if let Some(own) = chat.extra.get("think") {
        return Some(own.to_owned());
    }
    match chat.reasoning_effort.as_deref() {
        Some("none") => json::raw(&false),
        Some("minimal" | "low") => json::raw(&"low"),
        Some("medium") => json::raw(&"medium"),
        Some("high" | "xhigh" | "max") => json::raw(&"high"),
        Some(_) => json::raw(&true),
        None => json::raw(&Thinking::of(chat)?.is_on()),
    }
}
