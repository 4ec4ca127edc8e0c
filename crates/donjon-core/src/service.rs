//! The bound of every service here in one word, and its erased form.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
};

use tower_service::Service;

use crate::{
    error::LlmError,
    shape::ReadyCall,
    vocab::{LlmRequest, LlmResponse},
};

/// A service that calls a language model: `Service<LlmRequest, Response = LlmResponse>` whose error
/// turns into an [`LlmError`]. Implemented by whatever is that.
pub trait LlmService:
    Service<LlmRequest, Response = LlmResponse, Error = <Self as LlmService>::Fault>
{
    /// Its error.
    type Fault: Into<LlmError>;
}

impl<S> LlmService for S
where
    S: Service<LlmRequest, Response = LlmResponse>,
    S::Error: Into<LlmError>,
{
    type Fault = S::Error;
}

/// The future of a [`BoxLlmService`].
pub type BoxLlmFuture = Pin<Box<dyn Future<Output = Result<LlmResponse, LlmError>> + Send>>;

/// Any [`LlmService`] behind one type.
///
/// It shares a prototype, so cloning allocates nothing; each call clones the prototype, readies the
/// clone and calls it, in one box. It is always ready, and `Sync`.
#[derive(Clone)]
pub struct BoxLlmService {
    prototype: Arc<dyn Prototype>,
}

trait Prototype: Send + Sync {
    fn call(&self, request: LlmRequest) -> BoxLlmFuture;
}

impl<S> Prototype for S
where
    S: LlmService + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    fn call(&self, request: LlmRequest) -> BoxLlmFuture {
        Box::pin(ReadyCall::new(self.clone(), request))
    }
}

impl BoxLlmService {
    /// Erases the type of `service`.
    pub fn new<S>(service: S) -> Self
    where
        S: LlmService + Clone + Send + Sync + 'static,
        S::Future: Send,
    {
        Self {
            prototype: Arc::new(service),
        }
    }
}

impl Service<LlmRequest> for BoxLlmService {
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = BoxLlmFuture;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), LlmError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: LlmRequest) -> BoxLlmFuture {
        self.prototype.call(request)
    }
}

impl fmt::Debug for BoxLlmService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoxLlmService")
    }
}
