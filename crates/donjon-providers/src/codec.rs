//! What a codec does: the words of one provider, apart from how they travel.

use bytes::Bytes;
use donjon_core::{Chunk, Completion, EmbedInput, LlmError, LlmRequest, Name, Operation, Prompt};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::Full;

/// Translates between the vocabulary and the words of a provider.
///
/// A codec knows nothing of connections; [`Provider`](crate::Provider) puts one over an http service.
pub trait Codec {
    /// Reads the events of one streamed answer.
    type Decoder: StreamDecoder;

    /// The kind of provider, in the words of OpenTelemetry (`openai`, `anthropic`).
    fn provider(&self) -> Name;

    /// Writes a request, address and key included.
    ///
    /// # Errors
    ///
    /// What this provider cannot do ([`ErrorKind::Unsupported`](donjon_core::ErrorKind::Unsupported)).
    fn encode(&self, request: &LlmRequest) -> Result<Request<Full<Bytes>>, LlmError>;

    /// Reads a whole answer that came with a status of success.
    ///
    /// # Errors
    ///
    /// The error that it holds, or why it is no answer.
    fn decode(&self, body: Bytes, asked: Asked) -> Result<Completion, LlmError>;

    /// Reads the refusal or failure that came with `status`.
    fn decode_error(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> LlmError;

    /// Begins to read a streamed answer.
    fn decoder(&self, asked: Asked) -> Self::Decoder;

    /// Writes the request that lists the models, address and key included: what
    /// [`Provider::probe`](crate::Provider::probe) asks. `None`, the default: there is no such thing.
    fn list_models(&self) -> Option<Request<Full<Bytes>>> {
        None
    }

    /// How the events of a streamed answer stand in its body. Default: as server-sent events.
    fn framing(&self) -> Framing {
        Framing::Events
    }
}

/// How the events of a streamed answer stand in its body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Framing {
    /// As server-sent events ([`sse`](crate::sse)).
    #[default]
    Events,
    /// As JSON texts, one a line ([`lines`](crate::lines)).
    Lines,
}

impl Framing {
    /// Whether a body that says to be of type `essence` may be framed so.
    pub(crate) fn may_be(self, essence: &[u8]) -> bool {
        let types: &[&str] = match self {
            Self::Events => &["text/event-stream"],
            Self::Lines => &[
                "application/x-ndjson",
                "application/ndjson",
                "application/jsonl",
            ],
        };
        let mut types = types.iter();
        types.any(|known| essence.eq_ignore_ascii_case(known.as_bytes()))
    }
}

/// Reads the events of one streamed answer.
pub trait StreamDecoder {
    /// Reads one event, given the text of its data lines, or the line that it is.
    ///
    /// # Errors
    ///
    /// The error that the server tells in it, with which the stream ends.
    fn decode(&mut self, data: String) -> Result<Step, LlmError>;
}

/// What an event of a stream means.
#[derive(Debug)]
#[non_exhaustive]
pub enum Step {
    /// It adds to the answer.
    Chunk(Chunk),
    /// It adds to the answer, and nothing follows it.
    Last(Chunk),
    /// It ends the answer.
    Done,
    /// It carries nothing: a keep-alive.
    Nothing,
    /// It makes no sense; the stream goes on without it.
    Malformed,
}

/// What a codec needs to know of a request to read its answer.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Asked {
    /// What was asked for.
    pub operation: Operation,
    /// How many choices.
    pub choices: u32,
    /// Whether the answer is to come chunk by chunk.
    pub stream: bool,
    /// How many inputs are to be embedded; none in a chat.
    pub inputs: usize,
}

impl Asked {
    /// What `request` asks for.
    pub fn of(request: &LlmRequest) -> Self {
        Self {
            operation: request.operation(),
            choices: request.choices(),
            stream: request.is_stream(),
            inputs: match request.prompt() {
                Prompt::Embed(embed) => match &embed.input {
                    EmbedInput::Texts(texts) => texts.len(),
                    EmbedInput::Tokens(tokens) => tokens.len(),
                    _ => 0,
                },
                _ => 0,
            },
        }
    }
}
