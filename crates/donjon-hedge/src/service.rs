//! The service.

use std::{
    fmt,
    sync::Arc,
    task::{self, Poll},
};

use donjon_core::{LlmError, LlmRequest, LlmResponse};
use tower_service::Service;

use crate::{future::HedgeFuture, layer::Shared};

/// A service that makes a second attempt when the first is late; see the [crate](crate).
///
/// It is always ready, and readies a clone of the service below for each attempt.
pub struct Hedge<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> Hedge<S> {
    pub(crate) const fn new(inner: S, shared: Arc<Shared>) -> Self {
        Self { inner, shared }
    }
}

impl<S> Service<LlmRequest> for Hedge<S>
where
    S: Service<LlmRequest, Response = LlmResponse> + Clone,
    S::Error: Into<LlmError>,
{
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = HedgeFuture<S>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), LlmError>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: LlmRequest) -> Self::Future {
        HedgeFuture::new(self.inner.clone(), self.shared.clone(), request)
    }
}

impl<S: Clone> Clone for Hedge<S> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            shared: self.shared.clone(),
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for Hedge<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hedge")
            .field("inner", &self.inner)
            .field("policy", &self.shared.policy)
            .finish_non_exhaustive()
    }
}
