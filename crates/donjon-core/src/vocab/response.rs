//! The answer: who gave it, and what it says.

use std::sync::Arc;

use super::completion::Completion;
use crate::{
    error::LlmError,
    hints::Hints,
    name::Name,
    observe::{Context, Observer},
    stream::ResponseStream,
};

/// Where an answer came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// The provider gave it to this call, and charges for it.
    #[default]
    Upstream,
    /// A cache had it.
    Cache,
    /// The provider gave it to another call that asked the same.
    Coalesced,
}

impl Origin {
    /// The word for it in headers and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Cache => "cache",
            Self::Coalesced => "coalesced",
        }
    }
}

/// Who gave an answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Head {
    /// The model that served.
    pub model: Arc<str>,
    /// The kind of provider (`openai`, `anthropic`), in the words of OpenTelemetry.
    pub provider: Option<Name>,
    /// The target that served.
    pub target: Option<Name>,
    /// The provider's name for the answer.
    pub id: Option<Arc<str>>,
    /// Where it came from.
    pub origin: Origin,
    /// How many seconds ago it was given, where a cache had it; else 0.
    pub age: u32,
    /// What the server said of its limits.
    pub hints: Option<Arc<Hints>>,
}

impl Head {
    /// An answer of `model`, straight from upstream.
    pub fn new(model: impl Into<Arc<str>>) -> Self {
        Self {
            model: model.into(),
            provider: None,
            target: None,
            id: None,
            origin: Origin::Upstream,
            age: 0,
            hints: None,
        }
    }
}

/// What an answer says.
#[derive(Debug)]
pub enum Body {
    /// All of it.
    Complete(Completion),
    /// Chunk by chunk.
    Stream(ResponseStream),
}

/// The answer of a language model.
#[derive(Debug)]
#[non_exhaustive]
pub struct LlmResponse {
    /// Who gave it.
    pub head: Head,
    /// What it says.
    pub body: Body,
}

impl LlmResponse {
    /// A whole answer.
    pub fn complete(head: Head, completion: impl Into<Completion>) -> Self {
        Self {
            head,
            body: Body::Complete(completion.into()),
        }
    }

    /// An answer that comes chunk by chunk.
    pub fn stream(head: Head, stream: ResponseStream) -> Self {
        Self {
            head,
            body: Body::Stream(stream),
        }
    }

    /// Whether it comes chunk by chunk.
    pub fn is_stream(&self) -> bool {
        matches!(self.body, Body::Stream(_))
    }

    /// The whole answer, if it came whole.
    pub fn completion(&self) -> Option<&Completion> {
        match &self.body {
            Body::Complete(completion) => Some(completion),
            Body::Stream(_) => None,
        }
    }

    /// Hands `observer` the rest of this call: every chunk from here on, and its one end. A whole
    /// answer has ended, so it hears that at once, and nothing is allocated.
    #[must_use]
    pub fn observe(self, observer: impl Observer) -> Self {
        self.observe_in(observer, Context::now())
    }

    pub(crate) fn observe_in<O: Observer>(mut self, mut observer: O, context: Context) -> Self {
        observer.committed(&self.head);
        match &mut self.body {
            Body::Complete(completion) => observer.end(&completion.end()),
            Body::Stream(stream) => stream.attach(Box::new(observer), context),
        }
        self
    }

    /// Tells of an answer that came whole.
    #[inline]
    pub(crate) fn tell_whole(&self, observer: &mut impl Observer) {
        if let Body::Complete(completion) = &self.body {
            observer.committed(&self.head);
            observer.end(&completion.end());
        }
    }

    /// Puts another stream in the place of this one, if it comes chunk by chunk. The observers
    /// attached so far go on hearing the stream as it stood before.
    #[must_use]
    pub fn map_stream(mut self, map: impl FnOnce(ResponseStream) -> ResponseStream) -> Self {
        if let Body::Stream(stream) = self.body {
            self.body = Body::Stream(map(stream));
        }
        self
    }

    /// Waits for the whole answer, and gives its text.
    ///
    /// # Errors
    ///
    /// The error that the stream ends with, if it does.
    pub async fn text(self) -> Result<String, LlmError> {
        let (_, completion) = self.collect().await?;
        Ok(completion.text().into_owned())
    }

    /// Waits for the whole answer, folding a stream into a completion.
    ///
    /// # Errors
    ///
    /// The error that the stream ends with, if it does.
    pub async fn collect(self) -> Result<(Head, Completion), LlmError> {
        match self.body {
            Body::Complete(completion) => Ok((self.head, completion)),
            Body::Stream(mut stream) => {
                let mut fold = super::Fold::new();
                while let Some(chunk) = stream.next_chunk().await {
                    fold.push(&chunk?);
                }
                Ok((self.head, fold.finish().into()))
            }
        }
    }
}
