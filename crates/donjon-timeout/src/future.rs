//! The clocks of a call until it resolves.

use std::{
    fmt, mem,
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
};

use donjon_core::{
    AttemptRef, Body, ErrorKind, Fold, Head, LlmError, LlmRequest, LlmResponse, ResponseStream,
    TimeoutClock, Until,
};
use futures_core::Stream;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower_service::Service;

use crate::{
    clock::Due,
    guard::{Clocks, Guarded},
    layer::{Place, Shared},
};

/// How the answer comes, and how it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// Whole.
    Whole,
    /// Chunk by chunk.
    Streamed,
    /// Chunk by chunk from below, whole from here.
    Folded,
}

pin_project! {
    /// The future of [`Timeout`](crate::Timeout).
    pub struct TimeoutFuture<F> {
        #[pin]
        state: State<F>,
        // Made on the first wait; a call that is answered at once has none.
        #[pin]
        timer: Option<Sleep>,
        waits_since: Option<Instant>,
        limits: Limits,
        shared: Arc<Shared>,
        attempt: Option<AttemptRef>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        /// The service below has not resolved yet.
        Waiting {
            #[pin]
            future: F,
        },
        /// The answer comes as a stream and is put together here.
        Folding { folding: Box<Folding> },
        Over,
    }
}

struct Folding {
    head: Head,
    fold: Fold,
    stream: ResponseStream,
}

/// What holds for one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    delivered: Delivered,
    place: Place,
    until: Until,
}

impl Limits {
    pub(crate) const fn new(delivered: Delivered, place: Place, until: Until) -> Self {
        Self {
            delivered,
            place,
            until,
        }
    }

    /// When a call that waits since `since` must have resolved. Which clocks run is decided by how
    /// the answer comes from below and goes up from here.
    fn head(self, shared: &Shared, attempt: Option<&AttemptRef>, since: Instant) -> Option<Due> {
        let whole = self.whole(shared, attempt, Some(since));
        if self.delivered == Delivered::Whole {
            return whole;
        }
        let first = shared.at(self.place).first_token;
        Due::earlier(whole, Due::after(since, TimeoutClock::FirstToken, first))
    }

    /// When its whole answer must be there. A call that was not kept waiting waits from now on.
    fn whole(
        self,
        shared: &Shared,
        attempt: Option<&AttemptRef>,
        since: Option<Instant>,
    ) -> Option<Due> {
        Due::earlier(
            Due::deadline(self.until, attempt),
            self.response(shared, since),
        )
    }

    /// The same without the deadline, which may move on.
    fn response(self, shared: &Shared, since: Option<Instant>) -> Option<Due> {
        let response = shared.at(self.place).response;
        if response.is_none() || self.delivered == Delivered::Streamed {
            return None;
        }
        let since = since.unwrap_or_else(Instant::now);
        Due::after(since, TimeoutClock::Response, response)
    }
}

impl<F> TimeoutFuture<F> {
    #[inline]
    pub(crate) fn new<S>(
        service: &mut S,
        shared: &Arc<Shared>,
        limits: Limits,
        request: LlmRequest,
    ) -> Self
    where
        S: Service<LlmRequest, Future = F>,
    {
        let attempt = request.call.attempt().cloned();
        Self {
            state: State::Waiting {
                future: service.call(request),
            },
            timer: None,
            waits_since: None,
            limits,
            shared: shared.clone(),
            attempt,
        }
    }
}

impl<F, E> Future for TimeoutFuture<F>
where
    F: Future<Output = Result<LlmResponse, E>>,
    E: Into<LlmError>,
{
    type Output = Result<LlmResponse, LlmError>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let result = loop {
            match this.state.as_mut().project() {
                // Whatever is there is taken before any clock is looked at.
                StateProj::Waiting { future } => match future.poll(cx).map_err(Into::into) {
                    Poll::Ready(Ok(LlmResponse {
                        head,
                        body: Body::Stream(stream),
                        ..
                    })) => {
                        let clocks = Clocks {
                            idle: this.shared.at(this.limits.place).idle,
                            response: this.limits.response(this.shared, *this.waits_since),
                            until: this.limits.until,
                        };
                        let attempt = this.attempt.take();
                        let stream = Guarded::around(stream, clocks, this.shared, attempt);
                        if this.limits.delivered != Delivered::Folded {
                            break Ok(LlmResponse::stream(head, stream));
                        }
                        let folding = Box::new(Folding::new(head, stream));
                        this.state.set(State::Folding { folding });
                    }
                    Poll::Ready(Ok(whole)) => break Ok(whole),
                    Poll::Ready(Err(error)) => {
                        let kind = error.kind();
                        if kind == ErrorKind::Timeout(TimeoutClock::Connect) {
                            this.shared.counters.count(TimeoutClock::Connect);
                        }
                        break Err(error);
                    }
                    Poll::Pending => {
                        let since = *this.waits_since.get_or_insert_with(Instant::now);
                        let attempt = this.attempt.as_ref();
                        let Some(due) = this.limits.head(this.shared, attempt, since) else {
                            return Poll::Pending;
                        };
                        ready!(poll_timer(this.timer.as_mut(), due.at, cx));
                        let error = this.shared.run_out(&due);
                        let mut drop = || this.state.set(State::Over);
                        match this.attempt {
                            Some(attempt) => attempt.let_go(&error, drop),
                            None => drop(),
                        }
                        break Err(error);
                    }
                },
                StateProj::Folding { folding } => break ready!(folding.poll(cx)),
                StateProj::Over => panic!("polled after completion"),
            }
        };
        // Those further in hear of it before those around do.
        this.state.set(State::Over);
        Poll::Ready(result)
    }
}

impl Folding {
    fn new(head: Head, stream: ResponseStream) -> Self {
        Self {
            head,
            fold: Fold::new(),
            stream,
        }
    }

    /// Puts the answer together. An error in the stream is the call's: nothing was shown yet.
    fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<LlmResponse, LlmError>> {
        while let Some(chunk) = ready!(Pin::new(&mut self.stream).poll_next(cx)) {
            match chunk {
                Ok(chunk) => self.fold.push(&chunk),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        let answer = mem::take(&mut self.fold).finish();
        Poll::Ready(Ok(LlmResponse::complete(self.head.clone(), answer)))
    }
}

impl Shared {
    /// A clock ran out: counts it, and says so.
    #[cold]
    pub(crate) fn run_out(&self, due: &Due) -> LlmError {
        self.counters.count(due.clock);
        due.error()
    }
}

/// Waits for `at`, which may move, but only on. The timer is made when it is first needed, and one
/// that was set for earlier is left as it is until it fires, so that moving the time costs nothing.
pub(crate) fn poll_timer(
    mut timer: Pin<&mut Option<Sleep>>,
    at: Instant,
    cx: &mut task::Context<'_>,
) -> Poll<()> {
    if timer.is_none() {
        timer.set(Some(sleep_until(at)));
    }
    loop {
        let Some(mut sleep) = timer.as_mut().as_pin_mut() else {
            unreachable!("it was made above");
        };
        ready!(sleep.as_mut().poll(cx));
        if sleep.deadline() >= at {
            return Poll::Ready(());
        }
        sleep.reset(at);
    }
}

impl<F> fmt::Debug for TimeoutFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeoutFuture")
            .field("limits", &self.limits)
            .field("waits_since", &self.waits_since)
            .finish_non_exhaustive()
    }
}
