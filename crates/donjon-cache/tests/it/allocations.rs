//! What a hit and a miss cost.

use std::{
    future::Ready,
    pin::pin,
    task::{Context, Poll, Waker},
};

use donjon_core::{ChatCompletion, Completion, Head, LlmError, LlmRequest, LlmResponse};
use tower::{Layer, Service};

use crate::{ask, plain};

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

fn allocations(
    service: &mut impl Service<LlmRequest, Response = LlmResponse>,
    request: LlmRequest,
) -> u64 {
    let mut cx = Context::from_waker(Waker::noop());
    let counted = allocation_counter::measure(|| {
        assert!(service.poll_ready(&mut cx).is_ready());
        let call = pin!(service.call(request.clone()));
        assert!(call.poll(&mut cx).is_ready());
    });
    counted.count_total
}

fn service() -> impl Service<LlmRequest, Response = LlmResponse> {
    with(plain())
}

fn with(builder: donjon_cache::CacheBuilder) -> impl Service<LlmRequest, Response = LlmResponse> {
    let leaf = Leaf {
        head: Head::new("m"),
        answer: ChatCompletion::text("m", "hi").into(),
    };
    builder.build().expect("sensible").layer(leaf)
}

#[test]
fn a_hit_allocates_nothing() {
    let mut service = service();
    let mut long = ask(&"Hi ".repeat(50_000));
    let chat = long.edit_chat().expect("a chat");
    chat.temperature = Some(0.5);
    for request in [ask("Hi"), long] {
        allocations(&mut service, request.clone());
        assert_eq!(allocations(&mut service, request), 0);
    }
}

/// A miss allocates what is kept, and the ledger of the call; where others may join it, the call too.
#[test]
fn a_miss_allocates_what_is_kept() {
    for (builder, most) in [(plain().single_flight(None), 4), (plain(), 7)] {
        let mut service = with(builder);
        for n in 0..100 {
            allocations(&mut service, ask(&n.to_string()));
        }
        let counted = allocations(&mut service, ask("Hi"));
        assert!(counted <= most, "{counted}");
    }
}
