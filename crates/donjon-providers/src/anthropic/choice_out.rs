//! What the model must do: call a tool, follow a schema.

use donjon_core::{Chat, LlmError};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::prompt::{ResponseFormat, ToolChoice};

#[derive(Serialize)]
pub(super) struct ToolChoiceOut {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    disable_parallel_tool_use: bool,
}

/// Reads OpenAI's `tool_choice` and `parallel_tool_calls`, which Anthropic has as one.
pub(super) fn tool_choice(chat: &Chat) -> Result<Option<ToolChoiceOut>, LlmError> {
    if chat.tools.is_empty() {
        return Ok(None);
    }
    let one_at_once = chat.parallel_tool_calls == Some(false);
    let (word, name) = match ToolChoice::of(chat)? {
        None if one_at_once => ("auto", None),
        None => return Ok(None),
        Some(ToolChoice::Auto) => ("auto", None),
        Some(ToolChoice::None) => ("none", None),
        Some(ToolChoice::Required) => ("any", None),
        Some(ToolChoice::Function(name)) => ("tool", Some(name)),
    };
    Ok(Some(ToolChoiceOut {
        r#type: word,
        name,
        disable_parallel_tool_use: one_at_once && word != "none",
    }))
}

#[derive(Serialize)]
pub(super) struct OutputConfig {
    format: Format,
}

#[derive(Serialize)]
struct Format {
    r#type: &'static str,
    schema: Box<RawValue>,
}

/// Reads OpenAI's `response_format`. A JSON schema becomes Anthropic's structured output
/// (<https://platform.claude.com/docs/en/build-with-claude/structured-outputs>); JSON without a
/// schema has no counterpart and is left to the prompt, which OpenAI wants to ask for it anyway.
pub(super) fn output_config(chat: &Chat) -> Result<Option<OutputConfig>, LlmError> {
    Ok(match ResponseFormat::of(chat)? {
        ResponseFormat::Text | ResponseFormat::Json => None,
        ResponseFormat::Schema(schema) => Some(OutputConfig {
            format: Format {
                r#type: "json_schema",
                schema,
            },
        }),
    })
}
