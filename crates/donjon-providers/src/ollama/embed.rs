//! Embeddings (<https://docs.ollama.com/api/embed>).

use std::sync::Arc;

use bytes::Bytes;
use donjon_core::{Embed, EmbedInput, Embedding, Embeddings, ErrorKind, LlmError, Usage};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{error, request_out};
use crate::{
    json,
    openai::{check_count, no_answer},
    prompt::unsupported,
};

/// Writes the body of a request. `truncate` and `options` are passed on under the server's own names.
pub(super) fn encode(
    model: &str,
    embed: &Embed,
    keep_alive: Option<&str>,
) -> Result<Bytes, LlmError> {
    #[derive(Serialize)]
    struct Body<'a> {
        model: &'a str,
        input: &'a [Box<str>],
        #[serde(skip_serializing_if = "Option::is_none")]
        dimensions: Option<u32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        truncate: Option<&'a RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        options: Option<&'a RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        keep_alive: Option<Box<RawValue>>,
    }
    let EmbedInput::Texts(input) = &embed.input else {
        return Err(unsupported("input", "Ollama embeds texts, not tokens"));
    };
    Ok(json::to_bytes(&Body {
        model,
        input,
        dimensions: embed.dimensions,
        truncate: embed.extra.get("truncate"),
        options: embed.extra.get("options"),
        keep_alive: request_out::keep_alive(&embed.extra, keep_alive),
    }))
}

/// Reads the vectors of `inputs` texts.
pub(super) fn decode(body: &[u8], inputs: usize) -> Result<Embeddings, LlmError> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        model: Option<Arc<str>>,
        #[serde(default)]
        embeddings: Option<Vec<Vec<f32>>>,
        #[serde(default)]
        prompt_eval_count: Option<u64>,
    }
    let fail = |cause| error::decode_unannounced(body).unwrap_or_else(|| no_answer(cause));
    let read: Body = serde_json::from_slice(body).map_err(fail)?;
    let Some(vectors) = read.embeddings else {
        let none = || LlmError::new(ErrorKind::InvalidResponse, "the answer has no embeddings");
        return Err(error::decode_unannounced(body).unwrap_or_else(none));
    };
    check_count(vectors.len(), inputs)?;
    let mut embeddings = Embeddings::default();
    let each = (0..).zip(vectors);
    embeddings.data = each
        .map(|(index, vector)| Embedding::new(index, vector))
        .collect();
    embeddings.model = read.model;
    embeddings.usage = read.prompt_eval_count.map(|input| Usage::new(input, 0));
    Ok(embeddings)
}
