//! Messages written in Ollama's words.

use std::{borrow::Cow, sync::Arc};

use donjon_core::{Content, LlmError, Message, Part, Role};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::prompt::{NO_WORDS, called, data_url, object_of, text_of, unsupported};

#[derive(Serialize)]
pub(super) struct MessageOut<'a> {
    role: &'a str,
    content: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    images: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<CallOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_name: Option<&'a str>,
}

#[derive(Serialize)]
struct CallOut<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    function: FunctionOut<'a>,
}

#[derive(Serialize)]
struct FunctionOut<'a> {
    name: &'a str,
    arguments: Box<RawValue>,
}

/// The messages of a conversation.
pub(super) fn conversation(messages: &[Arc<Message>]) -> Result<Vec<MessageOut<'_>>, LlmError> {
    let each = messages.iter().enumerate();
    each.map(|(at, one)| message(at, one, &messages[..at]))
        .collect()
}

fn message<'a>(
    at: usize,
    message: &'a Message,
    before: &'a [Arc<Message>],
) -> Result<MessageOut<'a>, LlmError> {
    let role = match &message.role {
        // The server has one word for instructions.
        Role::Developer => "system",
        role => role.as_str(),
    };
    let mut out = MessageOut {
        role,
        content: "".into(),
        thinking: message.reasoning.as_deref().filter(|text| !text.is_empty()),
        images: Vec::new(),
        tool_calls: message.tool_calls.iter().map(call).collect(),
        tool_call_id: message.tool_call_id.as_deref(),
        tool_name: called(before, message.tool_call_id.as_deref()).or(match message.role {
            Role::Tool => message.name.as_deref(),
            _ => None,
        }),
    };
    match &message.content {
        None => {}
        Some(Content::Text(text)) => out.content = (&**text).into(),
        Some(Content::Parts(parts)) => {
            for (place, part) in parts.iter().enumerate() {
                add(part, &mut out).map_err(|reason| {
                    unsupported(&format!("messages[{at}].content[{place}]"), reason)
                })?;
            }
        }
    }
    if let Some(refusal) = message.refusal.as_deref() {
        join(&mut out.content, refusal.into());
    }
    Ok(out)
}

fn call(call: &donjon_core::ToolCall) -> CallOut<'_> {
    CallOut {
        id: call.id.as_deref(),
        function: FunctionOut {
            name: call.name().unwrap_or_default(),
            arguments: object_of(call.arguments()),
        },
    }
}

fn add<'a>(part: &'a Part, out: &mut MessageOut<'a>) -> Result<(), &'static str> {
    match &*part.kind {
        "text" | "refusal" => {
            if let Some(text) = text_of(part) {
                join(&mut out.content, text);
            }
            Ok(())
        }
        "image_url" => {
            let image = part
                .image_url
                .as_ref()
                .ok_or("an image without an address")?;
            if !image.url.starts_with("data:") {
                return Err("Ollama takes images themselves, not their addresses");
            }
            out.images.push(data_url(&image.url)?.1);
            Ok(())
        }
        _ => Err(NO_WORDS),
    }
}

fn join<'a>(to: &mut Cow<'a, str>, text: Cow<'a, str>) {
    if to.is_empty() {
        *to = text;
    } else {
        to.to_mut().push_str(&text);
    }
}
