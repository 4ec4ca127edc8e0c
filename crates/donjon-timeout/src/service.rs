//! The service.

use std::{
    sync::Arc,
    task::{self, Poll},
};

use donjon_core::{Delivery, LlmError, LlmRequest, LlmResponse};
use tower_service::Service;

use crate::{future::TimeoutFuture, layer::Shared};

/// A service whose calls may take only so long; see the [crate](crate).
#[derive(Clone, Debug)]
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

    fn call(&mut self, mut request: LlmRequest) -> Self::Future {
        if let Some(total) = self.shared.total {
            request.call.set_timeout(total);
        }
        request.call.begin();
        let limits = self.shared.limits(&request);
        let fold = self.shared.unary_over_stream && !request.is_stream();
        if fold {
            request.delivery = Delivery::Stream { usage: true };
        }
        let streamed = request.is_stream();
        let call = request.call.clone();
        let future = self.inner.call(request);
        TimeoutFuture::new(future, self.shared.clone(), call, limits, streamed, fold)
    }
}
