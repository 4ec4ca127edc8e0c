//! Requests written in Gemini's words.
//!
//! The API refuses members that it does not know, so that only those with a meaning here are sent. Its
//! own (`safetySettings`, `cachedContent`, `labels`, and any of `generationConfig`) are passed on under
//! its names, at the top of a request or in `extra_body.google`, where Google's own endpoint for OpenAI's
//! clients reads them.

use bytes::Bytes;
use donjon_core::{Chat, ErrorKind, Extra, LlmError, LlmRequest};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    content_out::{self, ContentOut},
    words,
};
use crate::{
    json,
    prompt::{NO_WORDS, ResponseFormat, Thinking, ToolChoice, unsupported},
};

/// Gemini's own tools, called by these types.
const OWN_TOOLS: [&str; 5] = [
    "google_search",
    "google_maps",
    "url_context",
    "code_execution",
    "file_search",
];

/// Parameters under names that callers of compatible servers use, and Gemini's names for them.
const PARAMETERS: [(&str, &str); 3] = [
    ("top_k", "topK"),
    ("presence_penalty", "presencePenalty"),
    ("frequency_penalty", "frequencyPenalty"),
];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RequestOut<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    system_instruction: Option<ContentOut<'a>>,
    contents: Vec<ContentOut<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Extra>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_config: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Extra::is_empty")]
    generation_config: Extra,
    #[serde(flatten)]
    own: Extra,
}

/// Writes the body of `request`.
pub(super) fn encode(request: &LlmRequest) -> Result<Bytes, LlmError> {
    let Some(chat) = request.as_chat() else {
        let message = "Gemini is asked for chats alone here";
        return Err(LlmError::new(ErrorKind::Unsupported, message));
    };
    let generation = words::generation(request.model());
    let strict = generation.is_some_and(|generation| generation >= 3);
    let (system_instruction, contents) = content_out::conversation(&chat.messages, strict)?;
    Ok(json::to_bytes(&RequestOut {
        system_instruction,
        contents,
        tools: tools(chat)?,
        tool_config: tool_config(chat)?,
        generation_config: generation_config(chat, strict)?,
        own: own(chat),
    }))
}

fn tools(chat: &Chat) -> Result<Vec<Extra>, LlmError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Declaration<'a> {
        name: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        description: Option<&'a str>,
        // Not `parameters`, whose schemas are a dialect that refuses what JSON Schema has beside it.
        #[serde(skip_serializing_if = "Option::is_none")]
        parameters_json_schema: Option<&'a RawValue>,
    }
    let mut declarations = Vec::new();
    let mut tools = Vec::new();
    let mut push = |name: &str, value: Option<Box<RawValue>>| {
        let mut tool = Extra::new();
        tool.insert(name, value.unwrap_or_default());
        tools.push(tool);
    };
    for (at, tool) in chat.tools.iter().enumerate() {
        match &tool.function {
            Some(function) => declarations.push(Declaration {
                name: &function.name,
                description: function.description.as_deref(),
                parameters_json_schema: function.parameters.as_deref(),
            }),
            None if OWN_TOOLS.contains(&&*tool.kind) => push(&tool.kind, json::raw(&tool.extra)),
            None => return Err(unsupported(&format!("tools[{at}]"), NO_WORDS)),
        }
    }
    if !declarations.is_empty() {
        push("functionDeclarations", json::raw(&declarations));
    }
    Ok(tools)
}

fn tool_config(chat: &Chat) -> Result<Option<serde_json::Value>, LlmError> {
    let functions = chat.tools.iter().any(|tool| tool.function.is_some());
    let config = match ToolChoice::of(chat)? {
        Some(choice) if functions => match choice {
            ToolChoice::Auto => serde_json::json!({"mode": "AUTO"}),
            ToolChoice::None => serde_json::json!({"mode": "NONE"}),
            ToolChoice::Required => serde_json::json!({"mode": "ANY"}),
            ToolChoice::Function(name) => {
                serde_json::json!({"mode": "ANY", "allowedFunctionNames": [name]})
            }
        },
        _ => return Ok(None),
    };
    Ok(Some(serde_json::json!({"functionCallingConfig": config})))
}

