//! The service.

use std::{
    fmt,
    sync::Arc,
    task::{self, Poll},
};

use donjon_core::{Classify, DefaultTable, LlmError, LlmRequest, LlmResponse, shape::Spare};
use tower_service::Service;

use crate::{future::RetryFuture, layer::Shared};

/// A service that asks again where that can help; see the [crate](crate).
///
/// It passes the readiness of the service below through. The first attempt uses the service that
/// was readied; each further one readies it again.
pub struct Retry<S, C = DefaultTable> {
    inner: Spare<S>,
    shared: Arc<Shared<C>>,
}

impl<S, C> Retry<S, C> {
    pub(crate) fn new(inner: S, shared: Arc<Shared<C>>) -> Self {
        Self {
            inner: Spare::new(inner),
            shared,
        }
    }
}

impl<S, C> Service<LlmRequest> for Retry<S, C>
where
    S: Service<LlmRequest, Response = LlmResponse> + Clone,
    S::Error: Into<LlmError>,
    C: Classify,
{
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = RetryFuture<S, C>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), LlmError>> {
        self.inner.get_mut().poll_ready(cx).map_err(Into::into)
    }

    #[inline]
    fn call(&mut self, request: LlmRequest) -> Self::Future {
        RetryFuture::new(self.inner.take(), self.shared.clone(), request)
    }
}

/// A clone is not readied: that of the service below is not either.
impl<S: Clone, C> Clone for Retry<S, C> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            shared: self.shared.clone(),
        }
    }
}

impl<S: fmt::Debug, C> fmt::Debug for Retry<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry")
            .field("inner", &self.inner)
            .field("policy", &self.shared.policy)
            .finish_non_exhaustive()
    }
}
