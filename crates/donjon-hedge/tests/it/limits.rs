//! Hedges yield to whoever has too much to do.

use std::time::Duration;

use donjon_core::{
    AttemptCause, ErrorKind, LimitHint, LimitUnit, LlmError, LlmRequest, shape::ReadyCall,
};
use donjon_hedge::Suppressed;
use donjon_testkit::{Script, ScriptedLlm};
use tokio::time::sleep;
use tower::{Layer, service_fn};

use crate::{MILLI, SECOND, after_a_second, ask, layer, request, slow};

fn late() -> ScriptedLlm {
    ScriptedLlm::new(slow("late", 3 * SECOND)).commits()
}

#[tokio::test(start_paused = true)]
async fn a_refusal_stops_hedges_until_its_hint() {
    for (script, pause) in [
        (
            Script::fail(ErrorKind::RateLimited).retry_after(20 * SECOND),
            20 * SECOND,
        ),
        (
            Script::fail(ErrorKind::RateLimited).retry_after(2000 * SECOND),
            60 * SECOND,
        ),
        (Script::fail(ErrorKind::Overloaded), 5 * SECOND),
        (Script::fail(ErrorKind::LimitedLocally), 5 * SECOND),
    ] {
        let model = late();
        model.push(script);
        let built = layer(after_a_second());
        let service = built.layer(model.clone());
        ask(&service, request()).await.expect_err("refused");
        assert_eq!(model.count(), 1, "nor is there one at once");
        assert_eq!(built.handle().hedges(), 0);
        assert_eq!(built.handle().paused_for(), pause);
        sleep(pause - 1500 * MILLI).await;
        ask(&service, request()).await.expect("late");
        assert_eq!(model.count(), 2);
        ask(&service, request()).await.expect("late");
        assert_eq!(model.count(), 4, "it is over");
    }
}

#[tokio::test(start_paused = true)]
async fn so_does_a_limit_that_is_nearly_used_up() {
    let hint = |remaining, reset| {
        let mut hint = LimitHint::new(LimitUnit::Tokens);
        (hint.limit, hint.remaining, hint.reset) = (Some(1000), Some(remaining), Some(reset));
        hint
    };
    for (remaining, pause) in [(0, 9 * SECOND), (50, 9 * SECOND), (51, Duration::ZERO)] {
        let model = late();
        model.push(Script::answer("fast").limit(hint(remaining, 9 * SECOND)));
        let built = layer(after_a_second());
        ask(&built.layer(model.clone()), request())
            .await
            .expect("fast");
        assert_eq!(built.handle().paused_for(), pause, "{remaining} left");
    }
}

/// A driver further in has gone on after a refusal, and nobody outside sees it but in the ledger.
#[tokio::test(start_paused = true)]
async fn a_refusal_that_somebody_further_in_has_got_over_counts_too() {
    let model = ScriptedLlm::new("served").commits();
    let retried = {
        let model = model.clone();
        service_fn(move |mut request: LlmRequest| {
            request.call.claim_attempt(AttemptCause::First);
            let refused =
                LlmError::new(ErrorKind::RateLimited, "slow down").with_retry_after(7 * SECOND);
            request.call.attempt().expect("claimed").fail(&refused);
            request.call.claim_attempt(AttemptCause::Retry);
            ReadyCall::new(model.clone(), request)
        })
    };
    let built = layer(after_a_second());
    ask(&built.layer(retried), request()).await.expect("served");
    assert_eq!(built.handle().paused_for(), 7 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn who_is_late_while_there_is_a_pause_is_waited_for() {
    let model = late();
    model.push(Script::fail(ErrorKind::Overloaded));
    let built = layer(after_a_second());
    let service = built.layer(model.clone());
    ask(&service, request()).await.expect_err("refused");
    ask(&service, request()).await.expect("late");
    assert_eq!((model.count(), built.handle().hedges()), (2, 0));
    assert_eq!(built.handle().suppressed(Suppressed::Limits), 2);
}
