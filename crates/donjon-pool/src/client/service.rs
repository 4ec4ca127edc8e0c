//! A service over pooled clients.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use donjon_core::{
    Call, End, ErrorKind, LlmError, LlmRequest, LlmResponse, Observer, Outcome, Watch, watch,
};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tower_service::Service;

use super::{
    ClientPool,
    checkout::{Checkout, Client},
};

/// A service that checks a client of a [`ClientPool`] out for each call, and gives it back when the
/// response ends. A client is discarded whose call ended in a broken connection
/// ([`Connect`](ErrorKind::Connect), [`Transport`](ErrorKind::Transport),
/// [`StreamBroken`](ErrorKind::StreamBroken)), was dropped before its end, or panicked; so is one that was not ready in
/// time.
///
/// It is always ready and waits in the call, no longer than deadline and patience allow.
pub struct Pooled<M, T>
where
    M: Service<T>,
{
    pool: ClientPool<M, T>,
}

impl<M: Service<T>, T> Pooled<M, T> {
    pub(super) const fn new(pool: ClientPool<M, T>) -> Self {
        Self { pool }
    }
}

impl<M, T> Clone for Pooled<M, T>
where
    M: Service<T> + Clone,
    T: Clone,
{
    fn clone(&self) -> Self {
        Self {
            pool: self.pool.clone(),
        }
    }
}

impl<M, T, S> Service<LlmRequest> for Pooled<M, T>
where
    M: Service<T, Response = S> + Clone,
    M::Error: Into<LlmError>,
    T: Clone,
    S: Service<LlmRequest, Response = LlmResponse> + Send + 'static,
    S::Error: Into<LlmError>,
{
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = PooledFuture<M, T, S>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LlmError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: LlmRequest) -> Self::Future {
        request.call.begin();
        PooledFuture {
            request: Some(request),
            limit: None,
            state: State::Checkout {
                checkout: self.pool.checkout(),
            },
        }
    }
}

pin_project! {
    /// The future of a [`Pooled`].
    pub struct PooledFuture<M, T, S>
    where
        M: Service<T, Response = S>,
        S: Service<LlmRequest>,
        S: Send,
        S: 'static,
    {
        request: Option<LlmRequest>,
        // Made when the call has to wait for a client.
        limit: Option<Pin<Box<Sleep>>>,
        #[pin]
        state: State<M, T, S>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<M, T, S>
    where
        M: Service<T, Response = S>,
        S: Service<LlmRequest>,
        S: Send,
        S: 'static,
    {
        Checkout { #[pin] checkout: Checkout<M, T> },
        Readying { client: Readied<S> },
        Called { #[pin] watch: Watch<S::Future, InUse<S>> },
    }
}

impl<M, T, S> Future for PooledFuture<M, T, S>
where
    M: Service<T, Response = S>,
    M::Error: Into<LlmError>,
    S: Service<LlmRequest, Response = LlmResponse> + Send + 'static,
    S::Error: Into<LlmError>,
{
    type Output = Result<LlmResponse, LlmError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Called { watch } => return watch.poll(cx),
                StateProj::Checkout { checkout } => match checkout.poll(cx) {
                    Poll::Ready(Ok(client)) => State::Readying {
                        client: Readied(Some(client)),
                    },
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                    Poll::Pending => {
                        ready!(poll_limit(this.limit, this.request.as_ref(), cx));
                        return Poll::Ready(Err(gave_up(this.request.take())));
                    }
                },
                StateProj::Readying { client: place } => {
                    let client = place.0.as_mut().expect("polled after completion");
                    match client.poll_ready(cx) {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(error)) => {
                            place.discard();
                            return Poll::Ready(Err(error.into()));
                        }
                        Poll::Pending => {
                            ready!(poll_limit(this.limit, this.request.as_ref(), cx));
                            place.discard();
                            return Poll::Ready(Err(gave_up(this.request.take())));
                        }
                    }
                    *this.limit = None;
                    let request = this.request.take().expect("polled after completion");
                    let call = request.call.clone();
                    let future = client.call(request);
                    let client = InUse(place.0.take());
                    State::Called {
                        watch: watch(&call, future, client),
                    }
                }
            };
            this.state.set(next);
        }
    }
}

/// Waits until the call may not wait any longer.
fn poll_limit(
    limit: &mut Option<Pin<Box<Sleep>>>,
    request: Option<&LlmRequest>,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let longest = request.map_or(Duration::MAX, |request| request.call.longest_wait());
    if limit.is_none() && longest == Duration::MAX {
        return Poll::Pending;
    }
    let limit = limit.get_or_insert_with(|| Box::pin(sleep(longest)));
    limit.as_mut().poll(cx)
}

fn gave_up(request: Option<LlmRequest>) -> LlmError {
    if let Some(request) = request {
        if let Some(attempt) = request.call.attempt() {
            attempt.set_unsent();
        }
        if request.call.time_left().is_zero() {
            return Call::deadline_error();
        }
    }
    LlmError::new(
        ErrorKind::QueueFull,
        "no client was free within the call's patience",
    )
}

/// A client that is being readied. If it is not called it is discarded: among the idle ones it would
/// sit on what it reserved, and one whose readiness failed is never ready again.
struct Readied<S>(Option<Client<S>>);

impl<S> Readied<S> {
    fn discard(&mut self) {
        if let Some(client) = self.0.take() {
            client.discard();
        }
    }
}

impl<S> Drop for Readied<S> {
    fn drop(&mut self) {
        self.discard();
    }
}

/// A client in use.
struct InUse<S>(Option<Client<S>>);

impl<S: Send + 'static> Observer for InUse<S> {
    fn end(&mut self, end: &End<'_>) {
        let broken = match end.outcome {
            Outcome::Success => false,
            Outcome::Failure(error) => matches!(
                error.kind(),
                ErrorKind::Connect
                    | ErrorKind::Transport
                    | ErrorKind::StreamBroken
                    | ErrorKind::Timeout(_)
            ),
            Outcome::Cancelled { .. } => true,
        };
        match self.0.take() {
            Some(client) if broken => client.discard(),
            client => drop(client),
        }
    }
}

impl<M: Service<T>, T> fmt::Debug for Pooled<M, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pooled").field("pool", &self.pool).finish()
    }
}

impl<M, T, S> fmt::Debug for PooledFuture<M, T, S>
where
    M: Service<T, Response = S>,
    S: Service<LlmRequest> + Send + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.state {
            State::Checkout { .. } => "PooledFuture::Checkout",
            State::Readying { .. } => "PooledFuture::Readying",
            State::Called { .. } => "PooledFuture::Called",
        })
    }
}
