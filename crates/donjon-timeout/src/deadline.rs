//! Setting the deadline of a call.

use std::{
    fmt,
    pin::Pin,
    task::{self, Poll},
    time::Duration,
};

use donjon_core::{LlmError, LlmRequest, LlmResponse, TimeoutClock};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::timeouts::ConfigError;

/// Begins each call and sets its deadline; an earlier one stays.
///
/// It enforces nothing itself: every wait of the layers inside knows the deadline, and
/// [`TimeoutLayer`](crate::TimeoutLayer) innermost ends what is still running then, so that
/// everybody between hears of a failure and not of a caller who left. Stand it outermost, where the
/// call begins.
#[derive(Clone, Copy, Debug)]
pub struct DeadlineLayer {
    total: Option<Duration>,
}

impl DeadlineLayer {
    /// Gives each call `total` from its beginning.
    ///
    /// # Errors
    ///
    /// A limit of zero.
    pub fn new(total: Duration) -> Result<Self, ConfigError> {
        if total.is_zero() {
            let clock = TimeoutClock::Total;
            return Err(ConfigError::Zero { clock, of: None });
        }
        Ok(Self { total: Some(total) })
    }

    /// Only begins each call, which then has whatever deadline it came with.
    pub const fn unlimited() -> Self {
        Self { total: None }
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline {
            inner,
            total: self.total,
        }
    }
}

/// A service that sets the deadline of each call; see [`DeadlineLayer`].
#[derive(Clone, Debug)]
pub struct Deadline<S> {
    inner: S,
    total: Option<Duration>,
}

impl<S> Service<LlmRequest> for Deadline<S>
where
    S: Service<LlmRequest, Response = LlmResponse>,
    S::Error: Into<LlmError>,
{
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = DeadlineFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), LlmError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: LlmRequest) -> Self::Future {
        request.call.begin();
        if let Some(total) = self.total {
            request.call.set_timeout(total);
        }
        DeadlineFuture {
            future: self.inner.call(request),
        }
    }
}

pin_project! {
    /// The future of [`Deadline`].
    pub struct DeadlineFuture<F> {
        #[pin]
        future: F,
    }
}

impl<F, E> Future for DeadlineFuture<F>
where
    F: Future<Output = Result<LlmResponse, E>>,
    E: Into<LlmError>,
{
    type Output = Result<LlmResponse, LlmError>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        self.project().future.poll(cx).map_err(Into::into)
    }
}

impl<F> fmt::Debug for DeadlineFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeadlineFuture")
    }
}
