//! A streamed answer, read from the body of a response.

use std::{
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
    time::Duration,
};

use donjon_core::{BoxError, Chunk, Head, LlmError};
use futures_core::Stream;
use http_body::Body;
use tokio::time::Sleep;

use super::{
    events::Events,
    failure,
    future::{Said, sign},
    stats::Counters,
};
use crate::codec::{Step, StreamDecoder};

/// How long the end of a body is waited for after the end of its answer.
const LINGER: Duration = Duration::from_millis(100);

/// How long the usage and the end of an answer are waited for after the last of its choices has
/// finished: some servers send neither, and keep the connection open.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// The chunks of an answer.
pub(super) struct AnswerStream<B, D>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    /// `None` once the answer has ended. In a box, so that the rest can be read elsewhere.
    events: Option<Pin<Box<Events<B>>>>,
    decoder: D,
    /// How many choices were asked for.
    choices: u32,
    counters: Arc<Counters>,
    head: Head,
    said: Said,
    /// Which of the first 128 choices have finished; providers allow no more.
    finished: u128,
    /// How long the usage and the end are still waited for, once every choice has finished.
    patience: Option<Pin<Box<Sleep>>>,
}

impl<B, D> AnswerStream<B, D>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    pub(super) fn new(
        events: Events<B>,
        decoder: D,
        choices: u32,
        counters: Arc<Counters>,
        head: Head,
        said: Said,
    ) -> Self {
        Self {
            events: Some(Box::pin(events)),
            decoder,
            choices,
            counters,
            head,
            said,
            finished: 0,
            patience: None,
        }
    }

    /// Sees which choices `chunk` finishes.
    fn see(&mut self, chunk: &Chunk) {
        for choice in &chunk.choices {
            if choice.finish_reason.is_some() {
                self.finished |= 1_u128.checked_shl(choice.index).unwrap_or(0);
            }
        }
    }

    fn fail(&mut self, error: LlmError) -> LlmError {
        self.events = None;
        let error = match self.head.provider {
            Some(provider) => sign(error, provider, self.head.target),
            None => error,
        };
        let error = self.said.add_to(error);
        match &self.head.hints {
            Some(hints) => error.with_hints(hints.clone()),
            None => error,
        }
    }

    /// The answer has ended, and its caller waits for nothing. A body that is dropped before its own
    /// end takes an HTTP/1 connection with it; the end mostly follows at once, so it is read beside.
    fn let_go(&mut self) {
        let Some(mut events) = self.events.take() else {
            return;
        };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        runtime.spawn(async move {
            let rest = std::future::poll_fn(move |cx| {
                while ready!(events.as_mut().poll_next(cx)).is_some() {}
                Poll::Ready(())
            });
            let _ = tokio::time::timeout(LINGER, rest).await;
        });
    }
}

// Nothing in it is pinned in place.
impl<B, D> Unpin for AnswerStream<B, D>
where
    B: Body,
    B::Error: Into<BoxError>,
{
}

impl<B, D> Stream for AnswerStream<B, D>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    D: StreamDecoder,
{
    type Item = Result<Chunk, LlmError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            let Some(events) = &mut this.events else {
                return Poll::Ready(None);
            };
            let event = match events.as_mut().poll_next(cx) {
                Poll::Ready(event) => event,
                Poll::Pending => {
                    if this.finished.count_ones() < this.choices.clamp(1, 128) {
                        return Poll::Pending;
                    }
                    // Mostly the end is there already, and no timer is needed.
                    let patience = this
                        .patience
                        .get_or_insert_with(|| Box::pin(tokio::time::sleep(END_PATIENCE)));
                    ready!(patience.as_mut().poll(cx));
                    this.events = None;
                    return Poll::Ready(None);
                }
            };
            let data = match event {
                Some(Ok(data)) => data,
                Some(Err(error)) => {
                    let error = this.fail(failure::of_events(error));
                    return Poll::Ready(Some(Err(error)));
                }
                None => {
                    this.events = None;
                    return Poll::Ready(None);
                }
            };
            match this.decoder.decode(data) {
                Ok(Step::Chunk(chunk)) => {
                    this.see(&chunk);
                    return Poll::Ready(Some(Ok(chunk)));
                }
                Ok(Step::Last(chunk)) => {
                    this.let_go();
                    return Poll::Ready(Some(Ok(chunk)));
                }
                Ok(Step::Done) => {
                    this.let_go();
                    return Poll::Ready(None);
                }
                Ok(Step::Nothing) => {}
                Ok(Step::Malformed) => this.counters.malformed_event(),
                Err(error) => {
                    let error = this.fail(error);
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}
