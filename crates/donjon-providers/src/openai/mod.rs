//! OpenAI chat completions, and the many servers that speak their words
//! (<https://platform.openai.com/docs/api-reference/chat>).
//!
//! The words are those of the vocabulary itself, so that what comes in them and goes out in them is
//! passed on as it came, but for the model and the delivery. A prompt that came in another dialect
//! is written from its fields, with only the members that OpenAI knows.

mod builder;
mod embed;
mod error;
mod foreign;
mod stream;

use bytes::Bytes;
use donjon_core::{
    ChatCompletion, Chunk, Completion, Delivery, Dialect, ErrorKind, LlmError, LlmRequest, Name,
    Operation, Prompt, Wire,
};
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode, Uri,
    header::{ACCEPT, CONTENT_TYPE},
};
use http_body_util::Full;

pub use builder::OpenAiBuilder;
pub(crate) use embed::check_count;
pub use embed::{embed_request_from_json, embeddings_to_json};
pub use error::error_to_json;
pub(crate) use foreign::{EXTRA_CONTENT, THINKING_BLOCKS};
pub use stream::OpenAiDecoder;

use crate::{
    codec::{Asked, Codec},
    config,
};

/// The codec of OpenAI, Azure OpenAI, OpenRouter, Ollama and every compatible server.
#[derive(Clone, Debug)]
pub struct OpenAi {
    provider: Name,
    addresses: Addresses,
    models: Uri,
    headers: HeaderMap,
    /// Whether it is OpenAI's own API, and not one that is like it.
    genuine: bool,
    /// Whether streams are asked for their usage.
    stream_usage: bool,
}

#[derive(Clone, Debug)]
enum Addresses {
    Fixed {
        chat: Uri,
        embeddings: Uri,
    },
    /// Azure's, where a deployment is part of the address.
    Deployments {
        base: Box<str>,
        deployment: Option<Box<str>>,
        version: Box<str>,
    },
}

impl OpenAi {
    /// OpenAI itself: `https://api.openai.com/v1`. A key must be set.
    pub fn builder() -> OpenAiBuilder {
        OpenAiBuilder::openai()
    }

    /// Azure OpenAI at `endpoint` (`https://NAME.openai.azure.com`). A key must be set; the
    /// deployment is the one named by the model, unless one is set.
    pub fn azure(endpoint: impl Into<String>) -> OpenAiBuilder {
        OpenAiBuilder::azure(endpoint.into())
    }

    /// OpenRouter: `https://openrouter.ai/api/v1`. A key must be set.
    pub fn openrouter() -> OpenAiBuilder {
        OpenAiBuilder::openrouter()
    }

    /// Ollama on this machine: `http://localhost:11434/v1`, without a key.
    pub fn ollama() -> OpenAiBuilder {
        OpenAiBuilder::ollama()
    }

    /// Any compatible server at `base_url`, the address that `/chat/completions` is appended to. A
    /// key may be set.
    pub fn compatible(base_url: impl Into<String>) -> OpenAiBuilder {
        OpenAiBuilder::compatible(base_url.into())
    }

    fn address(&self, request: &LlmRequest) -> Result<Uri, LlmError> {
        match &self.addresses {
            Addresses::Fixed { chat, embeddings } => Ok(match request.operation() {
                Operation::Embed => embeddings.clone(),
                _ => chat.clone(),
            }),
            Addresses::Deployments {
                base,
                deployment,
                version,
            } => {
                let deployment = deployment.as_deref().unwrap_or(request.model());
                let path = match request.operation() {
                    Operation::Embed => "embeddings",
                    _ => "chat/completions",
                };
                let segment = config::path_segment(deployment);
                format!("{base}/openai/deployments/{segment}/{path}?api-version={version}")
                    .parse()
                    .map_err(|error: http::uri::InvalidUri| {
                        LlmError::invalid_field("model", "cannot be part of an address")
                            .with_source(error)
                    })
            }
        }
    }

    fn body(&self, request: &LlmRequest) -> Result<Bytes, LlmError> {
        match request.prompt() {
            Prompt::Chat(chat) => {
                let mut asked = request.clone();
                if let Some(adapted) = foreign::adapt(chat, self.genuine)? {
                    asked.set_prompt(Prompt::Chat(adapted));
                }
                if let Delivery::Stream { usage } = &mut asked.delivery {
                    // Whoever the figures are for, they settle budgets and limits; a caller who did
                    // not ask for them is spared them at the edge.
                    *usage |= self.stream_usage;
                }
                asked.to_openai_chat().ok_or_else(unsupported)
            }
            Prompt::Embed(embed) => Ok(embed::encode(request.model(), embed)),
            _ => Err(unsupported()),
        }
    }
}

