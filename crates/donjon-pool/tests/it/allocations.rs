//! What a call costs that is admitted at once.

use std::{
    future::Ready,
    pin::pin,
    task::{Context, Poll, Waker},
};

use donjon_core::{ChatCompletion, Completion, Head, KeyBy, LlmError, LlmRequest, LlmResponse};
use donjon_pool::{Aimd, Gradient, PoolBuilder, PoolLayer, Profile};
use tower::{Layer, Service};

use crate::{request, sized};

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
fn a_call_that_is_admitted_at_once_allocates_nothing() {
    assert_eq!(allocations(sized(32)), 0);
    // Also where it takes the last slot.
    assert_eq!(allocations(sized(1)), 0);
}

#[test]
fn neither_does_one_with_a_key() {
    assert_eq!(allocations(sized(32).key_by(KeyBy::Model)), 0);
    let profile = Profile::new("m").size(4).model("another");
    assert_eq!(
        allocations(sized(32).key_by(KeyBy::Model).profile(profile)),
        0
    );
}

#[test]
fn neither_does_one_whose_limit_adapts() {
    assert_eq!(allocations(PoolLayer::builder().aimd(Aimd::new())), 0);
    let gradient = PoolLayer::builder().gradient(Gradient::new());
    assert_eq!(allocations(gradient), 0);
}

/// What a thousand calls through the layer allocate, after the first.
fn allocations(builder: PoolBuilder) -> u64 {
    let leaf = Leaf {
        head: Head::new("m"),
        answer: ChatCompletion::text("m", "hi").into(),
    };
    let mut request = request();
    // The ledger is the call's and is opened once, by whoever is outermost.
    request.call.begin();
    let mut service = builder.build().expect("sensible").layer(leaf);
    let mut cx = Context::from_waker(Waker::noop());
    let mut call = || {
        assert!(service.poll_ready(&mut cx).is_ready());
        let call = pin!(service.call(request.clone()));
        assert!(call.poll(&mut cx).is_ready());
    };
    // A key is new once.
    call();
    let counted = allocation_counter::measure(|| (0..1_000).for_each(|_| call()));
    counted.count_total
}
