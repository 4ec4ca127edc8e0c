//! Admits or rejects, never waits.

use std::{
    fmt,
    pin::Pin,
    task::{self, Poll},
};

use pin_project_lite::pin_project;
use tower_service::Service;

use crate::{
    error::LlmError,
    observe::{Context, Observer},
    vocab::{LlmRequest, LlmResponse},
    watch::Watch,
};

/// Admits a request or rejects it, at once.
///
/// A rejected call leaves the readied service below as it is: without a clone nothing can take its
/// place. Over a service that holds something while it is ready, use a [`Gate`](super::Gate).
pub trait Check {
    /// What is held for an admitted call until its end.
    type Permit: Observer;

    /// Admits `request`, or says why not. `None`: nothing is held for it, and it is not watched.
    ///
    /// # Errors
    ///
    /// The error that the call is answered with.
    fn check(&self, request: &mut LlmRequest) -> Result<Option<Self::Permit>, LlmError>;
}

/// Without a check every call is admitted.
impl<C: Check> Check for Option<C> {
    type Permit = C::Permit;

    #[inline]
    fn check(&self, request: &mut LlmRequest) -> Result<Option<C::Permit>, LlmError> {
        match self {
            Some(check) => check.check(request),
            None => Ok(None),
        }
    }
}

/// A service behind a [`Check`].
#[derive(Clone, Debug)]
pub struct CheckService<S, C> {
    inner: S,
    check: C,
}

impl<S, C> CheckService<S, C> {
    /// Puts `check` before `inner`.
    pub const fn new(inner: S, check: C) -> Self {
        Self { inner, check }
    }
}

impl<S, C> Service<LlmRequest> for CheckService<S, C>
where
    S: Service<LlmRequest, Response = LlmResponse>,
    S::Error: Into<LlmError>,
    C: Check,
{
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = CheckFuture<S::Future, C::Permit>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), LlmError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    #[inline]
    fn call(&mut self, mut request: LlmRequest) -> Self::Future {
        request.call.begin();
        match self.check.check(&mut request) {
            Ok(None) => CheckFuture {
                state: State::Passed {
                    future: self.inner.call(request),
                },
            },
            Ok(Some(permit)) => {
                // The context is taken before the request goes in.
                let context = Context::of(&request.call);
                CheckFuture {
                    state: State::Admitted {
                        watch: Watch::in_context(context, self.inner.call(request), permit),
                    },
                }
            }
            Err(error) => CheckFuture {
                state: State::Rejected { error: Some(error) },
            },
        }
    }
}

pin_project! {
    /// The future of a [`CheckService`].
    pub struct CheckFuture<F, P>
    where
        P: Observer,
    {
        #[pin]
        state: State<F, P>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, P>
    where
        P: Observer,
    {
        Admitted {
            #[pin]
            watch: Watch<F, P>,
        },
        // Admitted, and nothing is held.
        Passed {
            #[pin]
            future: F,
        },
        Rejected {
            error: Option<LlmError>,
        },
    }
}

impl<F, E, P> Future for CheckFuture<F, P>
where
    F: Future<Output = Result<LlmResponse, E>>,
    E: Into<LlmError>,
    P: Observer,
{
    type Output = Result<LlmResponse, LlmError>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Admitted { watch } => watch.poll(cx),
            StateProj::Passed { future } => future.poll(cx).map_err(Into::into),
            StateProj::Rejected { error } => match error.take() {
                Some(error) => Poll::Ready(Err(error)),
                None => panic!("polled after completion"),
            },
        }
    }
}

impl<F, P: Observer> fmt::Debug for CheckFuture<F, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let admitted = !matches!(self.state, State::Rejected { .. });
        f.debug_struct("CheckFuture")
            .field("admitted", &admitted)
            .finish_non_exhaustive()
    }
}
