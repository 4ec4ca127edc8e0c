//! The future of a call: from the request to the head of a stream, or to the whole answer.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
};

use bytes::Bytes;
use donjon_core::{
    AttemptRef, Billed, BoxError, Completion, ErrorKind, Head, Hints, LlmError, LlmResponse,
    ResponseStream,
};
use http::{HeaderMap, Response, header::CONTENT_TYPE, response::Parts};
use http_body::Body;
use pin_project_lite::pin_project;

use super::{
    Settings, Shared,
    collect::{Collect, Unread},
    failure::{self, Phase},
    stream::AnswerStream,
};
use crate::{
    codec::{Asked, Codec},
    hints,
};

/// The most that is read of an error's body, in bytes.
const MAX_ERROR: usize = 256 << 10;

pin_project! {
    /// The future of a [`Provider`](super::Provider).
    #[must_use = "futures do nothing unless polled"]
    pub struct ProviderFuture<C, F, B> {
        exchange: Exchange<C>,
        #[pin]
        state: State<F, B>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, B> {
        Refused {
            error: Option<LlmError>,
        },
        Sent {
            #[pin]
            future: F,
        },
        Reading {
            #[pin]
            body: Collect<B>,
            head: Option<HeadRead>,
        },
    }
}

/// A head whose body is being read.
struct HeadRead {
    parts: Parts,
    hints: Option<Arc<Hints>>,
}

/// What is known of one call.
pub(super) struct Exchange<C> {
    pub(super) shared: Arc<Shared<C>>,
    pub(super) settings: Settings,
    pub(super) asked: Asked,
    /// The model that is asked.
    pub(super) model: Arc<str>,
    pub(super) attempt: AttemptRef,
}

impl<C, F, B> ProviderFuture<C, F, B> {
    pub(super) fn sent(exchange: Exchange<C>, future: F) -> Self {
        Self {
            exchange,
            state: State::Sent { future },
        }
    }

    pub(super) fn refused(exchange: Exchange<C>, error: LlmError) -> Self {
        Self {
            exchange,
            state: State::Refused { error: Some(error) },
        }
    }
}

impl<C, F, B, E> Future for ProviderFuture<C, F, B>
where
    C: Codec,
    C::Decoder: Send + 'static,
    F: Future<Output = Result<Response<B>, E>>,
    E: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Output = Result<LlmResponse, LlmError>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let exchange = this.exchange;
        loop {
            match this.state.as_mut().project() {
                StateProj::Refused { error } => {
                    exchange.attempt.set_billed(Billed::No);
                    let error = error.take().unwrap_or_else(polled_again);
                    return Poll::Ready(Err(exchange.sign(error)));
                }
                StateProj::Sent { future } => {
                    let response = match ready!(future.poll(cx)) {
                        Ok(response) => response,
                        Err(error) => {
                            let failed = failure::of_transport(error.into(), Phase::Head);
                            if !failed.sent {
                                exchange.attempt.set_billed(Billed::No);
                            }
                            return Poll::Ready(Err(exchange.sign(failed.error)));
                        }
                    };
                    exchange.attempt.stamp_first_byte();
                    let (parts, body) = response.into_parts();
                    let hints = exchange.hints(&parts.headers);
                    if parts.status.is_success()
                        && exchange.asked.stream
                        && may_be_events(&parts.headers)
                    {
                        return Poll::Ready(Ok(exchange.stream(body, hints)));
                    }
                    let limit = if parts.status.is_success() {
                        exchange.settings.max_answer
                    } else {
                        MAX_ERROR
                    };
                    this.state.set(State::Reading {
                        body: Collect::new(body, limit),
                        head: Some(HeadRead { parts, hints }),
                    });
                }
                StateProj::Reading { body, head } => {
                    let read = ready!(body.poll(cx));
                    return Poll::Ready(match head.take() {
                        Some(head) => exchange.whole(head, read),
                        None => Err(polled_again()),
                    });
                }
            }
        }
    }
}

impl<C: Codec> Exchange<C> {
    /// Reads what the headers say of limits.
    fn hints(&self, headers: &HeaderMap) -> Option<Arc<Hints>> {
        hints::limits(headers, self.settings.clock.now()).map(Arc::new)
    }

