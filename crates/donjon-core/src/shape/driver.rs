//! Pieces of those who call a service once or several times.

use std::{
    fmt,
    pin::Pin,
    task::{self, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_service::Service;

use crate::{
    error::LlmError,
    vocab::{LlmRequest, LlmResponse},
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
    /// Readies a service, then calls it; afterwards [`call_again`](Self::call_again) can use the
    /// same service for another request.
    pub struct ReadyCall<S>
    where
        S: Service<LlmRequest>,
    {
        service: S,
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
            state: State::Called { future },
        }
    }

    /// Drops what is left of the last call, and starts over with `request`.
    pub fn call_again(self: Pin<&mut Self>, request: LlmRequest) {
        self.project().state.set(State::Readying {
            request: Some(request),
        });
    }

    /// Drops what is left of the last call and what it holds, and keeps the service.
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
                    if request.is_none() {
                        return Poll::Pending;
                    }
                    if let Err(error) = ready!(this.service.poll_ready(cx)) {
                        *request = None;
                        return Poll::Ready(Err(error.into()));
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
