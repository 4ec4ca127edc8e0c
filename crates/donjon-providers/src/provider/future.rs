//! The future of a call: from the request to the head of a stream, or to the whole answer.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use donjon_core::{
    AttemptRef, Billed, BoxError, Completion, ErrorKind, Head, Hints, LlmError, LlmResponse, Name,
    ResponseStream,
};
use http::{HeaderMap, Response, header::CONTENT_TYPE, response::Parts};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::Sleep;

use super::{
    Settings, Shared,
    collect::{Collect, Unread},
    events::Events,
    failure::{self, Phase},
    stream::AnswerStream,
};
use crate::{
    codec::{Asked, Codec, Framing},
    hints,
};

/// The most that is read of an error's body, in bytes.
const MAX_ERROR: usize = 256 << 10;

/// How long the body of an error is waited for: its status and headers say most of it.
const ERROR_PATIENCE: Duration = Duration::from_secs(1);

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
            // Runs while the body of a refusal is read.
            #[pin]
            patience: Option<Sleep>,
        },
    }
}

/// A head whose body is being read.
struct HeadRead {
    parts: Parts,
    hints: Option<Arc<Hints>>,
}

/// What the headers of an answer say of a further try.
#[derive(Clone, Copy)]
pub(super) struct Said {
    retry_after: Option<Duration>,
    should_retry: Option<bool>,
}

impl Said {
    /// Adds it to `error`, which may say more of itself.
    pub(super) fn add_to(self, mut error: LlmError) -> LlmError {
        if let Some(after) = self.retry_after
            && error.retry_after().is_none()
        {
            error = error.with_retry_after(after);
        }
        if let Some(should) = self.should_retry
            && error.should_retry().is_none()
        {
            error = error.with_should_retry(should);
        }
        error
    }
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
                        && may_be_events(&parts.headers, exchange.shared.codec.framing())
                    {
                        return Poll::Ready(Ok(exchange.stream(&parts.headers, body, hints)));
                    }
                    let refused = !parts.status.is_success();
                    let limit = if refused {
                        // The status says so, whatever becomes of the body.
                        exchange.attempt.set_billed(Billed::No);
                        MAX_ERROR
                    } else {
                        exchange.settings.max_answer
                    };
                    this.state.set(State::Reading {
                        body: Collect::new(body, limit),
                        head: Some(HeadRead { parts, hints }),
                        patience: refused.then(|| tokio::time::sleep(ERROR_PATIENCE)),
                    });
                }
                StateProj::Reading {
                    body,
                    head,
                    patience,
                } => {
                    let read = match (body.poll(cx), patience.as_pin_mut()) {
                        (Poll::Ready(read), _) => read,
                        (Poll::Pending, None) => return Poll::Pending,
                        (Poll::Pending, Some(patience)) => {
                            ready!(patience.poll(cx));
                            Ok(Bytes::new())
                        }
                    };
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

    /// Reads what the headers say of a further try.
    fn said(&self, headers: &HeaderMap) -> Said {
        Said {
            retry_after: hints::retry_after(headers, self.settings.clock.now()),
            should_retry: hints::should_retry(headers),
        }
    }

    fn head(&self, hints: Option<Arc<Hints>>) -> Head {
        let mut head = Head::new(self.model.clone());
        head.provider = Some(self.shared.codec.provider());
        head.target = self.settings.target;
        head.hints = hints;
        head
    }

    /// The response whose chunks come from `body`.
    fn stream<B>(&self, headers: &HeaderMap, body: B, hints: Option<Arc<Hints>>) -> LlmResponse
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
            Events::new(self.shared.codec.framing(), body, self.settings.max_event),
            self.shared.codec.decoder(self.asked),
            self.asked.choices,
            counters,
            head.clone(),
            self.said(headers),
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
                let error = self.sign(error).with_status(status.as_u16());
                let mut error = self.said(&parts.headers).add_to(error);
                if let Some(hints) = hints {
                    error = error.with_hints(hints);
                }
                Err(error)
            }
        }
    }

    /// Says whose error it is.
    fn sign(&self, error: LlmError) -> LlmError {
        sign(error, self.shared.codec.provider(), self.settings.target)
    }
}

/// Says whose error `error` is.
pub(super) fn sign(error: LlmError, provider: Name, target: Option<Name>) -> LlmError {
    let error = error.with_provider(provider);
    match target {
        Some(target) => error.with_target(target),
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

/// Whether a success is a stream of events: one that says to be anything else (JSON, a page, plain
/// text) is not, whatever was asked for, and is read as a whole answer or an error.
fn may_be_events(headers: &HeaderMap, framing: Framing) -> bool {
    let Some(content_type) = headers.get(CONTENT_TYPE) else {
        return true;
    };
    let essence = content_type.as_bytes().split(|byte| *byte == b';').next();
    let essence = essence.unwrap_or_default().trim_ascii();
    essence.is_empty() || framing.may_be(essence)
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
