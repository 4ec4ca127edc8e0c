//! What the model must do: call a tool, follow a schema.

use donjon_core::{Chat, ErrorKind, LlmError};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

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
    if chat.tools.is_empty() {
        return Ok(None);
    }
    let one_at_once = chat.parallel_tool_calls == Some(false);
    let choice = match &chat.tool_choice {
        None if one_at_once => Choice::Word("auto".into()),
        None => return Ok(None),
        Some(raw) => serde_json::from_str(raw.get()).map_err(|_| unsupported("tool_choice"))?,
    };
    let (word, name) = match choice {
        Choice::Function { function } => ("tool", Some(function.name)),
        Choice::Word(word) => match &*word {
            "auto" => ("auto", None),
            "none" => ("none", None),
            "required" => ("any", None),
            _ => return Err(unsupported("tool_choice")),
        },
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
    #[derive(Deserialize)]
    struct ResponseFormat {
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
        return Ok(None);
    };
    let format: ResponseFormat =
        serde_json::from_str(raw.get()).map_err(|_| unsupported("response_format"))?;
    match &*format.kind {
        "json_schema" => {
            let schema = format.json_schema.and_then(|schema| schema.schema);
            let schema = schema.ok_or_else(|| {
                LlmError::invalid_field("response_format.json_schema.schema", "is missing")
            })?;
            Ok(Some(OutputConfig {
                format: Format {
                    r#type: "json_schema",
                    schema,
                },
            }))
        }
        "text" | "json_object" => Ok(None),
        _ => Err(unsupported("response_format")),
    }
}

fn unsupported(field: &str) -> LlmError {
    let message = format!("`{field}`: Anthropic has no words for this");
    LlmError::new(ErrorKind::Unsupported, message).with_field(field)
}
