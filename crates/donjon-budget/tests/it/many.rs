//! L1: many at once.

use donjon_budget::Limit;
use donjon_core::{Key, LlmRequest, Usage};
use donjon_testkit::{Script, ScriptedLlm};
use tokio::task::JoinSet;

use crate::{around, builder, expecting, send, standing, tokens};

/// Every call uses all that it may, so what is admitted is what is spent.
async fn ten_thousand() {
    let model = ScriptedLlm::from_fn(|request: &LlmRequest| {
        let estimate = request.call.estimate.unwrap_or_default();
        Script::answer("hi")
            .usage(Usage::new(estimate.input, estimate.output))
            .yields(1)
    });
    let limit = Limit::hard(tokens(100_000));
    let (service, handle) = around(&model, builder().limit(limit.clone()));
    let mut tasks = JoinSet::new();
    for number in 0..10_000_u64 {
        let service = service.clone();
        tasks.spawn(async move {
            let call = expecting(50, 1 + number * 7_919 % 101);
            send(&service, call).await.is_ok()
        });
    }
    let mut passed = 0;
    while let Some(done) = tasks.join_next().await {
        passed += u64::from(done.expect("no panic"));
    }
    let (spent, reserved) = standing(&handle, &limit, &Key::Global);
    assert_eq!(reserved, tokens(0));
    assert!(spent <= tokens(100_000), "{spent}");
    assert!(spent > tokens(100_000 - 51), "{spent}: room was left");
    assert_eq!((handle.admitted(), handle.settled()), (passed, passed));
    assert_eq!(handle.report().total().cost, spent);
}

#[tokio::test]
async fn ten_thousand_calls_never_pass_a_hard_limit() {
    ten_thousand().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nor_do_they_on_several_threads() {
    ten_thousand().await;
}
