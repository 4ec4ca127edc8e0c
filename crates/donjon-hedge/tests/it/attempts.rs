//! Never more attempts than the call may make.

use donjon_core::{AttemptCause, ErrorKind, LlmRequest};
use donjon_hedge::Suppressed;
use donjon_testkit::ScriptedLlm;
use tower::Layer;

use crate::{SECOND, after_a_second, around, ask, failing, layer, plays, request, slow};

fn capped(most: u32) -> LlmRequest {
    let mut request = request();
    request.call.begin().limit_attempts(most);
    request
}

#[tokio::test(start_paused = true)]
async fn a_cap_of_one_leaves_none_for_a_hedge() {
    for script in [slow("late", 5 * SECOND), failing(SECOND / 2)] {
        let model = plays([script]);
        let built = layer(after_a_second());
        let _ = ask(&built.layer(model.clone()), capped(1)).await;
        assert_eq!(model.count(), 1);
        assert_eq!(built.handle().suppressed(Suppressed::Attempts), 1);
        assert!(
            (built.handle().balance() - 10.0).abs() < 0.1,
            "it was not spent"
        );
    }
    let model = plays([slow("late", 5 * SECOND)]);
    ask(&around(&model), capped(2)).await.expect("an answer");
    assert_eq!(model.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_others_may_need_is_left_to_them() {
    let model = ScriptedLlm::new(slow("late", 5 * SECOND)).commits();
    let mut request = capped(3);
    // A failover around it has two other targets.
    request.call.begin().set_targets(3);
    request
        .call
        .open_attempt(AttemptCause::First)
        .set_target("outer".into());
    ask(&around(&model), request).await.expect("an answer");
    assert_eq!(model.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn attempts_are_of_the_target_that_the_call_came_for() {
    let model = ScriptedLlm::new(slow("late", 5 * SECOND)).commits();
    let mut request = request();
    let attempt = request.call.open_attempt(AttemptCause::First);
    attempt.set_target("outer".into());
    attempt.set_model(&"its model".into());
    let ledger = request.call.begin().clone();
    ask(&around(&model), request).await.expect("an answer");
    let all: Vec<_> = ledger.attempts().collect();
    assert_eq!(
        all.len(),
        3,
        "that which it came with, the first, the hedge"
    );
    assert!(all.iter().all(|a| a.target.is_some_and(|t| &*t == "outer")));
    assert!(all.iter().all(|a| a.model.as_deref() == Some("its model")));
    assert_eq!(all[0].sent_at, None);
    assert_eq!(all[0].dropped, None, "it is not ours to say");
    assert_eq!(ledger.sent(), 2);
}

/// What is reserved and never sent is there for others again.
#[tokio::test(start_paused = true)]
async fn a_hedge_that_is_refused_before_it_is_sent_uses_up_nothing() {
    let refused = donjon_testkit::Script::fail(ErrorKind::CircuitOpen);
    let model = plays([slow("late", 5 * SECOND), refused]);
    let built = layer(after_a_second().burst(1).budget(0.001));
    let mut request = capped(2);
    let ledger = request.call.begin().clone();
    ask(&built.layer(model.clone()), request)
        .await
        .expect("an answer");
    assert_eq!((model.count(), ledger.sent()), (2, 1));
    assert!(ledger.may_fail_over());
    assert!(built.handle().balance() >= 1.0, "it was given back");
}

/// So is one that was not sent when the first had answered.
#[tokio::test(start_paused = true)]
async fn a_hedge_that_waits_for_its_turn_until_the_first_has_won_uses_up_nothing() {
    let model = plays([slow("late", 5 * SECOND)]).with_capacity(1);
    let built = layer(after_a_second().burst(1).budget(0.001));
    let mut request = capped(2);
    let ledger = request.call.begin().clone();
    ask(&built.layer(model.clone()), request)
        .await
        .expect("an answer");
    assert_eq!(
        (built.handle().hedges(), model.count(), ledger.sent()),
        (1, 1, 1)
    );
    assert!(ledger.may_fail_over());
    assert!(built.handle().balance() >= 1.0, "it was given back");
}
