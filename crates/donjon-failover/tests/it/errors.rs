//! What a call ends with when it was not served.

use std::{error::Error, time::Duration};

use donjon_core::{
    BoxError, Classify, DefaultTable, ErrorKind, LlmError, LlmRequest, LlmResponse, Scope,
    TimeoutClock,
};
use donjon_testkit::Script;
use tower::service_fn;

use crate::{ask, builder, counts, failover, model, reasons, request, served};

#[tokio::test(start_paused = true)]
async fn an_error_that_concerns_the_caller_is_final() {
    let limit = LlmError::new(ErrorKind::LimitedLocally, "the tenant's own limit");
    let finals = [
        LlmError::new(ErrorKind::ContentPolicy, "no"),
        LlmError::new(ErrorKind::InvalidRequest, "no").with_field("messages"),
        LlmError::new(ErrorKind::OverBudget, "no"),
        limit.with_scope(Scope::Caller),
    ];
    for refusal in finals {
        let models = [model(refusal.clone()), model("two")];
        let error = ask(&failover(&models), request()).await.expect_err("final");
        assert_eq!(error.kind(), refusal.kind());
        assert_eq!(error.message(), refusal.message());
        assert_eq!(error.field(), refusal.field());
        assert_eq!(error.target().map(|t| t.as_str()), Some("a"));
        assert_eq!(counts(&models), [1, 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_the_target_is_failed_over() {
    let models = [model(ErrorKind::LimitedLocally), model("two")];
    assert_eq!(served(&ask(&failover(&models), request()).await), "b");
}

#[tokio::test(start_paused = true)]
async fn a_prompt_too_long_for_one_target_goes_to_the_next_after_one_attempt() {
    let models = [model(ErrorKind::ContextLength), model("two")];
    assert_eq!(served(&ask(&failover(&models), request()).await), "b");
    assert_eq!(counts(&models), [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_classifier_of_ones_own_is_asked() {
    let models = [
        model(ErrorKind::ContentPolicy),
        model(ErrorKind::Overloaded),
        model("three"),
    ];
    let classify = |error: &LlmError| {
        let mut row = DefaultTable.classify(error);
        row.failover = error.kind() == ErrorKind::ContentPolicy;
        row
    };
    let failover = builder(&models)
        .classify(classify)
        .build()
        .expect("a good configuration");
    let error = ask(&failover, request()).await.expect_err("it says so");
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert_eq!(counts(&models), [1, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn when_all_failed_the_reason_of_each_is_kept() {
    let after = |kind, seconds| Script::fail(kind).retry_after(Duration::from_secs(seconds));
    let models = [
        model(after(ErrorKind::RateLimited, 30)),
        model(ErrorKind::ServerError),
        model(after(ErrorKind::Overloaded, 7)),
        model(ErrorKind::Authentication),
    ];
    let failover = failover(&models);
    failover.handle().disable("d").expect("it is there");
    let error = ask(&failover, request()).await.expect_err("nobody serves");
    assert_eq!(error.kind(), ErrorKind::AllTargetsFailed);
    assert_eq!(
        reasons(&error),
        [
            ("a", ErrorKind::RateLimited),
            ("b", ErrorKind::ServerError),
            ("c", ErrorKind::Overloaded),
            ("d", ErrorKind::Unsent),
        ]
    );
    assert_eq!(
        error.attempts()[3].error.message(),
        "the target is disabled"
    );
    assert_eq!(
        error.retry_after(),
        Some(Duration::from_secs(7)),
        "the earliest"
    );
    let cause = error.source().and_then(|s| s.downcast_ref::<LlmError>());
    assert_eq!(
        cause.map(LlmError::kind),
        Some(ErrorKind::Overloaded),
        "the last one asked"
    );
    assert!(!error.disposition().retry && !error.disposition().failover);
}

#[tokio::test(start_paused = true)]
async fn the_cause_of_the_last_reason_is_reached_from_the_outermost_error() {
    let target = service_fn(|_: LlmRequest| {
        let cause = std::io::Error::other("the wire was cut");
        let error = LlmError::new(ErrorKind::Transport, "").with_source(cause);
        std::future::ready(Err::<LlmResponse, BoxError>(error.into()))
    });
    let error = ask(&failover(&[target, target]), request())
        .await
        .expect_err("cut");
    let mut chain = std::iter::successors(Some(&error as &dyn Error), |e| (*e).source());
    assert!(chain.any(|cause| cause.to_string() == "the wire was cut"));
}

#[tokio::test(start_paused = true)]
async fn the_only_target_fails_with_its_own_error() {
    let script = Script::fail(ErrorKind::RateLimited).retry_after(Duration::from_secs(9));
    let failover = failover(&[model(script.status(429))]);
    let error = ask(&failover, request()).await.expect_err("limited");
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    assert_eq!(
        (error.status(), error.retry_after()),
        (Some(429), Some(Duration::from_secs(9)))
    );
    assert_eq!(error.target().map(|t| t.as_str()), Some("a"));
    assert!(error.attempts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn with_no_target_enabled_nobody_is_asked() {
    let models = [model("one"), model("two")];
    let failover = failover(&models);
    for name in ["a", "b"] {
        failover.handle().disable(name).expect("it is there");
    }
    let error = ask(&failover, request())
        .await
        .expect_err("nobody is there");
    assert_eq!(error.kind(), ErrorKind::AllTargetsFailed);
    assert_eq!(error.message(), "no target is enabled");
    assert_eq!(
        reasons(&error),
        [("a", ErrorKind::Unsent), ("b", ErrorKind::Unsent)]
    );
    assert_eq!(counts(&models), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn past_the_deadline_nobody_else_is_asked() {
    let slow = Script::fail(ErrorKind::Overloaded).head_after(Duration::from_secs(5));
    let models = [model(slow), model("two")];
    let request = request().with_timeout(Duration::from_secs(3));
    let error = ask(&failover(&models), request).await.expect_err("late");
    assert_eq!(error.kind(), ErrorKind::Timeout(TimeoutClock::Total));
    assert_eq!(reasons(&error), [("a", ErrorKind::Overloaded)]);
    assert_eq!(counts(&models), [1, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_a_target_tells_of_keeps_the_reasons_before_it() {
    let late = ErrorKind::Timeout(TimeoutClock::Total);
    let models = [model(ErrorKind::Overloaded), model(late), model("three")];
    let error = ask(&failover(&models), request()).await.expect_err("late");
    assert_eq!(error.kind(), late);
    assert_eq!(reasons(&error), [("a", ErrorKind::Overloaded)]);
    assert_eq!(counts(&models), [1, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn the_cap_on_the_whole_call_holds() {
    let models = [
        model(ErrorKind::Overloaded),
        model(ErrorKind::Overloaded),
        model("three"),
    ];
    let mut request = request();
    request.call.begin().limit_attempts(2);
    let error = ask(&failover(&models), request)
        .await
        .expect_err("no attempt is left");
    assert_eq!(error.kind(), ErrorKind::AllTargetsFailed);
    assert_eq!(reasons(&error).len(), 2);
    assert_eq!(counts(&models), [1, 1, 0]);
}
