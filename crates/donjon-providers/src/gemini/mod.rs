//! Gemini (<https://ai.google.dev/api/generate-content>).
//!
//! A streamed answer has no event that ends it: each candidate ends with its finish reason, and a
//! stream without one was cut. Signatures of thoughts travel in `extra_content.google.thought_signature`
//! of a tool call, where Google's own endpoint for OpenAI's clients puts them, and are given back.

mod answer;
mod builder;
mod content_out;
mod error;
mod request_out;
mod stream;
mod words;

use bytes::Bytes;
use donjon_core::{Completion, LlmError, LlmRequest, Name};
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode, Uri,
    header::{ACCEPT, CONTENT_TYPE},
};
use http_body_util::Full;

pub use builder::GeminiBuilder;
pub use stream::GeminiDecoder;

use crate::{
    codec::{Asked, Codec},
    config,
};

/// The codec of Gemini.
#[derive(Clone, Debug)]
pub struct Gemini {
    provider: Name,
    base: Box<str>,
    models: Uri,
    headers: HeaderMap,
}

impl Gemini {
    /// Google's Gemini API: `https://generativelanguage.googleapis.com/v1beta`. A key must be set.
    pub fn builder() -> GeminiBuilder {
        GeminiBuilder::new()
    }

    fn address(&self, request: &LlmRequest) -> Result<Uri, LlmError> {
        let method = if request.is_stream() {
            "streamGenerateContent?alt=sse"
        } else {
            "generateContent"
        };
        // A model may be told with the collection it belongs to (`models/…`, `tunedModels/…`).
        let (collection, model) = match request.model().split_once('/') {
            Some((collection @ ("models" | "tunedModels"), model)) => (collection, model),
            _ => ("models", &**request.model()),
        };
        let (base, model) = (&self.base, config::path_segment(model));
        format!("{base}/{collection}/{model}:{method}")
            .parse()
            .map_err(|error: http::uri::InvalidUri| {
                LlmError::invalid_field("model", "cannot be part of an address").with_source(error)
            })
    }
}

impl Codec for Gemini {
    type Decoder = GeminiDecoder;

    fn provider(&self) -> Name {
        self.provider
    }

    fn encode(&self, request: &LlmRequest) -> Result<Request<Full<Bytes>>, LlmError> {
        let mut out = Request::new(Full::new(request_out::encode(request)?));
        *out.method_mut() = Method::POST;
        *out.uri_mut() = self.address(request)?;
        let mut headers = self.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(
            ACCEPT,
            HeaderValue::from_static(if request.is_stream() {
                "text/event-stream"
            } else {
                "application/json"
            }),
        );
        *out.headers_mut() = headers;
        Ok(out)
    }

    fn decode(&self, body: Bytes, _: Asked) -> Result<Completion, LlmError> {
        answer::completion(&body).map(Into::into)
    }

    fn decode_error(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> LlmError {
        let content_type = headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        error::decode(status, content_type, body)
    }

    fn list_models(&self) -> Option<Request<Full<Bytes>>> {
        Some(config::get(&self.models, &self.headers))
    }

    fn decoder(&self, _: Asked) -> GeminiDecoder {
        GeminiDecoder::new()
    }
}
