//! The preset stack as one type, so that its users do not see which layers it has.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
};

use donjon_core::{Commit, LlmError, LlmRequest, LlmResponse, Snapshot};
use donjon_failover::{Failover, FailoverHandle};
use donjon_retry::{Retry, RetryHandle};
use donjon_timeout::{Deadline, Timeout, TimeoutHandle};
use pin_project_lite::pin_project;
use tower_service::Service;

type Inner<S> = Deadline<Failover<Retry<Timeout<Commit<S>>>>>;

/// The preset stack around the targets of a [`Preset`](crate::Preset): always ready, cheap to clone.
pub struct Stack<S> {
    inner: Inner<S>,
    handles: Arc<Handles>,
}

type Handles = (FailoverHandle, RetryHandle, TimeoutHandle);

impl<S> Stack<S> {
    pub(crate) fn new(inner: Inner<S>, handles: Handles) -> Self {
        Self {
            inner,
            handles: Arc::new(handles),
        }
    }

    /// Reads and controls the targets.
    pub fn failover(&self) -> &FailoverHandle {
        &self.handles.0
    }

    /// Reads and controls the retries.
    pub fn retry(&self) -> &RetryHandle {
        &self.handles.1
    }

    /// Reads the clocks.
    pub fn timeout(&self) -> &TimeoutHandle {
        &self.handles.2
    }

    /// The figures of every layer.
    pub fn snapshots(&self) -> Vec<Arc<dyn Snapshot>> {
        let (failover, retry, timeout) = &*self.handles;
        vec![
            Arc::new(failover.clone()),
            Arc::new(retry.clone()),
            Arc::new(timeout.clone()),
        ]
    }
}

impl<S> Stack<S>
where
    S: Service<LlmRequest, Response = LlmResponse> + Clone,
    S::Error: Into<LlmError>,
{
    /// Calls it, which it is always ready for, without a `&mut`.
    pub fn send(&self, request: LlmRequest) -> StackFuture<S> {
        // A stack is always ready and its clone is one reference count.
        self.clone().call(request)
    }
}

impl<S> Service<LlmRequest> for Stack<S>
where
    S: Service<LlmRequest, Response = LlmResponse> + Clone,
    S::Error: Into<LlmError>,
{
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = StackFuture<S>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), LlmError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: LlmRequest) -> StackFuture<S> {
        StackFuture {
            inner: self.inner.call(request),
        }
    }
}

impl<S> Clone for Stack<S> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            handles: self.handles.clone(),
        }
    }
}

impl<S> fmt::Debug for Stack<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack")
            .field("failover", self.failover())
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// The future of a [`Stack`].
    pub struct StackFuture<S>
    where
        S: Service<LlmRequest, Response = LlmResponse>,
        S: Clone,
        S::Error: Into<LlmError>,
    {
        #[pin]
        inner: <Inner<S> as Service<LlmRequest>>::Future,
    }
}

impl<S> Future for StackFuture<S>
where
    S: Service<LlmRequest, Response = LlmResponse> + Clone,
    S::Error: Into<LlmError>,
{
    type Output = Result<LlmResponse, LlmError>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        self.project().inner.poll(cx)
    }
}

impl<S> fmt::Debug for StackFuture<S>
where
    S: Service<LlmRequest, Response = LlmResponse> + Clone,
    S::Error: Into<LlmError>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StackFuture")
    }
}
