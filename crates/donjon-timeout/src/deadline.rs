//! Setting the deadline of a call.

use std::{
    task::{self, Poll},
    time::Duration,
};

use donjon_core::{LlmError, LlmRequest, LlmResponse};
use tower_layer::Layer;
use tower_service::Service;

use crate::config::{ConfigError, check};

/// Begins a call and sets its deadline, outermost; every wait below, and the
/// [`TimeoutLayer`](crate::TimeoutLayer) of each attempt, enforce it. An earlier deadline stays.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeadlineLayer {
    total: Option<Duration>,
}

impl DeadlineLayer {
    /// Gives each call `total` from its beginning.
    ///
    /// # Errors
    ///
    /// If that is no time at all.
    pub fn new(total: Duration) -> Result<Self, ConfigError> {
        check("total", Some(total))?;
        Ok(Self { total: Some(total) })
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

/// A service whose calls have a deadline.
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
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: LlmRequest) -> S::Future {
        if let Some(total) = self.total {
            request.call.set_timeout(total);
        }
        request.call.begin();
        self.inner.call(request)
    }
}
