//! A stack with hedges, or without.

use std::{
    pin::Pin,
    task::{self, Poll},
};

use donjon_core::{LlmError, LlmRequest, LlmResponse};
use donjon_hedge::{Hedge, HedgeFuture, HedgeLayer};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

/// What makes a second attempt where that is asked for.
#[derive(Clone)]
pub(crate) enum Hedged<S> {
    With(Hedge<S>),
    Without(S),
}

impl<S> Hedged<S> {
    pub(crate) fn new(inner: S, hedge: Option<&HedgeLayer>) -> Self {
        match hedge {
            Some(hedge) => Self::With(hedge.layer(inner)),
            None => Self::Without(inner),
        }
    }
}

impl<S> Service<LlmRequest> for Hedged<S>
where
    S: Service<LlmRequest, Response = LlmResponse, Error = LlmError> + Clone,
{
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = HedgedFuture<S>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), LlmError>> {
        match self {
            Self::With(hedge) => hedge.poll_ready(cx),
            Self::Without(inner) => inner.poll_ready(cx),
        }
    }

    #[inline]
    fn call(&mut self, request: LlmRequest) -> HedgedFuture<S> {
        match self {
            Self::With(hedge) => HedgedFuture::With {
                call: Box::pin(hedge.call(request)),
            },
            Self::Without(inner) => HedgedFuture::Without {
                call: inner.call(request),
            },
        }
    }
}

pin_project! {
    #[project = HedgedProj]
    pub(crate) enum HedgedFuture<S>
    where
        S: Service<LlmRequest>,
    {
        // In a box, so that stacks without hedges have no room for them.
        With {
            call: Pin<Box<HedgeFuture<S>>>,
        },
        Without {
            #[pin]
            call: S::Future,
        },
    }
}

impl<S> Future for HedgedFuture<S>
where
    S: Service<LlmRequest, Response = LlmResponse, Error = LlmError> + Clone,
{
    type Output = Result<LlmResponse, LlmError>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            HedgedProj::With { call } => call.as_mut().poll(cx),
            HedgedProj::Without { call } => call.poll(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use donjon_core::BoxLlmService;
    use donjon_failover::{Failover, FailoverFuture};

    use super::HedgedFuture;

    #[test]
    fn who_asks_for_no_hedges_has_no_room_for_them() {
        let alone = size_of::<FailoverFuture<BoxLlmService>>();
        let hedged = size_of::<HedgedFuture<Failover<BoxLlmService>>>();
        assert!(hedged <= alone + 8, "{hedged} bytes, and {alone} without");
    }
}
