//! Requests read from Anthropic's words (<https://docs.anthropic.com/en/api/messages>).

use std::sync::Arc;

use bytes::Bytes;
use donjon_core::{
    Chat, Delivery, Dialect, ErrorKind, Extra, Function, LlmError, LlmRequest, Message, Prompt,
    Stop, Tool, Wire,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{answer::raw_text, content_in, content_in::ContentIn};
use crate::json;

/// Reads the body of a `/v1/messages` request, and keeps it as it came.
///
/// Blocks and tools that only Anthropic has are kept as they are, for a target of that dialect. What
/// the vocabulary has no place for (`cache_control`, say) survives only where the request is passed
/// on as it came.
///
/// # Errors
///
/// [`ErrorKind::InvalidRequest`], which says what is wrong and names the field.
pub fn request_from_json(json: impl Into<Bytes>) -> Result<LlmRequest, LlmError> {
    let json = json.into();
    let body: Body<'_> = serde_json::from_slice(&json).map_err(|error| locate(&json, error))?;
    let mut messages = Vec::with_capacity(body.messages.len() + 1);
    if let Some(system) = &body.system {
        let text = content_in::system(system).map_err(|e| invalid("system", &e))?;
        messages.push(Message::system(text));
    }
    let mut unsigned = false;
    for (at, message) in body.messages.iter().enumerate() {
        let read = match message.role {
            RoleIn::User => content_in::user(&message.content, &mut messages),
            RoleIn::Assistant => {
                content_in::assistant(&message.content, &mut messages).map(|some| unsigned |= some)
            }
        };
        read.map_err(|error| invalid(&format!("messages[{at}].content"), &error))?;
    }
    let mut chat = Chat::new(messages);
    chat.max_tokens = body.max_tokens;
    chat.temperature = body.temperature;
    chat.top_p = body.top_p;
    chat.stop = body
        .stop_sequences
        .filter(|stop| !stop.is_empty())
        .map(Stop::Many);
    let tools = body.tools.unwrap_or_default();
    chat.tools = tools
        .iter()
        .enumerate()
        .map(|(at, raw)| tool(raw).map_err(|e| invalid(&format!("tools[{at}]"), &e)))
        .collect::<Result<_, _>>()?;
    if let Some(choice) = &body.tool_choice {
        chat.tool_choice = tool_choice(choice)?;
        if choice.disable_parallel_tool_use == Some(true) {
            chat.parallel_tool_calls = Some(false);
        }
    }
    let format = body
        .output_config
        .and_then(|config| config.format)
        .or(body.output_format);
    chat.response_format = format.and_then(response_format);
    if let Some(user) = body.metadata.and_then(|metadata| metadata.user_id) {
        chat.extra
            .insert("user", json::raw(&user).unwrap_or_default());
    }
    for (name, value) in [
        ("top_k", body.top_k),
        ("thinking", body.thinking),
        ("container", body.container),
        ("mcp_servers", body.mcp_servers),
        ("context_management", body.context_management),
    ] {
        if let Some(value) = value {
            chat.extra.insert(name, value.to_owned());
        }
    }
    let (model, stream) = (body.model, body.stream == Some(true));
    // Reasoning of another provider, which this client was shown without a signature, would be
    // refused if it were passed back as it came.
    if !unsigned {
        chat.wire = Some(Wire::new(Dialect::Anthropic, json));
    }
    let mut request = LlmRequest::new(model, Prompt::Chat(chat));
    if stream {
        // Anthropic's clients are always told the usage.
        request.delivery = Delivery::Stream { usage: true };
    }
    Ok(request)
}

#[derive(Deserialize)]
struct Body<'a> {
    model: Arc<str>,
    #[serde(borrow)]
    messages: Vec<MessageIn<'a>>,
    #[serde(default)]
    max_tokens: Option<u64>,
    #[serde(default, borrow)]
    system: Option<ContentIn<'a>>,
    #[serde(default)]
    stop_sequences: Option<Vec<Box<str>>>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    temperature: Option<f64>,
    #[serde(default)]
    top_p: Option<f64>,
    #[serde(default, borrow)]
    tools: Option<Vec<&'a RawValue>>,
    #[serde(default)]
    tool_choice: Option<ToolChoiceIn>,
    #[serde(default)]
    metadata: Option<MetadataIn>,
    #[serde(default, borrow)]
    output_config: Option<OutputConfigIn<'a>>,
    #[serde(default, borrow)]
    output_format: Option<&'a RawValue>,
    #[serde(default, borrow)]
    top_k: Option<&'a RawValue>,
    #[serde(default, borrow)]
    thinking: Option<&'a RawValue>,
    #[serde(default, borrow)]
    container: Option<&'a RawValue>,
    #[serde(default, borrow)]
    mcp_servers: Option<&'a RawValue>,
    #[serde(default, borrow)]
    context_management: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct MessageIn<'a> {
    role: RoleIn,
    #[serde(borrow)]
    content: ContentIn<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum RoleIn {
    User,
    Assistant,
}

#[derive(Deserialize)]
struct MetadataIn {
    #[serde(default)]
    user_id: Option<String>,
}

#[derive(Deserialize)]
struct OutputConfigIn<'a> {
    #[serde(default, borrow)]
    format: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ToolChoiceIn {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    disable_parallel_tool_use: Option<bool>,
}

fn tool_choice(choice: &ToolChoiceIn) -> Result<Option<Box<RawValue>>, LlmError> {
    #[derive(Serialize)]
    struct Out<'a> {
        r#type: &'static str,
        function: Named<'a>,
    }
    #[derive(Serialize)]
    struct Named<'a> {
        name: &'a str,
    }
    Ok(match &*choice.kind {
        "auto" => json::raw(&"auto"),
        "any" => json::raw(&"required"),
        "none" => json::raw(&"none"),
        "tool" => {
            let name = choice.name.as_deref();
            let name = name.ok_or_else(|| invalid("tool_choice.name", &"is missing"))?;
            json::raw(&Out {
                r#type: "function",
                function: Named { name },
            })
        }
        _ => {
            return Err(invalid(
                "tool_choice.type",
                &"is none of auto, any, tool, none",
            ));
        }
    })
}

