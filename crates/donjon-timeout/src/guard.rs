//! The clocks of a stream after its commit point.

use std::{
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
    time::Duration,
};

use donjon_core::{AttemptRef, Chunk, LlmError, ResponseStream};
use futures_core::Stream;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};

use crate::{
    clock::{Due, IdleClock},
    future::poll_timer,
    layer::Shared,
};

pin_project! {
    /// A stream that must not be silent for too long, nor go on past the deadline.
    pub(crate) struct Guarded {
        // Let go of as soon as a clock runs out.
        stream: Option<ResponseStream>,
        idle: IdleClock,
        whole: Option<Due>,
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
        idle: Option<Duration>,
        whole: Option<Due>,
        shared: &Arc<Shared>,
        attempt: Option<AttemptRef>,
    ) -> ResponseStream {
        if idle.is_none() && whole.is_none() {
            return stream;
        }
        stream.wrap(|stream| Self {
            stream: Some(stream),
            idle: IdleClock::new(idle),
            whole,
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
                match this.whole {
                    Some(whole) if !stream.is_complete() && whole.at < Instant::now() => *whole,
                    _ => return Poll::Ready(Some(Ok(chunk))),
                }
            }
            Poll::Ready(item) => return Poll::Ready(item),
            Poll::Pending => {
                let Some(due) = Due::earlier(*this.whole, this.idle.run(Instant::now)) else {
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
