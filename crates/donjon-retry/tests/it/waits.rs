//! How long is waited, for what, and what is held meanwhile.

use std::time::Duration;

use donjon_core::{Classify, ErrorKind, Hints, LimitHint, LimitUnit, LlmError, TimeoutClock};
use donjon_retry::{Backoff, Jitter};
use donjon_testkit::{Script, ScriptedLlm};
use tokio::time::{Instant, timeout};
use tower::{Layer, Service, ServiceExt, limit::ConcurrencyLimitLayer};

use crate::{SECOND, around, failing, fails, gaps, limited, plain, request, send};

fn is_about(wait: Duration, hint: Duration) -> bool {
    // Never earlier, at most a tenth later; the timer's grain is a millisecond.
    (hint..=hint + hint / 10 + Duration::from_millis(2)).contains(&wait)
}

#[tokio::test(start_paused = true)]
async fn the_backoff_decides_where_the_server_says_nothing() {
    let model = failing(limited());
    let backoff = Backoff::exponential(SECOND).jitter(Jitter::None);
    fails(
        &around(&model, plain().max_attempts(4).backoff(backoff)),
        request(),
    )
    .await;
    assert_eq!(gaps(&model), [SECOND, SECOND * 2, SECOND * 4]);
}

/// R2, and a wait that the server asked for does not advance the exponent.
#[tokio::test(start_paused = true)]
async fn a_hint_is_waited_out_exactly_and_the_backoff_stands_still() {
    let backoff = Backoff::exponential(SECOND).jitter(Jitter::None);
    for _ in 0..20 {
        let model = failing(ErrorKind::ServerError)
            .then(limited().with_retry_after(SECOND * 20))
            .then(limited().with_retry_after(Duration::from_millis(2_500)))
            .then(limited());
        let builder = plain().max_attempts(5).backoff(backoff.clone());
        fails(&around(&model, builder), request()).await;
        let gaps = gaps(&model);
        assert!(is_about(gaps[0], SECOND * 20), "{gaps:?}");
        assert!(is_about(gaps[1], Duration::from_millis(2_500)), "{gaps:?}");
        assert_eq!(gaps[2..], [SECOND, SECOND * 2], "the first two of backoff");
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_used_up_is_a_hint() {
    let mut used_up = LimitHint::new(LimitUnit::Tokens);
    used_up.remaining = Some(0);
    used_up.reset = Some(SECOND * 7);
    let model = ScriptedLlm::new("ok").then(Script::fail(ErrorKind::RateLimited).limit(used_up));
    send(&around(&model, plain()), request())
        .await
        .expect("answered");
    assert!(is_about(gaps(&model)[0], SECOND * 7));

    // Handed on, it still says when.
    let error = limited().with_hints(Hints::new([used_up]));
    let call = request().with_timeout(SECOND * 5);
    let error = fails(&around(&failing(error), plain()), call).await;
    assert_eq!(error.retry_after(), Some(SECOND * 7));
}

/// R2: a `Retry-After` of zero, or a date that is past, does not hide a limit that is used up.
#[tokio::test(start_paused = true)]
async fn a_hint_of_zero_hides_no_limit() {
    let mut used_up = LimitHint::new(LimitUnit::Requests);
    used_up.remaining = Some(0);
    used_up.reset = Some(SECOND * 7);
    let error = || {
        let error = limited().with_retry_after(Duration::ZERO);
        error.with_hints(Hints::new([used_up]))
    };
    let model = ScriptedLlm::new("ok").then(error());
    let answer = send(&around(&model, plain()), request()).await;
    answer.expect("answered");
    assert!(is_about(gaps(&model)[0], SECOND * 7));

    let call = request().with_timeout(SECOND * 5);
    let error = fails(&around(&failing(error()), plain()), call).await;
    assert_eq!(error.retry_after(), Some(SECOND * 7));
}

/// A server that is broken is asked again, though a limit happens to be used up as well.
#[tokio::test(start_paused = true)]
async fn a_limit_says_nothing_about_other_errors() {
    let mut used_up = LimitHint::new(LimitUnit::Requests);
    used_up.remaining = Some(0);
    used_up.reset = Some(SECOND * 3_600);
    let error = LlmError::new(ErrorKind::ServerError, "").with_hints(Hints::new([used_up]));
    let model = failing(error);
    let call = request().with_timeout(SECOND * 60);
    let error = fails(&around(&model, plain()), call).await;
    assert_eq!(gaps(&model), [SECOND, SECOND]);
    assert_eq!(error.retry_after(), None);
}

#[tokio::test(start_paused = true)]
async fn a_hint_past_the_deadline_is_not_waited_for() {
    let model = failing(limited().with_retry_after(SECOND * 30));
    let began = Instant::now();
    let call = request().with_timeout(SECOND * 30);
    let error = fails(&around(&model, plain()), call).await;
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    assert_eq!(error.retry_after(), Some(SECOND * 30));
    assert_eq!((model.count(), began.elapsed()), (1, Duration::ZERO));

    // One that fits is, even where its spread would not.
    let model = failing(limited().with_retry_after(SECOND * 29));
    let call = request().with_timeout(SECOND * 30);
    fails(&around(&model, plain()), call).await;
    assert_eq!(model.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn backoff_never_goes_past_the_deadline() {
    let model = failing(ErrorKind::ServerError);
    let began = Instant::now();
    let backoff = Backoff::exponential(SECOND).jitter(Jitter::None);
    let call = request().with_timeout(SECOND * 3);
    let error = fails(
        &around(&model, plain().max_attempts(9).backoff(backoff)),
        call,
    )
    .await;
    assert_eq!(
        error.kind(),
        ErrorKind::ServerError,
        "what failed, not what ran out"
    );
    assert_eq!((model.count(), began.elapsed()), (2, SECOND));
}

/// R11: while a target was not tried, patience bounds the wait; afterwards it does not.
#[tokio::test(start_paused = true)]
async fn patience_bounds_a_wait_while_another_target_could_serve() {
    for (targets, expected) in [(2, 1), (1, 3)] {
        let model = failing(limited().with_retry_after(SECOND * 5));
        let mut call = request();
        call.call.patience = Some(SECOND * 2);
        call.call.begin().set_targets(targets);
        let error = fails(&around(&model, plain()), call).await;
        assert_eq!(error.retry_after(), Some(SECOND * 5));
        assert_eq!(model.count(), expected, "{targets} targets");
    }
}

/// R8: what is limited inside is free during backoff, also where the failed call's future holds it
/// until it is dropped.
#[tokio::test(start_paused = true)]
async fn backoff_holds_nothing_of_the_service_below() {
    let model = ScriptedLlm::new("ok").then(limited().with_retry_after(SECOND * 60));
    let layer = plain().build().expect("sensible");
    let service = layer.layer(ConcurrencyLimitLayer::new(1).layer(model));
    let mut one = service.clone();
    let waiting = one.ready().await.expect("ready").call(request());
    let mut waiting = Box::pin(waiting);
    assert!(timeout(SECOND, waiting.as_mut()).await.is_err());
    // So another call passes meanwhile.
    let passed = timeout(SECOND, send(&service, request())).await;
    assert!(passed.expect("nobody is in its way").is_ok());
    assert!(waiting.await.is_ok());
}

/// T2: over a service whose readiness is a permit, each attempt is readied.
#[tokio::test(start_paused = true)]
async fn each_attempt_is_readied_over_a_concurrency_limit() {
    let model = failing(ErrorKind::ServerError);
    let layer = plain().build().expect("sensible");
    let service = layer.layer(ConcurrencyLimitLayer::new(1).layer(model.clone()));
    let calls = (0..4).map(|_| {
        let service = service.clone();
        tokio::spawn(async move { fails(&service, request()).await })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.expect("no panic");
    }
    assert_eq!((model.count(), model.peak()), (12, 1));
}

/// R9: readying the service below for another attempt is a wait like any other.
#[tokio::test(start_paused = true)]
async fn the_deadline_covers_the_readiness_of_a_further_attempt() {
    let model = failing(ErrorKind::ServerError).with_capacity(1);
    let service = around(&model, plain());
    let mut one = service.clone();
    let call = request().with_timeout(SECOND * 10);
    let began = Instant::now();
    let call = tokio::spawn(one.ready().await.expect("ready").call(call));
    tokio::task::yield_now().await;
    // Somebody takes the only permit during the backoff, and keeps it.
    let mut other = model.clone();
    other.ready().await.expect("ready");
    let error = call.await.expect("no panic").expect_err("no time left");
    assert_eq!(error.kind(), ErrorKind::Timeout(TimeoutClock::Total));
    assert_eq!((model.count(), began.elapsed()), (1, SECOND * 10));
}

/// In the adaptive mode first attempts are held back too, and hold nothing meanwhile.
#[tokio::test(start_paused = true)]
async fn adaptive_rate_control_holds_first_attempts_back() {
    let model = ScriptedLlm::new("ok").with_capacity(8);
    let none = |error: &LlmError| {
        let mut row = donjon_core::DefaultTable.classify(error);
        row.retry = false;
        row
    };
    let builder = plain().classify(none).adaptive(true);
    let service = around(&model, builder);
    // Ten a second are let pass until the provider says that it is too much.
    for _ in 0..100 {
        send(&service, request()).await.expect("answered");
        tokio::time::sleep(SECOND / 10).await;
    }
    model.push(limited());
    fails(&service, request()).await;

    let began = Instant::now();
    let held: Vec<_> = (0..14)
        .map(|_| {
            let service = service.clone();
            tokio::spawn(async move { send(&service, request()).await })
        })
        .collect();
    tokio::task::yield_now().await;
    assert!(model.held() <= model.in_progress());
    let hurry = request().with_timeout(Duration::from_millis(100));
    let refused = fails(&service, hurry).await;
    assert_eq!(refused.kind(), ErrorKind::LimitedLocally);
    assert!(refused.retry_after().is_some_and(|after| after > SECOND));
    for call in held {
        call.await.expect("no panic").expect("answered");
    }
    let took = began.elapsed();
    assert!(
        (SECOND..SECOND * 4).contains(&took),
        "fourteen at about seven a second: {took:?}"
    );
}
