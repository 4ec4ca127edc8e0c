//! The clocks of a stream after its commit point.

use std::{
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
    time::Duration,
};

use donjon_core::{AttemptRef, Chunk, LlmError, ResponseStream, Until};
use futures_core::Stream;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};

use crate::{
    clock::{Due, IdleClock},
    future::poll_timer,
    layer::Shared,
};

/// What is watched.
pub(crate) struct Clocks {
    pub(crate) idle: Option<Duration>,
    /// When a whole answer must be there that is put together here.
    pub(crate) response: Option<Due>,
    pub(crate) until: Until,
}

pin_project! {
    /// A stream that must not be silent for too long, nor go on past the deadline.
    pub(crate) struct Guarded {
        // Let go of as soon as a clock runs out.
        stream: Option<ResponseStream>,
        idle: IdleClock,
        response: Option<Due>,
        until: Until,
        #[pin]
        timer: Option<Sleep>,
        shared: Arc<Shared>,
        attempt: Option<AttemptRef>,
    }
}

impl Guarded {
    /// Puts itself around `stream` if there is anything to watch.
    pub(crate) fn around(
        stream: ResponseStream,
        clocks: Clocks,
        shared: &Arc<Shared>,
        attempt: Option<AttemptRef>,
    ) -> ResponseStream {
        let Clocks {
            idle,
            response,
            until,
        } = clocks;
        let deadline = Due::deadline(until, attempt.as_ref());
        if idle.is_none() && response.is_none() && deadline.is_none() {
            return stream;
        }
        stream.wrap(|stream| Self {
            stream: Some(stream),
            idle: IdleClock::new(idle),
            response,
            until,
            timer: None,
            shared: shared.clone(),
            attempt,
        })
    }
}

impl Stream for Guarded {
    type Item = Result<Chunk, LlmError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Self::Item>> {
        let mut this = self.project();
        let Some(stream) = this.stream else {
            return Poll::Ready(None);
        };
        // Whatever is there is taken before any clock is looked at.
        let due = match Pin::new(&mut *stream).poll_next(cx) {
            Poll::Ready(Some(Ok(chunk))) => {
                if chunk.shows(true) || chunk.finishes() {
                    this.idle.begin_anew();
                } else {
                    this.idle.pause(Instant::now);
                }
                // A stream that is always ready has its end all the same.
                let deadline = Due::deadline(*this.until, this.attempt.as_ref());
                match Due::earlier(deadline, *this.response) {
                    Some(whole) if !stream.is_complete() && whole.at < Instant::now() => whole,
                    _ => return Poll::Ready(Some(Ok(chunk))),
                }
            }
            Poll::Ready(item) => return Poll::Ready(item),
            Poll::Pending => {
                let deadline = Due::deadline(*this.until, this.attempt.as_ref());
                let whole = Due::earlier(deadline, *this.response);
                let Some(due) = Due::earlier(whole, this.idle.run(Instant::now)) else {
                    return Poll::Pending;
                };
                ready!(poll_timer(this.timer.as_mut(), due.at, cx));
                due
            }
        };
        if stream.is_complete() {
            // The answer is there; only its end was waited for.
            *this.stream = None;
            return Poll::Ready(None);
        }
        let error = this.shared.run_out(&due);
        match this.attempt {
            Some(attempt) => attempt.let_go(&error, || *this.stream = None),
            None => *this.stream = None,
        }
        Poll::Ready(Some(Err(error)))
    }
}