fn tool(raw: &RawValue) -> Result<Tool, serde_json::Error> {
    #[derive(Deserialize)]
    struct Custom {
        #[serde(rename = "type", default)]
        kind: Option<String>,
        name: Box<str>,
        #[serde(default)]
        description: Option<Box<str>>,
        #[serde(default)]
        input_schema: Option<Box<RawValue>>,
        #[serde(default)]
        strict: Option<bool>,
    }
    let custom: Custom = serde_json::from_str(raw.get())?;
    if custom.kind.as_deref().is_some_and(|kind| kind != "custom") {
        // One of Anthropic's own, all of whose members stay.
        return serde_json::from_str(raw.get());
    }
    let mut function = Function::new(custom.name);
    function.description = custom.description;
    function.parameters = custom.input_schema;
    function.strict = custom.strict;
    Ok(Tool::function(function))
}

/// OpenAI's form of a JSON schema, to which a name belongs.
fn response_format(format: &RawValue) -> Option<Box<RawValue>> {
    let format: Extra = serde_json::from_str(format.get()).ok()?;
    let schema = format.get("schema")?.to_owned();
    let mut json_schema = Extra::new();
    json_schema.insert("name", json::raw(&"answer")?);
    json_schema.insert("strict", json::raw(&true)?);
    json_schema.insert("schema", schema);
    let mut out = Extra::new();
    out.insert("type", raw_text(r#""json_schema""#));
    out.insert("json_schema", json::raw(&json_schema)?);
    json::raw(&out)
}

fn invalid(field: &str, reason: &impl ToString) -> LlmError {
    LlmError::invalid_field(field, &reason.to_string())
}

/// Reads `json` once more, to say which field `error` is about: keeping the path would cost every
/// request that is right.
fn locate(json: &[u8], error: serde_json::Error) -> LlmError {
    if !error.is_data() {
        let message = format!("the body is not valid JSON: {error}");
        return LlmError::new(ErrorKind::InvalidRequest, message);
    }
    let mut reader = serde_json::Deserializer::from_slice(json);
    let located = serde_path_to_error::deserialize::<_, Body<'_>>(&mut reader).err();
    let path = located.map(|located| located.path().to_string());
    let reason = error.to_string();
    let missing = reason
        .strip_prefix("missing field `")
        .and_then(|rest| rest.split_once('`'))
        .map(|(name, _)| name);
    let field = match (path.as_deref(), missing) {
        (None | Some("."), None) => return LlmError::new(ErrorKind::InvalidRequest, reason),
        (None | Some("."), Some(name)) => name.to_owned(),
        (Some(path), Some(name)) => format!("{path}.{name}"),
        (Some(path), None) => path.to_owned(),
    };
    invalid(&field, &reason)
}
