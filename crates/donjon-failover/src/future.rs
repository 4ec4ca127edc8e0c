//! The future of a call.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
};

use donjon_core::{LlmError, LlmRequest, LlmResponse, shape::ReadyCall};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_service::Service;

use crate::{
    course::{Course, Step},
    service::Inner,
    state::Tally,
};

pin_project! {
    /// The future of a [`Failover`](crate::Failover).
    ///
    /// It goes round: a target is chosen, readied and called; it fails, and the next is chosen.
    pub struct FailoverFuture<S>
    where
        S: Service<LlmRequest>,
    {
        inner: Arc<Inner<S>>,
        course: Course,
        // Since when the target keeps it waiting.
        since: Option<Instant>,
        #[pin]
        state: State<S>,
    }

    impl<S> PinnedDrop for FailoverFuture<S>
    where
        S: Service<LlmRequest>,
    {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if matches!(*this.state, State::Readying { .. } | State::Called { .. }) {
                // The target is let go of, and those further in hear the end, first.
                this.state.set(State::Resting);
                let figures = this.course.figures(&this.inner.shared);
                let call = this.course.call();
                call.tell_drop(*this.since, |outcome| figures.end(outcome));
            }
        }
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S>
    where
        S: Service<LlmRequest>,
    {
        // It was not polled yet.
        SettingOut,
        // The target was not ready at once.
        Readying {
            #[pin]
            target: ReadyCall<S>,
        },
        // The target has the call.
        Called {
            #[pin]
            future: S::Future,
        },
        // It could not be readied.
        Unready { error: Option<LlmError> },
        // It is over, or about to go on.
        Resting,
    }
}

impl<S> FailoverFuture<S>
where
    S: Service<LlmRequest>,
{
    #[inline]
    pub(crate) fn new(inner: Arc<Inner<S>>, request: LlmRequest) -> Self {
        Self {
            course: Course::new(&inner.shared, request),
            since: None,
            state: State::SettingOut,
            inner,
        }
    }
}

impl<S> FailoverFuture<S>
where
    S: Service<LlmRequest, Response = LlmResponse> + Clone,
    S::Error: Into<LlmError>,
{
    /// Readies a clone of the target that was chosen, and calls it.
    #[inline]
    fn ask(self: Pin<&mut Self>, cx: &mut task::Context<'_>) {
        let mut this = self.project();
        let shared = &this.inner.shared;
        let mut service = this.inner.services[this.course.place()].clone();
        let ready = service.poll_ready(cx);
        let Some(request) = this.course.request(shared) else {
            unreachable!("a target is chosen only while there is a request for it");
        };
        match ready {
            Poll::Ready(Ok(())) => {
                let future = service.call(request);
                // Once there is something whose end will be heard, whatever panics.
                this.course.figures(shared).begin();
                this.state.set(State::Called { future });
            }
            Poll::Pending => {
                let target = ReadyCall::new(service, request);
                this.course.figures(shared).begin();
                this.state.set(State::Readying { target });
            }
            Poll::Ready(Err(error)) => {
                if let Some(attempt) = request.call.attempt() {
                    attempt.set_unsent();
                }
                let error = Some(error.into());
                this.course.figures(shared).begin();
                this.state.set(State::Unready { error });
            }
        }
    }

    /// The target that was asked has answered. It is let go of, with what it holds, before anybody
    /// hears of the end.
    #[inline]
    fn answered(self: Pin<&mut Self>, mut response: LlmResponse) -> LlmResponse {
        let mut this = self.project();
        this.state.set(State::Resting);
        let shared = &this.inner.shared;
        this.course.answer(shared, &mut response.head);
        if !response.is_stream() {
            this.course.figures(shared).succeed();
            return response;
        }
        let tally = Tally::new(shared.clone(), this.course.place());
        this.course.call().observe(response, *this.since, tally)
    }

    /// The target that was asked has failed, and another is chosen if one may be asked.
    fn failed(self: Pin<&mut Self>, error: LlmError) -> Step {
        let mut this = self.project();
        this.state.set(State::Resting);
        let shared = &this.inner.shared;
        this.course.figures(shared).fail(&error);
        *this.since = None;
        this.course.fail(shared, error)
    }
}

impl<S> Future for FailoverFuture<S>
where
    S: Service<LlmRequest, Response = LlmResponse> + Clone,
    S::Error: Into<LlmError>,
{
    type Output = Result<LlmResponse, LlmError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        loop {
            let mut this = self.as_mut().project();
            let error = match this.state.as_mut().project() {
                StateProj::Called { future } => match future.poll(cx) {
                    Poll::Ready(Ok(response)) => return Poll::Ready(Ok(self.answered(response))),
                    Poll::Ready(Err(error)) => error.into(),
                    Poll::Pending => return self.waits(),
                },
                StateProj::SettingOut => {
                    let step = this.course.begin(&this.inner.shared);
                    if let Err(error) = step {
                        this.state.set(State::Resting);
                        return Poll::Ready(Err(error));
                    }
                    self.as_mut().ask(cx);
                    continue;
                }
                StateProj::Readying { target } => match target.poll(cx) {
                    Poll::Ready(Ok(response)) => return Poll::Ready(Ok(self.answered(response))),
                    Poll::Ready(Err(error)) => error,
                    Poll::Pending => return self.waits(),
                },
                StateProj::Unready { error } => error.take().expect(OVER),
                StateProj::Resting => panic!("{OVER}"),
            };
            if let Err(error) = self.as_mut().failed(error) {
                return Poll::Ready(Err(error));
            }
            self.as_mut().ask(cx);
        }
    }
}

const OVER: &str = "polled after completion";

impl<S: Service<LlmRequest>> FailoverFuture<S> {
    fn waits<T>(self: Pin<&mut Self>) -> Poll<T> {
        self.project().since.get_or_insert_with(Instant::now);
        Poll::Pending
    }
}

impl<S: Service<LlmRequest>> fmt::Debug for FailoverFuture<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asking = matches!(self.state, State::Readying { .. } | State::Called { .. });
        f.debug_struct("FailoverFuture")
            .field("asking", &asking)
            .finish_non_exhaustive()
    }
}
