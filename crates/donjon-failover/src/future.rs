//! The future of a call.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
};

use donjon_core::{LlmError, LlmRequest, LlmResponse, Watch, shape::ReadyCall, watch};
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::{course::Course, service::Inner, state::Tally};

pin_project! {
    /// The future of a [`Failover`](crate::Failover).
    pub struct FailoverFuture<S>
    where
        S: Service<LlmRequest>,
    {
        inner: Arc<Inner<S>>,
        course: Course,
        #[pin]
        state: State<S>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S>
    where
        S: Service<LlmRequest>,
    {
        // A target has the call.
        Asking {
            #[pin]
            target: Watch<ReadyCall<S>, Tally>,
        },
        // There is no target to ask.
        Resting {
            error: Option<LlmError>,
        },
    }
}

impl<S> FailoverFuture<S>
where
    S: Service<LlmRequest> + Clone,
{
    pub(crate) fn new(inner: Arc<Inner<S>>, request: LlmRequest) -> Self {
        let mut course = Course::new(&inner.shared, request);
        let state = match course.begin(&inner.shared) {
            Ok(request) => State::ask(&inner, &course, request),
            Err(error) => State::Resting { error: Some(error) },
        };
        Self {
            inner,
            course,
            state,
        }
    }
}

impl<S> State<S>
where
    S: Service<LlmRequest> + Clone,
{
    #[inline]
    fn ask(inner: &Inner<S>, course: &Course, request: LlmRequest) -> Self {
        let place = course.place();
        let call = ReadyCall::new(inner.services[place].clone(), request);
        let tally = Tally::begin(&inner.shared, place);
        Self::Asking {
            target: watch(course.call(), call, tally),
        }
    }
}

impl<S> Future for FailoverFuture<S>
where
    S: Service<LlmRequest, Response = LlmResponse> + Clone,
    S::Error: Into<LlmError>,
{
    type Output = Result<LlmResponse, LlmError>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let shared = &this.inner.shared;
        loop {
            let error = match this.state.as_mut().project() {
                StateProj::Asking { target } => match ready!(target.poll(cx)) {
                    Ok(response) => return Poll::Ready(Ok(this.course.answer(shared, response))),
                    Err(error) => error,
                },
                StateProj::Resting { error } => {
                    return error.take().map_or(Poll::Pending, |e| Poll::Ready(Err(e)));
                }
            };
            // With its end the watch let go of the target, and of what that held.
            match this.course.fail(shared, error) {
                Ok(request) => {
                    let next = State::ask(this.inner, this.course, request);
                    this.state.set(next);
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl<S: Service<LlmRequest>> fmt::Debug for FailoverFuture<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asking = matches!(self.state, State::Asking { .. });
        f.debug_struct("FailoverFuture")
            .field("asking", &asking)
            .finish_non_exhaustive()
    }
}
