//! The stack costs one ledger and nothing else, and tower's own layers fit in anywhere.

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use donjon::{
    BoxError, BoxLlmService, ChatCompletion, CommitLayer, Completion, ErrorKind, Head, LlmError,
    LlmRequest, LlmResponse, Preset,
    failover::Target,
    retry::{Backoff, RetryBudget, RetryLayer},
};
use donjon_testkit::ScriptedLlm;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

fn answer() -> (Head, Completion) {
    (Head::new("m"), ChatCompletion::text("m", "hi").into())
}

fn preset<S>(total: Option<Duration>) -> Preset<S> {
    match total {
        Some(total) => Preset::new().total_timeout(total),
        None => Preset::new(),
    }
}

fn count(mut stack: impl Service<LlmRequest, Response = LlmResponse>) -> u64 {
    let request = LlmRequest::chat("m", []);
    let mut cx = Context::from_waker(Waker::noop());
    let mut answered = false;
    let counted = allocation_counter::measure(|| {
        answered = stack.poll_ready(&mut cx).is_ready();
        let call = pin!(stack.call(request.clone()));
        answered &= matches!(call.poll(&mut cx), Poll::Ready(Ok(_)));
    });
    assert!(answered);
    counted.count_total
}

#[tokio::test]
async fn a_unary_call_through_the_stack_allocates_its_ledger_and_nothing_else() {
    let (head, completion) = answer();
    let leaf = service_fn(move |_: LlmRequest| {
        let response = LlmResponse::complete(head.clone(), completion.clone());
        std::future::ready(Ok::<_, LlmError>(response))
    });
    for total in [None, Some(Duration::from_secs(60))] {
        let stack = preset(total)
            .target(Target::new("t", leaf.clone()))
            .build()
            .expect("good");
        // Whatever is made once is made.
        stack.send(LlmRequest::chat("m", [])).await.expect("served");
        assert_eq!(count(stack), 1, "the ledger");

        let boxed = BoxLlmService::new(leaf.clone());
        let stack = preset(total)
            .target(Target::new("t", boxed))
            .build()
            .expect("good");
        stack.send(LlmRequest::chat("m", [])).await.expect("served");
        assert_eq!(count(stack), 2, "the ledger, and a box for the erased leaf");
    }
}

#[tokio::test(start_paused = true)]
async fn towers_layers_can_stand_between_ours() {
    let mut left = 2;
    let leaf = service_fn(move |_: LlmRequest| {
        left -= 1;
        let (head, completion) = answer();
        std::future::ready(if left > 0 {
            Err(LlmError::new(ErrorKind::Overloaded, "busy"))
        } else {
            Ok(LlmResponse::complete(head, completion))
        })
    });
    let stack = ServiceBuilder::new()
        .layer(RetryLayer::default())
        .map_err(|error: BoxError| LlmError::from(error))
        .concurrency_limit(1)
        .timeout(Duration::from_secs(5))
        .buffer(4)
        .layer(CommitLayer::new())
        .service(leaf);
    // The kind of error passes through boxes, so retry knows what to do about it.
    let response = stack
        .oneshot(LlmRequest::chat("m", []))
        .await
        .expect("the second attempt");
    assert!(response.completion().is_some());
}

#[tokio::test(start_paused = true)]
async fn retries_stay_within_the_budget_however_many_targets_there_are() {
    let down = ScriptedLlm::new(ErrorKind::ServerError);
    let up = ScriptedLlm::new("served");
    let budget = RetryBudget::builder().reserve(0).build().expect("good");
    let retry = RetryLayer::builder()
        .backoff(Backoff::none())
        .budget(budget);
    let stack = Preset::new()
        .retry(retry.build().expect("good"))
        // An open circuit would let no retry be seen.
        .breaker(None)
        .target(Target::new("down", BoxLlmService::new(down.clone())))
        .target(Target::new("up", BoxLlmService::new(up.clone())))
        .build()
        .expect("good");
    for _ in 0..1000 {
        stack
            .send(LlmRequest::chat("m", []))
            .await
            .expect("the other one serves");
    }
    assert_eq!(up.count(), 1000);
    assert!(
        down.count() > 1100 && down.count() <= 1210,
        "{}",
        down.count()
    );
}
