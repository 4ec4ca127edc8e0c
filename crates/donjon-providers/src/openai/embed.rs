//! Embeddings (<https://platform.openai.com/docs/api-reference/embeddings>).

use std::sync::Arc;

use bytes::Bytes;
use donjon_core::{Embed, Embedding, Embeddings, ErrorKind, LlmError, Usage};
use serde::{Deserialize, Serialize};

use super::{error, no_answer};
use crate::json;

pub(super) fn encode(model: &str, embed: &Embed) -> Bytes {
    #[derive(Serialize)]
    struct Body<'a> {
        model: &'a str,
        #[serde(flatten)]
        embed: &'a Embed,
    }
    // Vectors are read as numbers here; whoever wants them in base64 writes them so.
    let mut embed = embed.clone();
    embed.encoding_format = Some("float".into());
    json::to_bytes(&Body {
        model,
        embed: &embed,
    })
}

pub(super) fn decode(body: &[u8]) -> Result<Embeddings, LlmError> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        data: Vec<Item>,
        #[serde(default)]
        model: Option<Arc<str>>,
        #[serde(default)]
        usage: Option<Usage>,
    }
    #[derive(Deserialize)]
    struct Item {
        #[serde(default)]
        index: u32,
        embedding: Vec<f32>,
    }
    let read: Result<Body, _> = serde_json::from_slice(body);
    let body = match read {
        Ok(body) if !body.data.is_empty() => body,
        other => {
            return Err(
                error::decode_unannounced(body).unwrap_or_else(|| match other {
                    Ok(_) => {
                        LlmError::new(ErrorKind::InvalidResponse, "the answer has no embeddings")
                    }
                    Err(cause) => no_answer(cause),
                }),
            );
        }
    };
    let mut embeddings = Embeddings::default();
    embeddings.data = body
        .data
        .into_iter()
        .map(|item| Embedding::new(item.index, item.embedding))
        .collect();
    embeddings.model = body.model;
    embeddings.usage = body.usage;
    Ok(embeddings)
}

#[cfg(test)]
mod tests {
    use donjon_core::LlmRequest;

    use super::*;

    #[test]
    fn there_and_back() {
        let request = LlmRequest::embed("e-1", ["a", "b"]);
        let donjon_core::Prompt::Embed(embed) = request.prompt() else {
            panic!("embeddings were asked for");
        };
        let body: serde_json::Value = serde_json::from_slice(&encode("e-1", embed)).expect("JSON");
        let expected =
            serde_json::json!({"model": "e-1", "input": ["a", "b"], "encoding_format": "float"});
        assert_eq!(body, expected);
        let answer = br#"{"object":"list","model":"e-1","data":[{"object":"embedding","index":1,"embedding":[0.5,-1]}],
            "usage":{"prompt_tokens":2,"total_tokens":2}}"#;
        let answer = decode(answer).expect("read");
        assert_eq!(answer.data, [Embedding::new(1, vec![0.5, -1.0])]);
        assert_eq!(answer.usage, Some(Usage::new(2, 0)));
    }

    #[test]
    fn what_is_no_answer() {
        let kind = |body: &str| decode(body.as_bytes()).expect_err(body).kind();
        assert_eq!(kind("{}"), ErrorKind::InvalidResponse);
        assert_eq!(kind("<html>"), ErrorKind::InvalidResponse);
        assert_eq!(
            kind(r#"{"error":{"message":"m","code":429}}"#),
            ErrorKind::RateLimited
        );
    }
}
