//! The words of the two APIs: requests read, answers, events and errors written. Most of it is the
//! codecs' own.

mod complaint;
mod openai;
mod path;

use std::{borrow::Cow, sync::Arc, time::UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use donjon_core::{
    ChatCompletion, Chunk, Dialect, Head, LlmError, LlmRequest, Operation, WallClock,
};
use donjon_providers::{anthropic, anthropic::EventWriter, openai as codec};

pub(crate) use complaint::Complaint;

use crate::route::Api;

impl Api {
    /// Reads the body of a request for `operation`.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and with which field.
    pub(crate) fn read(self, operation: Operation, json: Bytes) -> Result<LlmRequest, LlmError> {
        match self {
            _ if operation == Operation::Embed => openai::read_embed(&json),
            Self::OpenAi => openai::read(json),
            Self::Anthropic => anthropic::request_from_json(json),
        }
    }

    /// Writes a whole answer.
    pub(crate) fn write(self, context: &Context, completion: &ChatCompletion) -> Bytes {
        let wire = completion.wire.as_ref();
        match self {
            Self::OpenAi => match wire.and_then(|wire| wire.in_dialect(Dialect::OpenAi)) {
                Some(json) => json.clone(),
                None => codec::completion_to_json(&context.fill(completion, openai::ID_PREFIX)),
            },
            Self::Anthropic => match wire.and_then(|wire| wire.in_dialect(Dialect::Anthropic)) {
                Some(json) => json.clone(),
                None => anthropic::completion_to_json(&context.fill(completion, "msg_")),
            },
        }
    }

    /// Writes an error.
    pub(crate) fn write_error(self, complaint: &Complaint<'_>) -> Bytes {
        match self {
            Self::OpenAi => codec::error_to_json(complaint.told()),
            Self::Anthropic => anthropic::error_to_json(complaint.told()),
        }
    }
}

/// What an answer is filled up with where its provider left it out.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) head: Head,
    pub(crate) clock: WallClock,
}

impl Context {
    fn fill<'a>(&self, answer: &'a ChatCompletion, prefix: &str) -> Cow<'a, ChatCompletion> {
        if answer.id.is_some() && answer.model.is_some() && answer.created.is_some() {
            return Cow::Borrowed(answer);
        }
        let mut whole = answer.clone();
        whole.id.get_or_insert_with(|| self.id(prefix));
        whole.created.get_or_insert_with(|| self.now());
        whole.model.get_or_insert_with(|| self.head.model.clone());
        Cow::Owned(whole)
    }

    /// Seconds since 1970.
    fn now(&self) -> u64 {
        let since = self.clock.now().duration_since(UNIX_EPOCH);
        since.unwrap_or_default().as_secs()
    }

    /// The name of the answer, made up where the provider gave none.
    fn id(&self, prefix: &str) -> Arc<str> {
        match &self.head.id {
            Some(id) => id.clone(),
            None => format!("{prefix}{:024x}", fastrand::u128(..) >> 32).into(),
        }
    }
}

/// Writes the events of one stream.
#[derive(Debug)]
pub(crate) enum Events {
    OpenAi(openai::Events),
    Anthropic(EventWriter),
}

impl Events {
    /// The events of an answer; `usage` says whether an OpenAI caller asked to be told it.
    pub(crate) fn new(api: Api, context: Context, usage: bool) -> Self {
        match api {
            Api::OpenAi => Self::OpenAi(openai::Events::new(context, usage)),
            Api::Anthropic => Self::Anthropic(EventWriter::new(&context.head)),
        }
    }

    /// Appends what `chunk` says, which may be nothing.
    pub(crate) fn chunk(&mut self, chunk: Chunk, out: &mut BytesMut) {
        match self {
            _ if chunk.is_ping() => {}
            Self::OpenAi(events) => events.chunk(chunk, out),
            Self::Anthropic(events) => events.chunk(&chunk, out),
        }
    }

    /// Appends the end of an answer that is whole.
    pub(crate) fn done(&mut self, out: &mut BytesMut) {
        match self {
            Self::OpenAi(events) => events.done(out),
            Self::Anthropic(events) => events.finish(out),
        }
    }
}

/// Appends the event that ends a stream which broke: the last one, with no sign of a whole answer
/// after it.
pub(crate) fn error_event(api: Api, error: &LlmError, out: &mut BytesMut) {
    if api == Api::Anthropic {
        out.extend_from_slice(b"event: error\n");
    }
    crate::sse::data(out, &api.write_error(&Complaint::of(error)));
}
