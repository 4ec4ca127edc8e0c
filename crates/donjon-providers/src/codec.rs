//! What a codec does: the words of one provider, apart from how they travel.

use bytes::Bytes;
use donjon_core::{Chunk, Completion, LlmError, LlmRequest, Name, Operation};
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
}

/// Reads the events of one streamed answer.
pub trait StreamDecoder {
    /// Reads one event, given the text of its data lines.
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
}

impl Asked {
    /// What `request` asks for.
    pub fn of(request: &LlmRequest) -> Self {
        Self {
            operation: request.operation(),
            choices: request.choices(),
            stream: request.is_stream(),
        }
    }
}
