//! Pieces of those who call a service once or several times.

use std::{
    fmt,
    pin::Pin,
    task::{self, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep_until};
use tower_service::Service;

use crate::{
    error::LlmError,
    vocab::{Call, LlmRequest, LlmResponse},
};

/// A service of which one instance is readied and a spare is kept: for a driver that passes
/// readiness through and goes on calling after the first call.
#[derive(Debug)]
pub struct Spare<S> {
    inner: S,
}

impl<S> Spare<S> {
    /// Keeps `inner`.
    pub const fn new(inner: S) -> Self {
        Self { inner }
    }

    /// The service, to be readied.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }
}

impl<S: Clone> Spare<S> {
    /// Takes the readied service out and leaves a clone, which is not readied, in its place.
    #[must_use]
    pub fn take(&mut self) -> S {
        let spare = self.inner.clone();
        std::mem::replace(&mut self.inner, spare)
    }
}

/// A clone is not readied.
impl<S: Clone> Clone for Spare<S> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
        }
    }
}

pin_project! {
    /// Readies a service, within the deadline of the call, then calls it; afterwards [`call_again`](Self::call_again) can use the
    /// same service for another request.
    pub struct ReadyCall<S>
    where
        S: Service<LlmRequest>,
    {
        service: S,
        // Made when a call with a deadline has to wait until the service is ready.
        too_late: Option<Pin<Box<Sleep>>>,
        #[pin]
        state: State<S::Future>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Readying { request: Option<LlmRequest> },
        Called { #[pin] future: F },
    }
}

impl<S: Service<LlmRequest>> ReadyCall<S> {
    /// Readies `service`, then calls it with `request`.
    pub const fn new(service: S, request: LlmRequest) -> Self {
        Self {
            service,
            too_late: None,
            state: State::Readying {
                request: Some(request),
            },
        }
    }

    /// Calls `service`, which its caller has readied, with `request`.
    pub fn already_ready(mut service: S, request: LlmRequest) -> Self {
        let future = service.call(request);
        Self {
            service,
            too_late: None,
            state: State::Called { future },
        }
    }

    /// Drops what is left of the last call, and starts over with `request`.
    pub fn call_again(self: Pin<&mut Self>, request: LlmRequest) {
        let mut this = self.project();
        *this.too_late = None;
        this.state.set(State::Readying {
            request: Some(request),
        });
    }

    /// Drops what is left of the last call, which must have resolved, and what it holds, and keeps
    /// the service. Until it is called again it stays pending.
    pub fn rest(self: Pin<&mut Self>) {
        self.project().state.set(State::Readying { request: None });
    }
}

impl<S> Future for ReadyCall<S>
where
    S: Service<LlmRequest, Response = LlmResponse>,
    S::Error: Into<LlmError>,
{
    type Output = Result<LlmResponse, LlmError>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Called { future } => return future.poll(cx).map_err(Into::into),
                StateProj::Readying { request } => {
                    // Nothing to call: it rests.
                    let Some(waiting) = request else {
                        return Poll::Pending;
                    };
                    match this.service.poll_ready(cx) {
                        Poll::Ready(Ok(())) => *this.too_late = None,
                        Poll::Ready(Err(error)) => {
                            *request = None;
                            return Poll::Ready(Err(error.into()));
                        }
                        Poll::Pending => {
                            let Some(deadline) = waiting.call.deadline() else {
                                return Poll::Pending;
                            };
                            let too_late = this
                                .too_late
                                .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
                            ready!(too_late.as_mut().poll(cx));
                            *request = None;
                            return Poll::Ready(Err(Call::deadline_error()));
                        }
                    }
                    if let Some(request) = request.take() {
                        let future = this.service.call(request);
                        this.state.set(State::Called { future });
                    }
                }
            }
        }
    }
}

impl<S: Service<LlmRequest>> fmt::Debug for ReadyCall<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.state {
            State::Readying { .. } => "ReadyCall::Readying",
            State::Called { .. } => "ReadyCall::Called",
        })
    }
}