fn unsupported() -> LlmError {
    LlmError::new(
        ErrorKind::Unsupported,
        "the provider does not do this operation",
    )
}

impl Codec for OpenAi {
    type Decoder = OpenAiDecoder;

    fn provider(&self) -> Name {
        self.provider
    }

    fn encode(&self, request: &LlmRequest) -> Result<Request<Full<Bytes>>, LlmError> {
        let mut out = Request::new(Full::new(self.body(request)?));
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

    fn decode(&self, body: Bytes, asked: Asked) -> Result<Completion, LlmError> {
        match asked.operation {
            Operation::Embed => embed::decode(&body, asked.inputs).map(Into::into),
            _ => completion_from_json(body).map(Into::into),
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

    fn decoder(&self, asked: Asked) -> OpenAiDecoder {
        OpenAiDecoder::new(asked.choices)
    }
}

/// Reads a whole answer, and keeps it as it came.
///
/// # Errors
///
/// The error that it holds in place of an answer;
/// [`ErrorKind::InvalidResponse`] if it is no answer;
/// [`ErrorKind::Incomplete`] if a choice has no finish reason.
pub fn completion_from_json(body: Bytes) -> Result<ChatCompletion, LlmError> {
    let read: Result<ChatCompletion, _> = serde_json::from_slice(&body);
    match read {
        Ok(mut completion) if !completion.choices.is_empty() => {
            // OpenRouter tells a failure in the choice or beside it.
            let failed = error::tells_error(&completion.extra)
                || completion.choices.iter().any(|choice| {
                    error::ends_in_error(choice.finish_reason.as_ref())
                        || error::tells_error(&choice.extra)
                });
            if failed {
                return Err(error::decode_failed(&body));
            }
            let unfinished = completion.choices.iter().any(|choice| {
                choice
                    .finish_reason
                    .as_ref()
                    .is_none_or(|reason| reason.as_str().is_empty())
            });
            if unfinished {
                return Err(LlmError::new(
                    ErrorKind::Incomplete,
                    "a choice has no finish reason",
                ));
            }
            completion.wire = Some(Wire::new(Dialect::OpenAi, body));
            Ok(completion)
        }
        Ok(_) => Err(error::decode_unannounced(&body).unwrap_or_else(|| {
            LlmError::new(ErrorKind::InvalidResponse, "the answer has no choices")
        })),
        Err(cause) => Err(error::decode_unannounced(&body).unwrap_or_else(|| no_answer(cause))),
    }
}

/// The error of a success whose body is no answer.
pub(crate) fn no_answer(cause: serde_json::Error) -> LlmError {
    let message = format!("the body is no answer: {cause}");
    LlmError::new(ErrorKind::InvalidResponse, message).with_source(cause)
}

/// The body that gives `completion` to a client of OpenAI: as it came, if it came in this dialect.
pub fn completion_to_json(completion: &ChatCompletion) -> Bytes {
    let wire = completion.wire.as_ref();
    match wire.and_then(|wire| wire.in_dialect(Dialect::OpenAi)) {
        Some(json) => json.clone(),
        None => crate::json::to_bytes(completion),
    }
}

/// The data of the event that gives `chunk` to a client of OpenAI: as it came, if it came in this
/// dialect and was not edited.
pub fn chunk_to_json(chunk: &Chunk) -> Bytes {
    match chunk.wire(Dialect::OpenAi) {
        Some(json) => json.clone(),
        None => crate::json::to_bytes(chunk),
    }
}

/// Takes the usage out of `chunk` for a caller who did not ask for it; `None` if nothing is left
/// to show. Streams are always asked for their usage upstream.
#[must_use]
pub fn without_usage(mut chunk: Chunk) -> Option<Chunk> {
    if chunk.usage.is_some() {
        if chunk.choices.is_empty() && !chunk.unknown {
            return None;
        }
        chunk.edit().usage = None;
    }
    Some(chunk)
}

/// What may be said of `error` to a caller: a provider that refuses a key, or what the key may do,
/// quotes part of it or names whose it is, and it is not the caller's. Our own refusals of a caller's
/// key name no provider, and are told as they are.
pub fn public_message(error: &LlmError) -> &str {
    let told_by_provider = error.provider().is_some() || error.status().is_some();
    match error.kind() {
        ErrorKind::Authentication if told_by_provider => {
            "the provider refused the credentials it was given"
        }
        ErrorKind::PermissionDenied if told_by_provider => {
            "the provider does not permit this to the credentials it was given"
        }
        kind => match error.message() {
            "" => kind.as_str(),
            message => message,
        },
    }
}
