//! Ollama's own API (<https://docs.ollama.com/api/chat>).
//!
//! Beside the OpenAI-compatible endpoint of the same server
//! ([`OpenAi::ollama`](crate::OpenAi::ollama)): this one takes what the other cannot say (`keep_alive`,
//! `num_ctx` and the other `options`, `think`), and tells reasoning and durations. Answers are JSON texts,
//! one a line, and end with `done`.

mod answer;
mod builder;
mod content_out;
mod embed;
mod error;
mod request_out;
mod stream;

use bytes::Bytes;
use donjon_core::{Completion, LlmError, LlmRequest, Name, Operation, Prompt};
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode, Uri,
    header::{ACCEPT, CONTENT_TYPE},
};
use http_body_util::Full;

pub use builder::OllamaBuilder;
pub use stream::OllamaDecoder;

use crate::{
    codec::{Asked, Codec, Framing},
    config,
};

/// The codec of Ollama's own API.
#[derive(Clone, Debug)]
pub struct Ollama {
    provider: Name,
    chat: Uri,
    embed: Uri,
    models: Uri,
    headers: HeaderMap,
    keep_alive: Option<Box<str>>,
}

impl Ollama {
    /// Ollama on this machine: `http://localhost:11434`, without a key.
    pub fn builder() -> OllamaBuilder {
        OllamaBuilder::new()
    }
}

impl Codec for Ollama {
    type Decoder = OllamaDecoder;

    fn provider(&self) -> Name {
        self.provider
    }

    fn encode(&self, request: &LlmRequest) -> Result<Request<Full<Bytes>>, LlmError> {
        let keep_alive = self.keep_alive.as_deref();
        let (address, body) = match request.prompt() {
            Prompt::Chat(chat) => (&self.chat, request_out::encode(request, chat, keep_alive)?),
            Prompt::Embed(embed) => (
                &self.embed,
                embed::encode(request.model(), embed, keep_alive)?,
            ),
            _ => {
                let message = "Ollama has no such operation";
                return Err(LlmError::new(donjon_core::ErrorKind::Unsupported, message));
            }
        };
        let mut out = Request::new(Full::new(body));
        *out.method_mut() = Method::POST;
        *out.uri_mut() = address.clone();
        let mut headers = self.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(
            ACCEPT,
            HeaderValue::from_static(if request.is_stream() {
                "application/x-ndjson"
            } else {
                "application/json"
            }),
        );
        *out.headers_mut() = headers;
        Ok(out)
    }

    fn decode(&self, body: Bytes, asked: Asked) -> Result<Completion, LlmError> {
        match asked.operation {
            Operation::Embed => embed::decode(&body, asked.inputs).map(Into::into),
            _ => answer::completion(&body).map(Into::into),
        }
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

    fn decoder(&self, _: Asked) -> OllamaDecoder {
        OllamaDecoder::new()
    }

    fn framing(&self) -> Framing {
        Framing::Lines
    }
}
