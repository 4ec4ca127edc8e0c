//! The words of OpenAI chat completions
//! (<https://platform.openai.com/docs/api-reference/chat>).

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use donjon_core::{Chat, Chunk, Dialect, Embed, EmbedInput, LlmError, LlmRequest, Prompt, Usage};
use donjon_providers::openai::{embed_request_from_json, without_usage};

use super::Context;
use crate::sse;

pub(super) fn read(json: Bytes) -> Result<LlmRequest, LlmError> {
    // The path of an error costs time on every request, so it is looked for only after one.
    LlmRequest::from_openai_chat(json.clone())
        .map_err(|error| super::path::locate::<Chat>(&json, error))
}

pub(super) fn read_embed(json: &[u8]) -> Result<LlmRequest, LlmError> {
    let request =
        embed_request_from_json(json).map_err(|e| super::path::locate::<Embed>(json, e))?;
    // Some servers answer nothing with nothing, and others with an error of their own making.
    let empty = match request.prompt() {
        Prompt::Embed(embed) => match &embed.input {
            EmbedInput::Texts(texts) => texts.is_empty(),
            EmbedInput::Tokens(tokens) => tokens.is_empty(),
            _ => false,
        },
        _ => false,
    };
    if empty {
        return Err(LlmError::invalid_field("input", "is empty"));
    }
    Ok(request)
}

pub(super) const ID_PREFIX: &str = "chatcmpl-";

/// Writes the events of one stream.
#[derive(Debug)]
pub(crate) struct Events {
    context: Context,
    /// Whether the caller asked to be told the usage.
    usage: bool,
    /// What every event of the stream repeats, as the first said it.
    id: Option<Arc<str>>,
    created: Option<u64>,
    /// Told with a chunk of another dialect, and owed to the caller in a chunk of its own.
    owed: Option<Usage>,
}

impl Events {
    pub(super) fn new(context: Context, usage: bool) -> Self {
        Self {
            context,
            usage,
            id: None,
            created: None,
            owed: None,
        }
    }

    pub(super) fn chunk(&mut self, mut chunk: Chunk, out: &mut BytesMut) {
        let native = chunk.wire(Dialect::OpenAi).is_some();
        if !self.usage {
            // The leaf asked for it on its own behalf.
            let Some(shown) = without_usage(chunk) else {
                return;
            };
            chunk = shown;
        }
        if let Some(json) = chunk.wire(Dialect::OpenAi) {
            sse::data(out, json);
            return;
        }
        if !native {
            // Of usage the latest counts.
            self.owed = chunk.usage.or(self.owed);
            if chunk.choices.is_empty() {
                // What else it may say has no words here.
                return;
            }
            if chunk.usage.is_some() {
                chunk.edit().usage = None;
            }
        }
        self.write(chunk, out);
    }

    pub(super) fn done(&mut self, out: &mut BytesMut) {
        if let Some(usage) = self.owed.take() {
            self.write(Chunk::usage(usage), out);
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    /// Writes a chunk that cannot be passed on as it came.
    fn write(&mut self, mut chunk: Chunk, out: &mut BytesMut) {
        let context = &self.context;
        let id = self.id.get_or_insert_with(|| match &chunk.id {
            Some(id) => id.clone(),
            None => context.id(ID_PREFIX),
        });
        let created = *self
            .created
            .get_or_insert_with(|| chunk.created.unwrap_or_else(|| context.now()));
        let delta = chunk.edit();
        delta.id.get_or_insert_with(|| id.clone());
        delta.created.get_or_insert(created);
        delta
            .model
            .get_or_insert_with(|| context.head.model.clone());
        sse::data_of(out, &chunk);
    }
}
