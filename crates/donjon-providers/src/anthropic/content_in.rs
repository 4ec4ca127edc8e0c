//! Anthropic's blocks read as messages.

use std::fmt;

use donjon_core::{Content, Extra, Message, Part};
use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::answer::Said;
use crate::json;

/// A text, or a list of blocks.
pub(super) enum ContentIn<'a> {
    Text(Box<str>),
    Blocks(Vec<&'a RawValue>),
}

impl<'de: 'a, 'a> Deserialize<'de> for ContentIn<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrBlocks;
        impl<'de> Visitor<'de> for TextOrBlocks {
            type Value = ContentIn<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of content blocks")
            }
            fn visit_str<E>(self, text: &str) -> Result<ContentIn<'de>, E> {
                Ok(ContentIn::Text(text.into()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<ContentIn<'de>, A::Error> {
                let mut blocks = Vec::new();
                while let Some(block) = seq.next_element()? {
                    blocks.push(block);
                }
                Ok(ContentIn::Blocks(blocks))
            }
        }
        deserializer.deserialize_any(TextOrBlocks)
    }
}

type Read<T> = Result<T, serde_json::Error>;

/// The instructions as one text.
pub(super) fn system(content: &ContentIn<'_>) -> Read<String> {
    match content {
        ContentIn::Text(text) => Ok(text.to_string()),
        ContentIn::Blocks(blocks) => {
            let mut texts = Vec::with_capacity(blocks.len());
            for raw in blocks {
                let block: BlockIn<'_> = serde_json::from_str(raw.get())?;
                texts.extend(block.text);
            }
            Ok(texts.join("\n\n"))
        }
    }
}

/// Adds what the user says: the results of tools first, each a message of its own, then the rest.
/// Images in results stand with the rest: a tool message holds none in the vocabulary.
pub(super) fn user(content: &ContentIn<'_>, messages: &mut Vec<Message>) -> Read<()> {
    let blocks = match content {
        ContentIn::Text(text) => {
            messages.push(Message::user(Content::Text(text.clone())));
            return Ok(());
        }
        ContentIn::Blocks(blocks) => blocks,
    };
    let mut parts = Vec::new();
    let mut results = false;
    for raw in blocks {
        let block: BlockIn<'_> = serde_json::from_str(raw.get())?;
        if block.kind == "tool_result" {
            results = true;
            messages.push(tool_result(block, &mut parts)?);
        } else {
            parts.push(part(raw, block)?);
        }
    }
    if !parts.is_empty() || !results {
        messages.push(Message::user(joined(parts)));
    }
    Ok(())
}

/// Adds what the assistant said. True if some of its reasoning has no signature.
pub(super) fn assistant(content: &ContentIn<'_>, messages: &mut Vec<Message>) -> Read<bool> {
    let mut said = Said::default();
    match content {
        ContentIn::Text(text) => said.add_text(text),
        ContentIn::Blocks(blocks) => {
            for raw in blocks {
                said.add(raw)?;
            }
        }
    }
    let unsigned = said.unsigned;
    messages.push(said.into_message());
    Ok(unsigned)
}

#[derive(Deserialize)]
struct BlockIn<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    text: Option<Box<str>>,
    // Of one shape in images and documents alone.
    #[serde(default, borrow)]
    source: Option<&'a RawValue>,
    #[serde(default, borrow)]
    title: Option<&'a RawValue>,
    #[serde(default)]
    tool_use_id: Option<Box<str>>,
    #[serde(default, borrow)]
    content: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct SourceIn {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    data: Option<String>,
    #[serde(default)]
    url: Option<Box<str>>,
}

impl SourceIn {
    /// The address of what it holds: its own, or a `data:` URL.
    fn url(&self) -> Option<Box<str>> {
        match (&*self.kind, &self.media_type, &self.data) {
            ("url", _, _) => self.url.clone(),
            ("base64", Some(media_type), Some(data)) => {
                Some(format!("data:{media_type};base64,{data}").into())
            }
            _ => None,
        }
    }
}

fn tool_result(block: BlockIn<'_>, images: &mut Vec<Part>) -> Read<Message> {
    let id = block.tool_use_id.unwrap_or_default();
    let content: Option<ContentIn<'_>> = block
        .content
        .map(|raw| serde_json::from_str(raw.get()))
        .transpose()?;
    let mut texts = Vec::new();
    match content {
        None => {}
        Some(ContentIn::Text(text)) => texts.push(Part::text(text)),
        Some(ContentIn::Blocks(blocks)) => {
            for raw in blocks {
                let block: BlockIn<'_> = serde_json::from_str(raw.get())?;
                match part(raw, block)? {
                    text if &*text.kind == "text" => texts.push(text),
                    other => images.push(other),
                }
            }
        }
    }
    Ok(Message::tool(id, joined(texts)))
}

fn part(raw: &RawValue, block: BlockIn<'_>) -> Read<Part> {
    let source = || -> Option<SourceIn> { serde_json::from_str(block.source?.get()).ok() };
    match &*block.kind {
        "text" => return Ok(Part::text(block.text.unwrap_or_default())),
        "image" => {
            if let Some(url) = source().and_then(|source| source.url()) {
                return Ok(Part::image_url(url));
            }
        }
        "document" => {
            let base64 = source().filter(|source| source.kind == "base64");
            let title: Option<String> = block
                .title
                .and_then(|title| serde_json::from_str(title.get()).ok());
            if let Some(data) = base64.and_then(|source| source.url())
                && let Some(part) = file(&data, title.as_deref())
            {
                return Ok(part);
            }
        }
        _ => {}
    }
    // What has no counterpart keeps its members, for a target that knows them.
    serde_json::from_str(raw.get())
}

/// OpenAI's part for a file.
fn file(data: &str, name: Option<&str>) -> Option<Part> {
    let mut file = Extra::new();
    file.insert("filename", json::raw(&name.unwrap_or("document"))?);
    file.insert("file_data", json::raw(&data)?);
    let mut extra = Extra::new();
    extra.insert("file", json::raw(&file)?);
    Some(Part::other("file", extra))
}

/// A single text as such, and else the parts.
fn joined(mut parts: Vec<Part>) -> Content {
    match &mut parts[..] {
        [] => "".into(),
        [only] if &*only.kind == "text" => Content::Text(only.text.take().unwrap_or_default()),
        _ => Content::Parts(parts),
    }
}
