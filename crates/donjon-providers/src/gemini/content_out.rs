//! Contents written in Gemini's words.

use std::{borrow::Cow, sync::Arc};

use donjon_core::{Content, ErrorKind, LlmError, Message, Part, Role};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::words;
use crate::{
    json,
    prompt::{File, NO_WORDS, called, data_url, object_of, text_of, unsupported},
};

#[derive(Serialize)]
pub(super) struct ContentOut<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) role: Option<&'static str>,
    pub(super) parts: Vec<PartOut<'a>>,
}

#[derive(Serialize)]
pub(super) struct PartOut<'a> {
    #[serde(flatten)]
    kind: Kind<'a>,
    #[serde(rename = "thoughtSignature", skip_serializing_if = "Option::is_none")]
    signature: Option<Cow<'static, str>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Kind<'a> {
    Text(Cow<'a, str>),
    InlineData(Blob<'a>),
    FileData(FileOut<'a>),
    FunctionCall(CallOut<'a>),
    FunctionResponse(ResultOut<'a>),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Blob<'a> {
    mime_type: Cow<'a, str>,
    data: Cow<'a, str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FileOut<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    mime_type: Option<&'static str>,
    file_uri: Cow<'a, str>,
}

#[derive(Serialize)]
struct CallOut<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    name: &'a str,
    args: Box<RawValue>,
}

#[derive(Serialize)]
struct ResultOut<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    name: &'a str,
    response: Box<RawValue>,
}

impl<'a> From<Kind<'a>> for PartOut<'a> {
    fn from(kind: Kind<'a>) -> Self {
        Self {
            kind,
            signature: None,
        }
    }
}

/// Stands for a signature that there is none of, as of a call that another model made: models from the
/// third generation on refuse calls without one
/// (<https://ai.google.dev/gemini-api/docs/thought-signatures>).
const NO_SIGNATURE: &str = "skip_thought_signature_validator";

/// The instructions, which stand apart here, and the turns. Neighbours of one role become one turn, so
/// that the results of several calls stand together. `strict` says whether calls must be signed.
pub(super) fn conversation(
    messages: &[Arc<Message>],
    strict: bool,
) -> Result<(Option<ContentOut<'_>>, Vec<ContentOut<'_>>), LlmError> {
    let mut system = Vec::new();
    let mut turns: Vec<ContentOut<'_>> = Vec::with_capacity(messages.len());
    for (at, message) in messages.iter().enumerate() {
        let role = match &message.role {
            Role::System | Role::Developer => {
                content(at, message, &mut system)?;
                continue;
            }
            Role::Assistant => "model",
            Role::User | Role::Tool => "user",
            other => {
                let reason = format!("`{}` has no counterpart at Gemini", other.as_str());
                return Err(LlmError::new(ErrorKind::Unsupported, reason)
                    .with_field(format!("messages[{at}].role")));
            }
        };
        let mut parts = match turns.pop_if(|turn| turn.role == Some(role)) {
            Some(turn) => turn.parts,
            None => Vec::new(),
        };
        match &message.role {
            Role::Tool => parts.push(result(at, message, &messages[..at])?),
            Role::Assistant => {
                content(at, message, &mut parts)?;
                calls(message, strict, &mut parts);
            }
            _ => content(at, message, &mut parts)?,
        }
        // The API refuses a turn that says nothing.
        if !parts.is_empty() {
            turns.push(ContentOut {
                role: Some(role),
                parts,
            });
        }
    }
    let system = (!system.is_empty()).then_some(ContentOut {
        role: None,
        parts: system,
    });
    Ok((system, turns))
}

fn content<'a>(
    at: usize,
    message: &'a Message,
    out: &mut Vec<PartOut<'a>>,
) -> Result<(), LlmError> {
    match &message.content {
        None => {}
        Some(Content::Text(text)) if text.is_empty() => {}
        Some(Content::Text(text)) => out.push(Kind::Text((&**text).into()).into()),
        Some(Content::Parts(parts)) => {
            for (place, part) in parts.iter().enumerate() {
                let part = self::part(part).map_err(|reason| {
                    unsupported(&format!("messages[{at}].content[{place}]"), reason)
                })?;
                out.extend(part.map(PartOut::from));
            }
        }
    }
    if let Some(refusal) = message.refusal.as_deref().filter(|text| !text.is_empty()) {
        out.push(Kind::Text(refusal.into()).into());
    }
    Ok(())
}

/// The calls of an assistant's message. Of parallel calls only the first is signed.
fn calls<'a>(message: &'a Message, strict: bool, out: &mut Vec<PartOut<'a>>) {
    for (at, call) in message.tool_calls.iter().enumerate() {
        let own = words::signature(&call.extra).map(Cow::Owned);
        let stand_in = (strict && at == 0).then_some(Cow::Borrowed(NO_SIGNATURE));
        out.push(PartOut {
            kind: Kind::FunctionCall(CallOut {
                id: call.id.as_deref(),
                name: call.name().unwrap_or_default(),
                args: object_of(call.arguments()),
            }),
            signature: own.or(stand_in),
        });
    }
}

/// The result of a call. The API knows it by the function's name, which the call before it has.
fn result<'a>(
    at: usize,
    message: &'a Message,
    before: &'a [Arc<Message>],
) -> Result<PartOut<'a>, LlmError> {
    #[derive(Serialize)]
    struct Output<'a> {
        output: &'a str,
    }
    let id = message.tool_call_id.as_deref();
    let Some(name) = called(before, id).or(message.name.as_deref()) else {
        let field = format!("messages[{at}].tool_call_id");
        return Err(LlmError::invalid_field(&field, "names no call before it"));
    };
    let text = message.text();
    let object = text.trim_start().starts_with('{');
    let object = object.then(|| RawValue::from_string(text.clone().into_owned()));
    let response = match object {
        Some(Ok(object)) => object,
        _ => json::raw(&Output { output: &text }).unwrap_or_default(),
    };
    Ok(Kind::FunctionResponse(ResultOut { id, name, response }).into())
}

