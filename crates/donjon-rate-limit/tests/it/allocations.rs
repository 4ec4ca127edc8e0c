//! What the admitted path costs.

use std::{
    future::Ready,
    pin::pin,
    task::{Context, Poll, Waker},
};

use donjon_core::{
    ChatCompletion, Completion, Estimate, Head, KeyBy, LlmError, LlmRequest, LlmResponse, Usage,
};
use donjon_rate_limit::{Limit, RateLimitBuilder, RateLimitLayer};
use tower::{Layer, Service};

use crate::of_tenant;

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

/// What a call through the layer allocates, once its key is known.
fn allocations(builder: RateLimitBuilder) -> u64 {
    let mut answer = ChatCompletion::text("m", "hi");
    answer.usage = Some(Usage::new(10, 10));
    let leaf = Leaf {
        head: Head::new("m"),
        answer: answer.into(),
    };
    let mut request = of_tenant("acme");
    request.call.estimate = Some(Estimate::new(10, 90));
    // The ledger is the call's and is opened once, by whoever is outermost.
    request.call.begin();
    let mut service = builder.build().expect("sensible").layer(leaf);
    let mut cx = Context::from_waker(Waker::noop());
    let mut call = || {
        assert!(service.poll_ready(&mut cx).is_ready());
        let call = pin!(service.call(request.clone()));
        assert!(call.poll(&mut cx).is_ready());
    };
    call();
    allocation_counter::measure(call).count_total
}

fn four() -> RateLimitBuilder {
    RateLimitLayer::builder()
        .limit(Limit::requests(1_000).per_minute())
        .limit(Limit::tokens(1_000_000).per_minute())
        .limit(Limit::tokens(1_000_000).per_day())
        .limit(Limit::output_tokens(1_000_000).per_minute())
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_admitted_allocates_nothing() {
    assert_eq!(allocations(four()), 0);
    assert_eq!(allocations(four().key_by(KeyBy::Tenant)), 0);
    assert_eq!(allocations(four().key_by(KeyBy::Tenant).for_callers()), 0);
    assert_eq!(allocations(RateLimitLayer::builder().learn(true)), 0);
}
