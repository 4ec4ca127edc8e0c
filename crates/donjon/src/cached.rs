//! A stack with a cache, or without.

use std::{
    pin::Pin,
    task::{self, Poll},
};

use donjon_cache::{CacheFuture, CacheLayer, CacheService};
use donjon_core::{LlmError, LlmRequest, LlmResponse};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

/// What answers from a cache where there is one.
#[derive(Clone)]
pub(crate) enum Cached<S> {
    With(CacheService<S>),
    Without(S),
}

impl<S> Cached<S> {
    pub(crate) fn new(inner: S, cache: Option<&CacheLayer>) -> Self {
        match cache {
            Some(cache) => Self::With(cache.layer(inner)),
            None => Self::Without(inner),
        }
    }
}

impl<S> Service<LlmRequest> for Cached<S>
where
    S: Service<LlmRequest, Response = LlmResponse, Error = LlmError> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = CachedFuture<S>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), LlmError>> {
        match self {
            Self::With(cache) => cache.poll_ready(cx),
            Self::Without(inner) => inner.poll_ready(cx),
        }
    }

    #[inline]
    fn call(&mut self, request: LlmRequest) -> CachedFuture<S> {
        match self {
            Self::With(cache) => CachedFuture::With {
                call: cache.call(request),
            },
            Self::Without(inner) => CachedFuture::Without {
                call: inner.call(request),
            },
        }
    }
}

pin_project! {
    #[project = CachedProj]
    pub(crate) enum CachedFuture<S>
    where
        S: Service<LlmRequest, Response = LlmResponse, Error = LlmError>,
    {
        With {
            #[pin]
            call: CacheFuture<S>,
        },
        Without {
            #[pin]
            call: S::Future,
        },
    }
}

impl<S> Future for CachedFuture<S>
where
    S: Service<LlmRequest, Response = LlmResponse, Error = LlmError> + Clone + Send + 'static,
    S::Future: Send,
{
    type Output = Result<LlmResponse, LlmError>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            CachedProj::With { call } => call.poll(cx),
            CachedProj::Without { call } => call.poll(cx),
        }
    }
}