/// The parameters. `levels` says whether the model reasons by levels; those before had a number of
/// tokens.
fn generation_config(chat: &Chat, levels: bool) -> Result<Extra, LlmError> {
    let mut config = Extra::new();
    let mut put = |name: &str, value: Option<Box<RawValue>>| {
        if let Some(value) = value {
            config.insert(name, value);
        }
    };
    put(
        "maxOutputTokens",
        chat.output_limit().and_then(|n| json::raw(&n)),
    );
    put("temperature", chat.temperature.and_then(|t| json::raw(&t)));
    put("topP", chat.top_p.and_then(|p| json::raw(&p)));
    let stop = chat.stop.as_ref().map(|stop| stop.as_slice());
    put("stopSequences", stop.and_then(|stop| json::raw(&stop)));
    if let Some(seed) = chat.seed {
        // The API has 32 bits for it; any of them are as good as the others.
        let seed = seed.rem_euclid(i64::from(i32::MAX));
        put("seed", json::raw(&seed));
    }
    if chat.choices() > 1 {
        put("candidateCount", json::raw(&chat.choices()));
    }
    for (name, own) in PARAMETERS {
        put(own, chat.extra.get(name).map(ToOwned::to_owned));
    }
    match ResponseFormat::of(chat)? {
        ResponseFormat::Text => {}
        ResponseFormat::Json => put("responseMimeType", json::raw(&"application/json")),
        ResponseFormat::Schema(schema) => {
            put("responseMimeType", json::raw(&"application/json"));
            // As for tools: this one takes JSON Schema as it is.
            put("responseJsonSchema", Some(schema));
        }
    }
    put(
        "thinkingConfig",
        thinking(chat, levels).and_then(|t| json::raw(&t)),
    );
    for given in given(chat) {
        for name in ["generationConfig", "generation_config"] {
            for (name, value) in given.read::<Extra>(name).unwrap_or_default().iter() {
                put(name, Some(value.to_owned()));
            }
        }
        for name in ["thinkingConfig", "thinking_config"] {
            put("thinkingConfig", given.get(name).map(ToOwned::to_owned));
        }
    }
    Ok(config)
}

/// How much to reason: in OpenAI's words, with the figures of Google's own endpoint for OpenAI's clients
/// (<https://ai.google.dev/gemini-api/docs/openai#thinking>), or in Anthropic's.
fn thinking(chat: &Chat, levels: bool) -> Option<serde_json::Value> {
    let Some(effort) = chat.reasoning_effort.as_deref() else {
        let thinking = Thinking::of(chat)?;
        return Some(match (thinking.is_on(), thinking.budget_tokens) {
            (true, Some(budget)) => {
                serde_json::json!({"thinkingBudget": budget, "includeThoughts": true})
            }
            (true, None) => serde_json::json!({"includeThoughts": true}),
            (false, _) if levels => return None,
            (false, _) => serde_json::json!({"thinkingBudget": 0}),
        });
    };
    Some(if levels {
        let level = match effort {
            // These cannot be told not to.
            "none" | "minimal" | "low" => "low",
            "medium" => "medium",
            _ => "high",
        };
        serde_json::json!({"thinkingLevel": level})
    } else {
        let budget = match effort {
            "none" => 0,
            "minimal" | "low" => 1024,
            "medium" => 8192,
            _ => 24_576,
        };
        serde_json::json!({"thinkingBudget": budget})
    })
}

/// Where a request may say something in Gemini's own words.
fn given(chat: &Chat) -> [Extra; 2] {
    let body: Option<Extra> = chat.extra.read("extra_body");
    let google = body.and_then(|body| body.read("google"));
    [chat.extra.clone(), google.unwrap_or_default()]
}

/// Members that the API knows and the vocabulary has no field for.
fn own(chat: &Chat) -> Extra {
    let mut own = Extra::new();
    for given in given(chat) {
        for (name, snake) in [
            ("safetySettings", "safety_settings"),
            ("cachedContent", "cached_content"),
            ("labels", "labels"),
        ] {
            if let Some(value) = given.get(name).or_else(|| given.get(snake)) {
                own.insert(name, value.to_owned());
            }
        }
    }
    own
}