fn part(part: &Part) -> Result<Option<Kind<'_>>, &'static str> {
    Ok(Some(match &*part.kind {
        "text" | "refusal" => return Ok(text_of(part).map(Kind::Text)),
        "image_url" => {
            let image = part
                .image_url
                .as_ref()
                .ok_or("an image without an address")?;
            located((&*image.url).into())?
        }
        "input_audio" => {
            #[derive(Deserialize)]
            struct Audio {
                data: String,
                format: String,
            }
            let audio: Audio = part
                .extra
                .read("input_audio")
                .ok_or("audio without its members")?;
            Kind::InlineData(Blob {
                mime_type: format!("audio/{}", audio.format).into(),
                data: audio.data.into(),
            })
        }
        "file" => {
            let file = File::of(part)?;
            match (file.file_data, file.file_id) {
                (Some(data), _) => {
                    data_url(&data)?;
                    located(data.into())?
                }
                (None, Some(id)) if id.contains("://") => located(id.into())?,
                _ => return Err("Gemini does not know the files of other providers"),
            }
        }
        _ => return Err(NO_WORDS),
    }))
}

/// What is in a data URL, or at an address.
fn located(url: Cow<'_, str>) -> Result<Kind<'_>, &'static str> {
    if !url.starts_with("data:") {
        return Ok(Kind::FileData(FileOut {
            mime_type: mime_type(&url),
            file_uri: url,
        }));
    }
    let blob = match url {
        Cow::Borrowed(url) => {
            let (media, data) = data_url(url)?;
            Blob {
                mime_type: media.into(),
                data: data.into(),
            }
        }
        Cow::Owned(url) => {
            let (media, data) = data_url(&url)?;
            Blob {
                mime_type: media.to_owned().into(),
                data: data.to_owned().into(),
            }
        }
    };
    Ok(Kind::InlineData(blob))
}

/// What kind of file an address means, by its ending.
fn mime_type(url: &str) -> Option<&'static str> {
    let path = url.split(['?', '#']).next()?;
    let (_, ending) = path.rsplit_once('.')?;
    Some(match &*ending.to_ascii_lowercase() {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "heic" => "image/heic",
        "gif" => "image/gif",
        "pdf" => "application/pdf",
        "mp3" => "audio/mp3",
        "wav" => "audio/wav",
        "mp4" => "video/mp4",
        _ => return None,
    })
}
