//! The service.

use std::{
    fmt,
    sync::Arc,
    task::{self, Poll},
};

use donjon_core::{LlmError, LlmRequest, LlmResponse};
use tower_service::Service;

use super::{
    future::SemanticFuture,
    shared::{First, Shared},
};

/// A service that answers what was asked before in other words; see the [module](super).
///
/// It is always ready: only a call that it cannot answer needs the service below, a clone of which is
/// readied then.
#[derive(Clone)]
pub struct SemanticService<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> SemanticService<S> {
    pub(super) const fn new(inner: S, shared: Arc<Shared>) -> Self {
        Self { inner, shared }
    }
}

impl<S> Service<LlmRequest> for SemanticService<S>
where
    S: Service<LlmRequest, Response = LlmResponse> + Clone,
    S::Error: Into<LlmError>,
{
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = SemanticFuture<S>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), LlmError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: LlmRequest) -> SemanticFuture<S> {
        match self.shared.begin(&request) {
            First::Answer(given) => SemanticFuture::answered(given),
            First::Pass => {
                request.call.begin();
                SemanticFuture::calling(self.inner.clone(), request, None)
            }
            First::Compare(open) => {
                request.call.begin();
                SemanticFuture::comparing(&self.shared, self.inner.clone(), request, open)
            }
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for SemanticService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SemanticService")
            .field("inner", &self.inner)
            .field("rules", &self.shared.rules)
            .finish_non_exhaustive()
    }
}
