//! Embeddings (<https://platform.openai.com/docs/api-reference/embeddings>).

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use donjon_core::{Embed, Embedding, Embeddings, ErrorKind, LlmError, LlmRequest, Prompt, Usage};
use serde::{Deserialize, Deserializer, Serialize};

use super::{error, no_answer};
use crate::json;

pub(super) fn encode(model: &str, embed: &Embed) -> Bytes {
    #[derive(Serialize)]
    struct Body<'a> {
        model: &'a str,
        #[serde(flatten)]
        embed: &'a Embed,
    }
    // Both forms are read; base64 is asked for only by who wants it, since not every server has it.
    let mut embed = embed.clone();
    embed.encoding_format.get_or_insert_with(|| "float".into());
    json::to_bytes(&Body {
        model,
        embed: &embed,
    })
}

/// Reads the body of a request for embeddings.
///
/// # Errors
///
/// [`ErrorKind::InvalidRequest`], which says what is wrong and where.
pub fn embed_request_from_json(json: &[u8]) -> Result<LlmRequest, LlmError> {
    let mut embed: Embed = serde_json::from_slice(json)
        .map_err(|error| LlmError::new(ErrorKind::InvalidRequest, error.to_string()))?;
    let model: Option<Arc<str>> = embed.extra.take("model")?;
    let model = model.ok_or_else(|| LlmError::invalid_field("model", "is missing"))?;
    if !matches!(
        embed.encoding_format.as_deref(),
        None | Some("float" | "base64")
    ) {
        let reason = "is neither `float` nor `base64`";
        return Err(LlmError::invalid_field("encoding_format", reason));
    }
    Ok(LlmRequest::new(model, Prompt::Embed(embed)))
}

/// The body that gives `embeddings` to a client of OpenAI, its vectors in base64 (of their
/// little-endian bytes) where `base64`; `model` is told where the provider told none.
pub fn embeddings_to_json(embeddings: &Embeddings, model: &str, base64: bool) -> Bytes {
    #[derive(Serialize)]
    struct Body<'a> {
        object: &'static str,
        data: Vec<Item<'a>>,
        model: &'a str,
        usage: UsageOut,
    }
    #[derive(Serialize)]
    struct Item<'a> {
        object: &'static str,
        index: u32,
        embedding: Vector<'a>,
    }
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Vector<'a> {
        Float(&'a [f32]),
        Base64(String),
    }
    #[derive(Serialize)]
    struct UsageOut {
        prompt_tokens: u64,
        total_tokens: u64,
    }
    let items = embeddings.data.iter().map(|one| Item {
        object: "embedding",
        index: one.index,
        embedding: if base64 {
            let bytes: Vec<u8> = one.vector.iter().flat_map(|x| x.to_le_bytes()).collect();
            Vector::Base64(BASE64_STANDARD.encode(bytes))
        } else {
            Vector::Float(&one.vector)
        },
    });
    let input = embeddings.usage.map_or(0, |usage| usage.input);
    json::to_bytes(&Body {
        object: "list",
        data: items.collect(),
        model: embeddings.model.as_deref().unwrap_or(model),
        usage: UsageOut {
            prompt_tokens: input,
            total_tokens: input,
        },
    })
}

/// A vector in either form.
struct VectorIn(Vec<f32>);

impl<'de> Deserialize<'de> for VectorIn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Float(Vec<f32>),
            Base64(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Float(vector) => Ok(Self(vector)),
            Form::Base64(text) => {
                let bytes = BASE64_STANDARD.decode(text).map_err(D::Error::custom)?;
                let (floats, rest) = bytes.as_chunks::<4>();
                if !rest.is_empty() {
                    return Err(D::Error::custom("a vector is cut"));
                }
                Ok(Self(
                    floats.iter().map(|b| f32::from_le_bytes(*b)).collect(),
                ))
            }
        }
    }
}

/// Reads the vectors of `inputs` inputs.
pub(super) fn decode(body: &[u8], inputs: usize) -> Result<Embeddings, LlmError> {
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
        index: Option<u32>,
        embedding: VectorIn,
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
    check_count(body.data.len(), inputs)?;
    let mut embeddings = Embeddings::default();
    let each = (0..).zip(body.data);
    embeddings.data = each
        .map(|(at, item)| Embedding::new(item.index.unwrap_or(at), item.embedding.0))
        .collect();
    embeddings.data.sort_by_key(|one| one.index);
    if (0..).zip(&embeddings.data).any(|(at, one)| one.index != at) {
        let message = "the embeddings are not one for each input";
        return Err(LlmError::new(ErrorKind::InvalidResponse, message));
    }
    embeddings.model = body.model;
    embeddings.usage = body.usage;
    Ok(embeddings)
}

/// Refuses an answer that has not one vector for each input.
pub(crate) fn check_count(vectors: usize, inputs: usize) -> Result<(), LlmError> {
    if vectors == inputs {
        return Ok(());
    }
    let message = format!("{vectors} embeddings for {inputs} inputs");
    Err(LlmError::new(ErrorKind::InvalidResponse, message))
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
        let answer = br#"{"object":"list","model":"e-1","data":[{"object":"embedding","index":1,"embedding":[0.5,-1]},
            {"object":"embedding","index":0,"embedding":"AAAAPwAAgL8="}],
            "usage":{"prompt_tokens":2,"total_tokens":2}}"#;
        let answer = decode(answer, 2).expect("read");
        let both = [0, 1].map(|at| Embedding::new(at, vec![0.5, -1.0]));
        assert_eq!(answer.data, both);
        assert_eq!(answer.usage, Some(Usage::new(2, 0)));
    }

    #[test]
    fn what_is_no_answer() {
        let kind = |body: &str| decode(body.as_bytes(), 1).expect_err(body).kind();
        assert_eq!(kind("{}"), ErrorKind::InvalidResponse);
        assert_eq!(kind("<html>"), ErrorKind::InvalidResponse);
        assert_eq!(
            kind(r#"{"error":{"message":"m","code":429}}"#),
            ErrorKind::RateLimited
        );
    }

    #[test]
    fn one_vector_for_each_input() {
        let two = br#"{"data":[{"index":0,"embedding":[1]},{"index":0,"embedding":[2]}]}"#;
        for inputs in [1, 2, 3] {
            let error = decode(two, inputs).expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::InvalidResponse, "{inputs}");
        }
        let cut = br#"{"data":[{"index":0,"embedding":"AAAAPwA="}]}"#;
        decode(cut, 1).expect_err("three bytes too few");
    }

    #[test]
    fn written_as_it_is_asked_for() {
        let mut embeddings = Embeddings::default();
        embeddings.data = vec![Embedding::new(0, vec![0.5, -1.0])];
        embeddings.usage = Some(Usage::new(3, 0));
        for base64 in [false, true] {
            let json = embeddings_to_json(&embeddings, "m", base64);
            let value: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
            assert_eq!(value["data"][0]["embedding"].is_string(), base64);
            assert_eq!(
                (&value["model"], &value["usage"]["total_tokens"]),
                (&"m".into(), &3.into())
            );
            let back = decode(&json, 1).expect("read");
            assert_eq!(back.data, embeddings.data);
        }
        let error = embed_request_from_json(br#"{"model":"m","input":"a","encoding_format":"x"}"#);
        assert_eq!(error.expect_err("refused").field(), Some("encoding_format"));
        let error = embed_request_from_json(br#"{"input":"a"}"#);
        assert_eq!(error.expect_err("refused").field(), Some("model"));
    }
}
