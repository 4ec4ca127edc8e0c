//! Content written as Anthropic's blocks.

use std::borrow::Cow;

use donjon_core::{Content, Extra, LlmError, Message, Part};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    openai::THINKING_BLOCKS,
    prompt::{File, data_url, object_of, text_of, unsupported},
};

/// A block of content.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Block<'a> {
    Known {
        #[serde(flatten)]
        kind: Kind<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<&'a RawValue>,
    },
    /// As it came.
    Raw(Box<RawValue>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Kind<'a> {
    Text {
        text: Cow<'a, str>,
    },
    Image {
        source: Source<'a>,
    },
    Document {
        source: Source<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        title: Option<String>,
    },
    ToolUse {
        id: &'a str,
        name: &'a str,
        input: Box<RawValue>,
    },
    ToolResult {
        tool_use_id: &'a str,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        content: Vec<Block<'a>>,
    },
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Source<'a> {
    Base64 {
        media_type: Cow<'a, str>,
        data: Cow<'a, str>,
    },
    Url {
        url: &'a str,
    },
}

fn known<'a>(kind: Kind<'a>, extra: &'a Extra) -> Block<'a> {
    Block::Known {
        kind,
        cache_control: extra.get("cache_control"),
    }
}

/// Adds what `message`, the one at `at`, says. Empty texts are left out: the API refuses them.
pub(super) fn content<'a>(
    at: usize,
    message: &'a Message,
    out: &mut Vec<Block<'a>>,
) -> Result<(), LlmError> {
    match &message.content {
        None => {}
        Some(Content::Text(text)) if text.is_empty() => {}
        Some(Content::Text(text)) => {
            out.push(known(
                Kind::Text {
                    text: (&**text).into(),
                },
                &message.extra,
            ));
        }
        Some(Content::Parts(parts)) => {
            for (place, part) in parts.iter().enumerate() {
                let block = block(part).map_err(|reason| {
                    unsupported(&format!("messages[{at}].content[{place}]"), reason)
                })?;
                out.extend(block);
            }
        }
    }
    Ok(())
}

/// Adds what the assistant said: signed reasoning first, as the API wants, then text, then calls.
pub(super) fn assistant<'a>(
    at: usize,
    message: &'a Message,
    out: &mut Vec<Block<'a>>,
) -> Result<(), LlmError> {
    let thinking: Option<Vec<Box<RawValue>>> = message.extra.read(THINKING_BLOCKS);
    out.extend(thinking.unwrap_or_default().into_iter().map(Block::Raw));
    content(at, message, out)?;
    if let Some(refusal) = message.refusal.as_deref().filter(|text| !text.is_empty()) {
        out.push(known(
            Kind::Text {
                text: refusal.into(),
            },
            &message.extra,
        ));
    }
    for call in &message.tool_calls {
        let kind = Kind::ToolUse {
            id: call.id.as_deref().unwrap_or_default(),
            name: call.name().unwrap_or_default(),
            input: object_of(call.arguments()),
        };
        out.push(known(kind, &call.extra));
    }
    Ok(())
}

/// The result of a tool call.
pub(super) fn tool_result<'a>(at: usize, message: &'a Message) -> Result<Block<'a>, LlmError> {
    let Some(tool_use_id) = message.tool_call_id.as_deref() else {
        let field = format!("messages[{at}].tool_call_id");
        return Err(LlmError::invalid_field(&field, "is missing"));
    };
    let mut blocks = Vec::new();
    content(at, message, &mut blocks)?;
    let kind = Kind::ToolResult {
        tool_use_id,
        content: blocks,
    };
    Ok(known(kind, &EMPTY))
}

static EMPTY: Extra = Extra::new();

fn block(part: &Part) -> Result<Option<Block<'_>>, &'static str> {
    let kind = match &*part.kind {
        "text" | "refusal" => match text_of(part) {
            Some(text) => Kind::Text { text },
            None => return Ok(None),
        },
        "image_url" => {
            let image = part
                .image_url
                .as_ref()
                .ok_or("an image without an address")?;
            Kind::Image {
                source: image_source(&image.url)?,
            }
        }
        "file" => document(part)?,
        // Parts that Anthropic knows and OpenAI does not: they came from there.
        "document" | "search_result" | "container_upload" => {
            return Ok(Some(Block::Raw(raw_part(part).ok_or("cannot be written")?)));
        }
        "input_audio" => return Err("Anthropic takes no audio"),
        _ => return Err("Anthropic has no words for this part"),
    };
    Ok(Some(known(kind, &part.extra)))
}

fn raw_part(part: &Part) -> Option<Box<RawValue>> {
    crate::json::raw(part)
}

fn image_source(url: &str) -> Result<Source<'_>, &'static str> {
    if !url.starts_with("data:") {
        return Ok(Source::Url { url });
    }
    let (media_type, data) = data_url(url)?;
    Ok(Source::Base64 {
        media_type: media_type.into(),
        data: data.into(),
    })
}

/// OpenAI's `file` part as a document.
fn document(part: &Part) -> Result<Kind<'static>, &'static str> {
    let file = File::of(part)?;
    let data = file
        .file_data
        .ok_or("Anthropic does not know the files of other providers")?;
    let (media_type, data) = data_url(&data)?;
    let source = Source::Base64 {
        media_type: media_type.to_owned().into(),
        data: data.to_owned().into(),
    };
    Ok(Kind::Document {
        source,
        title: file.filename,
    })
}
