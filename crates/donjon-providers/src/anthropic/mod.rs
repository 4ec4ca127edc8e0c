//! Anthropic messages (<https://docs.anthropic.com/en/api/messages>).
//!
//! What comes in Anthropic's words and goes to Anthropic is passed on as it came, byte for byte but
//! for the model, the delivery and a missing `max_tokens`: cache controls, signatures of reasoning,
//! citations and whatever is new survive. Everything else goes through the vocabulary.

mod answer;
mod builder;
mod choice_out;
mod content_in;
mod content_out;
mod error;
mod events;
mod pass;
mod request_in;
mod request_out;
mod stream;
mod words;

use std::borrow::Cow;

use bytes::Bytes;
use donjon_core::{Completion, LlmError, LlmRequest, Name};
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode, Uri,
    header::{ACCEPT, CONTENT_TYPE},
};
use http_body_util::Full;

pub use answer::{completion_from_json, completion_to_json};
pub use builder::AnthropicBuilder;
pub use error::error_to_json;
pub use events::EventWriter;
pub use request_in::request_from_json;
pub use stream::AnthropicDecoder;

use crate::{
    codec::{Asked, Codec},
    config,
};

/// The codec of Anthropic, and of servers that speak its words.
#[derive(Clone, Debug)]
pub struct Anthropic {
    provider: Name,
    messages: Uri,
    models: Uri,
    headers: HeaderMap,
    max_tokens: u64,
}

impl Anthropic {
    /// Anthropic itself: `https://api.anthropic.com`. A key must be set.
    pub fn builder() -> AnthropicBuilder {
        AnthropicBuilder::new()
    }
}

impl Codec for Anthropic {
    type Decoder = AnthropicDecoder;

    fn provider(&self) -> Name {
        self.provider
    }

    fn encode(&self, request: &LlmRequest) -> Result<Request<Full<Bytes>>, LlmError> {
        let body = request_out::encode(request, self.max_tokens)?;
        let mut out = Request::new(Full::new(body));
        *out.method_mut() = Method::POST;
        *out.uri_mut() = self.messages.clone();
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
        completion_from_json(body).map(Into::into)
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

    fn decoder(&self, _: Asked) -> AnthropicDecoder {
        AnthropicDecoder::new()
    }
}

/// The name of an answer, made up where its provider gave none.
fn message_id(id: Option<&str>) -> Cow<'_, str> {
    match id {
        Some(id) if !id.is_empty() => id.into(),
        _ => format!("msg_{:024x}", fastrand::u128(..) >> 32).into(),
    }
}
