//! What the happy path costs.

use std::{
    future::Ready,
    pin::pin,
    task::{Context, Poll, Waker},
};

use donjon_core::{
    AttemptCause, ChatCompletion, Completion, Head, LlmError, LlmRequest, LlmResponse,
};
use donjon_retry::RetryLayer;
use tower::{Layer, Service};

use crate::request;

/// Answers at once, with what was made before.
#[derive(Clone)]
struct Leaf {
    head: Head,
    answer: Completion,
}

impl Service<LlmRequest> for Leaf {
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = Ready<Result<LlmResponse, LlmError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LlmError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: LlmRequest) -> Self::Future {
        let answer = LlmResponse::complete(self.head.clone(), self.answer.clone());
        std::future::ready(Ok(answer))
    }
}

#[test]
fn a_call_that_succeeds_at_once_allocates_nothing() {
    let mut request = request();
    // The ledger is the call's and is opened once, by whoever is outermost.
    request.call.begin();
    assert_eq!(allocations(&request), 0);
}

/// So does one whose target stands in a group of targets.
#[test]
fn neither_does_the_first_target_of_a_group() {
    let mut request = request();
    request.call.open_attempt(AttemptCause::First);
    request.call.open_attempt(AttemptCause::First);
    assert_eq!(allocations(&request), 0);
}

/// What a call through the layer allocates.
fn allocations(request: &LlmRequest) -> u64 {
    let leaf = Leaf {
        head: Head::new("m"),
        answer: ChatCompletion::text("m", "hi").into(),
    };
    let mut service = RetryLayer::default().layer(leaf);
    let mut cx = Context::from_waker(Waker::noop());
    let counted = allocation_counter::measure(|| {
        assert!(service.poll_ready(&mut cx).is_ready());
        let call = pin!(service.call(request.clone()));
        assert!(call.poll(&mut cx).is_ready());
    });
    counted.count_total
}
