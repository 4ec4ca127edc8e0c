//! What a call costs.

use std::{
    future::{Ready, ready},
    hint::black_box,
    pin::pin,
    task::{Context, Poll, Waker},
};

use donjon_core::{ChatCompletion, Completion, Head, LlmError, LlmRequest, LlmResponse};
use donjon_failover::{Failover, Target};
use tower::Service;

#[derive(Clone)]
struct Leaf(Completion);

impl Service<LlmRequest> for Leaf {
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = Ready<Result<LlmResponse, LlmError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LlmError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: LlmRequest) -> Self::Future {
        ready(Ok(LlmResponse::complete(
            Head::new(request.model().clone()),
            self.0.clone(),
        )))
    }
}

#[test]
fn a_call_that_is_answered_whole_allocates_nothing_but_its_ledger() {
    let leaf = Leaf(ChatCompletion::text("m", "hi").into());
    let targets = ["a", "b", "c"].map(|name| Target::new(name, leaf.clone()).map_model("m", "own"));
    let mut failover = Failover::builder()
        .targets(targets)
        .build()
        .expect("a good configuration");
    // Whatever is made once a thread is made here.
    drop(LlmRequest::chat("m", []));

    let request = LlmRequest::chat("m", []);
    let ledger = allocation_counter::measure(|| {
        let mut request = request.clone();
        request.call.begin();
    });
    assert_eq!(ledger.count_total, 1);

    let fresh = request.clone();
    let mut begun = request.clone();
    begun.call.begin();
    let mut ask = |request: LlmRequest| {
        let mut call = pin!(failover.call(request));
        let answer = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(black_box(answer), Poll::Ready(Ok(_))));
    };
    assert_eq!(allocation_counter::measure(|| ask(fresh)).count_total, 1);
    assert_eq!(allocation_counter::measure(|| ask(begun)).count_total, 0);
}
