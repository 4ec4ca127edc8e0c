//! Requests written in Anthropic's words.
//!
//! The API refuses members that it does not know, so that only those with a meaning here are sent.
//! What has none (`n` of one, `seed`, `logprobs`, `reasoning_effort` …) is left out, as Anthropic's
//! own endpoint for OpenAI's clients does (<https://docs.anthropic.com/en/api/openai-sdk>).

use std::borrow::Cow;

use bytes::Bytes;
use donjon_core::{Chat, Dialect, ErrorKind, LlmError, LlmRequest, Message, Role, Tool};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    choice_out::{self, ToolChoiceOut},
    content_out::{self, Block},
    pass::rewrite,
};
use crate::json;

/// Members of a request that Anthropic knows and the vocabulary has no field for.
const OWN_MEMBERS: [&str; 7] = [
    "top_k",
    "thinking",
    "container",
    "mcp_servers",
    "context_management",
    "inference_geo",
    "cache_control",
];

/// Writes the body of `request`, with `max_tokens` as the limit of output where it sets none.
pub(super) fn encode(request: &LlmRequest, max_tokens: u64) -> Result<Bytes, LlmError> {
    let Some(chat) = request.as_chat() else {
        let message = "Anthropic has no such operation";
        return Err(LlmError::new(ErrorKind::Unsupported, message));
    };
    let wire = chat.wire.as_ref();
    if let Some(json) = wire.and_then(|wire| wire.in_dialect(Dialect::Anthropic)) {
        return rewrite(json, request.model(), request.is_stream(), max_tokens);
    }
    if chat.choices() > 1 {
        let message = "Anthropic gives one choice";
        return Err(LlmError::new(ErrorKind::Unsupported, message).with_field("n"));
    }
    let (system, messages) = conversation(&chat.messages)?;
    Ok(json::to_bytes(&RequestOut {
        model: request.model(),
        max_tokens: chat.output_limit().unwrap_or(max_tokens),
        stream: request.is_stream(),
        system,
        messages,
        tools: chat.tools.iter().map(tool).collect::<Result<_, _>>()?,
        tool_choice: choice_out::tool_choice(chat)?,
        temperature: chat
            .temperature
            .map(|temperature| temperature.clamp(0.0, 1.0)),
        top_p: chat.top_p,
        stop_sequences: stop_sequences(chat),
        metadata: chat.extra.read("user").map(|user_id| Metadata { user_id }),
        output_config: choice_out::output_config(chat)?,
        own: OwnMembers(chat),
    }))
}

#[derive(Serialize)]
struct RequestOut<'a> {
    model: &'a str,
    max_tokens: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stream: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    system: Vec<Block<'a>>,
    messages: Vec<MessageOut<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<ToolOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<ToolChoiceOut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stop_sequences: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Metadata>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_config: Option<choice_out::OutputConfig>,
    #[serde(flatten)]
    own: OwnMembers<'a>,
}

#[derive(Serialize)]
struct Metadata {
    user_id: String,
}

#[derive(Serialize)]
pub(super) struct MessageOut<'a> {
    role: &'static str,
    content: Vec<Block<'a>>,
}

struct OwnMembers<'a>(&'a Chat);

impl Serialize for OwnMembers<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(None)?;
        for name in OWN_MEMBERS {
            if let Some(value) = self.0.extra.get(name) {
                map.serialize_entry(name, value)?;
            }
        }
        map.end()
    }
}

/// The instructions, which stand apart here, and the turns. Neighbours of one role become one turn,
/// so that the results of several calls stand together, before anything else, as the API wants.
fn conversation(
    messages: &[std::sync::Arc<Message>],
) -> Result<(Vec<Block<'_>>, Vec<MessageOut<'_>>), LlmError> {
    let mut system = Vec::new();
    let mut turns: Vec<MessageOut<'_>> = Vec::with_capacity(messages.len());
    for (at, message) in messages.iter().enumerate() {
        let role = match &message.role {
            Role::System | Role::Developer => {
                content_out::content(at, message, &mut system)?;
                continue;
            }
            Role::Assistant => "assistant",
            Role::User | Role::Tool => "user",
            other => {
                let reason = format!("`{}` has no counterpart at Anthropic", other.as_str());
                return Err(LlmError::new(ErrorKind::Unsupported, reason)
                    .with_field(format!("messages[{at}].role")));
            }
        };
        let same = turns.last().is_some_and(|turn| turn.role == role);
        if !same {
            turns.push(MessageOut {
                role,
                content: Vec::new(),
            });
        }
        let Some(turn) = turns.last_mut() else {
            continue;
        };
        match &message.role {
            Role::Tool => turn.content.push(content_out::tool_result(at, message)?),
            Role::Assistant => content_out::assistant(at, message, &mut turn.content)?,
            _ => content_out::content(at, message, &mut turn.content)?,
        }
    }
    // The API refuses a turn that says nothing.
    turns.retain(|turn| !turn.content.is_empty());
    Ok((system, turns))
}

fn stop_sequences(chat: &Chat) -> Vec<&str> {
    let stop = chat.stop.as_ref().map(|stop| stop.as_slice());
    // The API refuses those of white space alone.
    let sequences = stop.unwrap_or_default().iter().map(|sequence| &**sequence);
    sequences
        .filter(|sequence| !sequence.trim().is_empty())
        .collect()
}

#[derive(Serialize)]
#[serde(untagged)]
enum ToolOut<'a> {
    Function {
        name: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        description: Option<&'a str>,
        input_schema: Cow<'a, RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        strict: Option<bool>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<&'a RawValue>,
    },
    /// One of Anthropic's own, with its members as they came.
    Own {
        r#type: &'a str,
        #[serde(flatten)]
        members: &'a donjon_core::Extra,
    },
}

fn tool(tool: &Tool) -> Result<ToolOut<'_>, LlmError> {
    if let Some(function) = &tool.function {
        let no_arguments = || {
            Cow::Owned(super::answer::raw_text(
                r#"{"type":"object","properties":{}}"#,
            ))
        };
        return Ok(ToolOut::Function {
            name: &function.name,
            description: function.description.as_deref(),
            input_schema: function
                .parameters
                .as_deref()
                .map_or_else(no_arguments, Cow::Borrowed),
            strict: function.strict.filter(|strict| *strict),
            cache_control: tool.extra.get("cache_control"),
        });
    }
    // Anthropic's own tools are called by name and version (`web_search_20250305`).
    if tool.extra.get("name").is_some() {
        return Ok(ToolOut::Own {
            r#type: &tool.kind,
            members: &tool.extra,
        });
    }
    let message = format!("Anthropic has no tools of type `{}`", tool.kind);
    Err(LlmError::new(ErrorKind::Unsupported, message).with_field("tools"))
}
