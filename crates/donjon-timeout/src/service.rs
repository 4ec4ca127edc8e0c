//! The service.

use std::{
    fmt,
    sync::Arc,
    task::{self, Poll},
};

use donjon_core::{AttemptCause, Delivery, LlmError, LlmRequest, LlmResponse, Operation};
use tower_service::Service;

use crate::{
    future::{Delivered, Limits, TimeoutFuture},
    layer::Shared,
};

/// A service that limits how long the parts of a call may take; see the [crate](crate). It passes
/// the readiness of the service below through.
#[derive(Clone)]
pub struct Timeout<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> Timeout<S> {
    pub(crate) const fn new(inner: S, shared: Arc<Shared>) -> Self {
        Self { inner, shared }
    }
}

impl<S> Service<LlmRequest> for Timeout<S>
where
    S: Service<LlmRequest, Response = LlmResponse>,
    S::Error: Into<LlmError>,
{
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = TimeoutFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), LlmError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    #[inline]
    fn call(&mut self, mut request: LlmRequest) -> Self::Future {
        let place = self.shared.of(&request);
        let timeouts = self.shared.at(place);
        // Who watches this attempt from further in is told through it why it ends.
        if request.call.attempt().is_none() {
            request.call.open_attempt(AttemptCause::First);
        }
        if let Some(total) = timeouts.total {
            request.call.set_timeout(total);
        }
        let delivered = if request.is_stream() {
            Delivered::Streamed
        } else if timeouts.unary_over_stream && request.operation() == Operation::Chat {
            request.delivery = Delivery::Stream { usage: true };
            Delivered::Folded
        } else {
            Delivered::Whole
        };
        let limits = Limits::new(delivered, place, request.call.until());
        TimeoutFuture::new(&mut self.inner, &self.shared, limits, request)
    }
}

impl<S: fmt::Debug> fmt::Debug for Timeout<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timeout")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}
