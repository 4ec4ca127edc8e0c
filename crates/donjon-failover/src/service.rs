//! The service.

use std::{
    fmt,
    sync::Arc,
    task::{self, Poll},
};

use donjon_core::{LlmError, LlmRequest, LlmResponse};
use tower_service::Service;

use crate::{
    builder::FailoverBuilder, future::FailoverFuture, handle::FailoverHandle, state::Shared,
};

/// Asks one target after another until one serves; see the [crate](crate).
///
/// It is always ready, and readies only the target that it asks, a clone made for the call. Clones
/// share the targets, their figures and switches. It can be sent to another thread if `S` is `Sync`,
/// as most services are; [`BoxLlmService`](donjon_core::BoxLlmService) is, and makes targets of
/// different types one.
pub struct Failover<S> {
    inner: Arc<Inner<S>>,
}

pub(crate) struct Inner<S> {
    pub(crate) shared: Arc<Shared>,
    /// By place.
    pub(crate) services: Box<[S]>,
}

impl<S> Failover<S> {
    /// Starts with no target.
    pub fn builder() -> FailoverBuilder<S> {
        FailoverBuilder::new()
    }

    pub(crate) fn new(shared: Arc<Shared>, services: Box<[S]>) -> Self {
        Self {
            inner: Arc::new(Inner { shared, services }),
        }
    }

    /// Reads and controls it.
    pub fn handle(&self) -> FailoverHandle {
        FailoverHandle::new(self.inner.shared.clone())
    }
}

impl<S> Service<LlmRequest> for Failover<S>
where
    S: Service<LlmRequest, Response = LlmResponse> + Clone,
    S::Error: Into<LlmError>,
{
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = FailoverFuture<S>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), LlmError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: LlmRequest) -> Self::Future {
        FailoverFuture::new(self.inner.clone(), request)
    }
}

impl<S> Clone for Failover<S> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
        }
    }
}

impl<S> fmt::Debug for Failover<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failover")
            .field("targets", &self.inner.shared.targets)
            .finish_non_exhaustive()
    }
}
