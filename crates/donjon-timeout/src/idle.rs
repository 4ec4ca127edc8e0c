//! The clocks after the commit point of a stream.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use donjon_core::{Call, Chunk, LlmError, ResponseStream, TimeoutClock};
use futures_core::Stream;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{
    future::{earliest, ran_out},
    layer::Shared,
};

/// A stream that may be silent for only so long, while somebody waits for it.
pub(crate) struct Idle {
    inner: ResponseStream,
    limit: Option<Duration>,
    call: Call,
    shared: Arc<Shared>,
    timer: Option<Pin<Box<Sleep>>>,
    /// How long readers have waited since the last chunk that carried something, up to `since`.
    waited: Duration,
    /// Since when a reader waits.
    since: Option<Instant>,
}

impl Idle {
    pub(crate) const fn new(
        inner: ResponseStream,
        limit: Option<Duration>,
        call: Call,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            inner,
            limit,
            call,
            shared,
            timer: None,
            waited: Duration::ZERO,
            since: None,
        }
    }

    /// Stops the clock while the reader has something to do.
    fn stop(&mut self, chunk: &Chunk) {
        if chunk.shows(true) || chunk.finishes() {
            self.waited = Duration::ZERO;
            self.since = None;
        } else if let Some(since) = self.since.take() {
            self.waited += since.elapsed();
        }
    }

    /// Starts the clock when the reader begins to wait. False if there is none.
    fn start(&mut self) -> bool {
        if self.since.is_some() {
            return self.timer.is_some();
        }
        let now = Instant::now();
        let left = self
            .limit
            .map(|limit| now + limit.saturating_sub(self.waited));
        let Some(at) = earliest(left, self.call.deadline()) else {
            return false;
        };
        self.since = Some(now);
        match &mut self.timer {
            Some(timer) => timer.as_mut().reset(at),
            None => self.timer = Some(Box::pin(sleep_until(at))),
        }
        true
    }
}

impl Stream for Idle {
    type Item = Result<Chunk, LlmError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        match Pin::new(&mut this.inner).poll_next(cx) {
            Poll::Ready(Some(Ok(chunk))) => {
                this.stop(&chunk);
                Poll::Ready(Some(Ok(chunk)))
            }
            Poll::Ready(item) => Poll::Ready(item),
            Poll::Pending => {
                if !this.start() {
                    return Poll::Pending;
                }
                if let Some(timer) = &mut this.timer {
                    ready!(timer.as_mut().poll(cx));
                }
                let error = ran_out(&this.shared, &this.call, TimeoutClock::Idle, this.limit);
                Poll::Ready(Some(Err(error)))
            }
        }
    }
}
