//! Pieces of those who call a service once or several times.

use std::{
    fmt,
    pin::Pin,
    task::{self, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tower_service::Service;

use crate::{
    error::{ErrorKind, LlmError},
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
    /// Readies a service, within the deadline and the patience of the call, then calls it; afterwards [`call_again`](Self::call_again) can use the
    /// same service for another request.
    pub struct ReadyCall<S>
    where
        S: Service<LlmRequest>,
    {
        service: S,
        // Made when a call has to wait until the service is ready.
        limit: Option<Pin<Box<Sleep>>>,
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
            limit: None,
            state: State::Readying {
                request: Some(request),
            },
        }
    }

    /// Keeps `service`, which may have been readied, until it is called. Until then it is pending.
    pub const fn resting(service: S) -> Self {
        Self {
            service,
            limit: None,
            state: State::Readying { request: None },
        }
    }

    /// Calls the service, which has been readied, with `request`.
    #[inline]
    pub fn call_readied(self: Pin<&mut Self>, request: LlmRequest) {
        let mut this = self.project();
        let future = this.service.call(request);
        this.state.set(State::Called { future });
    }

    /// The service: to ready it before [`call_readied`](Self::call_readied), or to clone it.
    #[inline]
    pub fn service(self: Pin<&mut Self>) -> &mut S {
        self.project().service
    }

    /// Lets go of the service that was readied, and of what it holds; a clone, which is not readied,
    /// takes its place.
    pub fn let_go(self: Pin<&mut Self>)
    where
        S: Clone,
    {
        let service = self.project().service;
        let spare = service.clone();
        drop(std::mem::replace(service, spare));
    }

    /// Drops what is left of the last call, and starts over with `request`.
    pub fn call_again(self: Pin<&mut Self>, request: LlmRequest) {
        let mut this = self.project();
        *this.limit = None;
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
                    let error = match this.service.poll_ready(cx) {
                        Poll::Ready(Ok(())) => match this.limit.take() {
                            // It was kept waiting: is there still time to send it?
                            Some(_) if waiting.call.time_left().is_zero() => {
                                Some(Call::deadline_error())
                            }
                            _ => None,
                        },
                        Poll::Ready(Err(error)) => Some(error.into()),
                        Poll::Pending => {
                            if this.limit.is_none() {
                                let longest = waiting.call.longest_wait();
                                // Without a limit it waits as long as it takes.
                                if longest == Duration::MAX {
                                    return Poll::Pending;
                                }
                                *this.limit = Some(Box::pin(sleep(longest)));
                            }
                            if let Some(limit) = this.limit {
                                ready!(limit.as_mut().poll(cx));
                                // The deadline of a call that several share may have moved on.
                                let left = waiting.call.time_left();
                                if waiting.call.is_shared()
                                    && !left.is_zero()
                                    && left <= waiting.call.longest_wait()
                                {
                                    *this.limit = None;
                                    continue;
                                }
                            }
                            Some(not_ready(&waiting.call))
                        }
                    };
                    if let Some(error) = error {
                        if let Some(attempt) = waiting.call.attempt() {
                            attempt.set_unsent();
                        }
                        // Its place in the queue of the service goes with it.
                        *request = None;
                        *this.limit = None;
                        return Poll::Ready(Err(error));
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

fn not_ready(call: &Call) -> LlmError {
    if call.time_left().is_zero() {
        return Call::deadline_error();
    }
    LlmError::new(
        ErrorKind::Unsent,
        "the service was not ready within the call's patience",
    )
}

impl<S: Service<LlmRequest>> fmt::Debug for ReadyCall<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.state {
            State::Readying { .. } => "ReadyCall::Readying",
            State::Called { .. } => "ReadyCall::Called",
        })
    }
}
