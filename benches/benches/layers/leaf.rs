//! The leaf all rows stand on, and the plain request and response of the peers that are generic over them.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

/// A service that answers at once, or wakes itself and is pending once. Its future is no box and holds no timer.
#[derive(Clone)]
pub(crate) struct Leaf<F> {
    answer: F,
    pending: bool,
}

impl<F> Leaf<F> {
    pub(crate) fn new(answer: F, pending: bool) -> Self {
        Self { answer, pending }
    }
}

impl<R, T, E, F> Service<R> for Leaf<F>
where
    F: Fn(R) -> Result<T, E>,
{
    type Response = T;
    type Error = E;
    type Future = Answer<Result<T, E>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), E>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        Answer {
            answer: Some((self.answer)(request)),
            pending: self.pending,
        }
    }
}

/// The leaf's future.
pub(crate) struct Answer<T> {
    answer: Option<T>,
    pending: bool,
}

// Nothing in it is ever pinned.
impl<T> Unpin for Answer<T> {}

impl<T> Future for Answer<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        if std::mem::take(&mut self.pending) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(
            self.answer
                .take()
                .expect("a future is not polled after it was ready"),
        )
    }
}

/// A request of the size and make of a language model call: three shared parts and inline figures, 144 bytes.
#[derive(Clone)]
pub(crate) struct PlainRequest {
    model: Arc<str>,
    prompt: Arc<[u8]>,
    _identity: Arc<u64>,
    _call: [u64; 13],
}

/// A response likewise: two shared parts and inline figures, 96 bytes.
pub(crate) struct PlainResponse {
    _head: Arc<str>,
    _body: Arc<[u8]>,
    _figures: [u64; 8],
}

pub(crate) fn plain_request() -> PlainRequest {
    PlainRequest {
        model: "model".into(),
        prompt: Arc::from(*b"prompt"),
        _identity: Arc::new(1),
        _call: [0; 13],
    }
}

/// The leaf of the generic peers. Its response is made of the request's parts, so that tasks share nothing in it.
pub(crate) fn plain(
    pending: bool,
) -> Leaf<impl Fn(PlainRequest) -> Result<PlainResponse, Infallible> + Clone + Send + Sync + 'static>
{
    let answer = |request: PlainRequest| {
        Ok(PlainResponse {
            _head: request.model,
            _body: request.prompt,
            _figures: [0; 8],
        })
    };
    Leaf::new(answer, pending)
}
