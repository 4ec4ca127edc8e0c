//! What the happy path costs.

use std::{
    future::Ready,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use donjon_circuit_breaker::{Adaptive, BreakerBuilder, BreakerLayer, Window};
use donjon_core::{
    AttemptCause, ChatCompletion, Completion, Head, KeyBy, LlmError, LlmRequest, LlmResponse,
};
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
fn an_admitted_call_allocates_nothing() {
    let all = BreakerLayer::builder()
        .window(Window::time(Duration::from_secs(60)))
        .slow_first_token(Duration::from_secs(5))
        .slow_answer(Duration::from_secs(60))
        .consecutive_failures(5)
        .forget_after(Duration::from_secs(60))
        .adaptive(Adaptive::new());
    for builder in [BreakerLayer::builder(), all] {
        assert_eq!(allocations(builder.clone()), 0);
        // The key of a model that is known.
        assert_eq!(allocations(builder.key_by(KeyBy::Model)), 0);
    }
}

/// What a call through both halves of the layer allocates, after the first.
fn allocations(builder: BreakerBuilder) -> u64 {
    let leaf = Leaf {
        head: Head::new("m"),
        answer: ChatCompletion::text("m", "hi").into(),
    };
    let layer = builder.build().expect("sensible");
    let mut service = layer.peek().layer(layer.admit().layer(leaf));
    let mut cx = Context::from_waker(Waker::noop());
    let mut request = request();
    request.call.open_attempt(AttemptCause::First);
    let mut call = || {
        allocation_counter::measure(|| {
            assert!(service.poll_ready(&mut cx).is_ready());
            let call = pin!(service.call(request.clone()));
            assert!(call.poll(&mut cx).is_ready());
        })
        .count_total
    };
    call();
    (0..300).map(|_| call()).sum()
}