    fn head(&self, hints: Option<Arc<Hints>>) -> Head {
        let mut head = Head::new(self.model.clone());
        head.provider = Some(self.shared.codec.provider().clone());
        head.target.clone_from(&self.settings.target);
        head.hints = hints;
        head
    }

    /// The response whose chunks come from `body`.
    fn stream<B>(&self, body: B, hints: Option<Arc<Hints>>) -> LlmResponse
    where
        C::Decoder: Send + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let counters = self.shared.counters.clone();
        counters.stream();
        let head = self.head(hints);
        let stream = AnswerStream::new(
            body,
            self.settings.max_event,
            self.shared.codec.decoder(self.asked),
            counters,
            head.clone(),
        );
        LlmResponse::stream(head, ResponseStream::new(self.asked.choices, stream))
    }

    /// What a body that was read whole comes to.
    fn whole(&self, head: HeadRead, read: Result<Bytes, Unread>) -> Result<LlmResponse, LlmError> {
        let HeadRead { parts, hints } = head;
        let status = parts.status;
        let codec = &self.shared.codec;
        let result = if status.is_success() {
            match read {
                Ok(body) => codec.decode(body, self.asked),
                Err(Unread::Broken(cause)) => Err(failure::of_transport(cause, Phase::Body).error),
                Err(Unread::TooLarge) => Err(LlmError::new(
                    ErrorKind::InvalidResponse,
                    format!(
                        "the answer is larger than {} bytes",
                        self.settings.max_answer
                    ),
                )),
            }
        } else {
            // It was refused; the status says so even where its body is not to be had.
            self.attempt.set_billed(Billed::No);
            let body = read.unwrap_or_default();
            Err(codec.decode_error(status, &parts.headers, &body))
        };
        match result {
            Ok(completion) => {
                let mut head = self.head(hints);
                serve(&mut head, &completion);
                Ok(LlmResponse::complete(head, completion))
            }
            Err(error) => {
                let mut error = self.sign(error).with_status(status.as_u16());
                let now = self.settings.clock.now();
                if let Some(after) = hints::retry_after(&parts.headers, now) {
                    error = error.with_retry_after(after);
                }
                if let Some(should) = hints::should_retry(&parts.headers) {
                    error = error.with_should_retry(should);
                }
                if let Some(hints) = hints {
                    error = error.with_hints(hints);
                }
                Err(error)
            }
        }
    }

    /// Says whose error it is.
    fn sign(&self, error: LlmError) -> LlmError {
        sign(
            error,
            self.shared.codec.provider(),
            self.settings.target.as_ref(),
        )
    }
}

/// Says whose error `error` is.
pub(super) fn sign(error: LlmError, provider: &Arc<str>, target: Option<&Arc<str>>) -> LlmError {
    let error = error.with_provider(provider.clone());
    match target {
        Some(target) => error.with_target(target.clone()),
        None => error,
    }
}

/// Says in `head` who served, as far as `completion` tells.
fn serve(head: &mut Head, completion: &Completion) {
    let model = match completion {
        Completion::Chat(chat) => {
            head.id.clone_from(&chat.id);
            chat.model.as_ref()
        }
        Completion::Embed(embeddings) => embeddings.model.as_ref(),
        _ => None,
    };
    if let Some(model) = model.filter(|model| !model.is_empty()) {
        head.model = model.clone();
    }
}

/// Whether a success is a stream of events: one that says to be JSON or a page is not, whatever was
/// asked for, and is read as a whole answer or an error.
fn may_be_events(headers: &HeaderMap) -> bool {
    let Some(content_type) = headers.get(CONTENT_TYPE) else {
        return true;
    };
    let is = |word: &[u8]| {
        let bytes = content_type.as_bytes();
        bytes.len() >= word.len() && bytes[..word.len()].eq_ignore_ascii_case(word)
    };
    !is(b"application/json") && !is(b"text/html")
}

fn polled_again() -> LlmError {
    LlmError::new(ErrorKind::Internal, "polled after completion")
}

impl<C, F, B> fmt::Debug for ProviderFuture<C, F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            State::Refused { .. } => "ProviderFuture(refused)",
            State::Sent { .. } => "ProviderFuture(sent)",
            State::Reading { .. } => "ProviderFuture(reading)",
        })
    }
}
