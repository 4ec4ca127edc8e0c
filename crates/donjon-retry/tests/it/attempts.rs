//! How many attempts there are, of what, and in whose account.

use std::{
    error::Error,
    sync::{Arc, Mutex},
};

use donjon_core::{
    AttemptCause, Billed, DefaultTable, ErrorKind, Head, LlmError, LlmRequest, LlmResponse,
};
use donjon_retry::{ConfigError, KindPolicy, RetryLayer};
use donjon_testkit::{Script, ScriptedLlm, probe::collect_text};
use tower::{Layer, service_fn};

use crate::{SECOND, around, failing, fails, plain, request, send};

#[tokio::test(start_paused = true)]
async fn it_asks_again_until_it_is_answered_and_the_ledger_knows() {
    let model = ScriptedLlm::new("Hello!")
        .then(ErrorKind::ServerError)
        .then(ErrorKind::Overloaded)
        .commits();
    let mut request = request().streamed();
    let ledger = request.call.begin().clone();
    let answer = send(&around(&model, plain()), request).await;
    let text = collect_text(answer.expect("the third one answers")).await;
    assert_eq!(text.expect("whole"), "Hello!");
    let attempts: Vec<_> = ledger.attempts().collect();
    assert_eq!((attempts.len(), ledger.sent()), (3, 3));
    let causes: Vec<_> = attempts.iter().map(|a| (a.cause, a.parent)).collect();
    let retry = AttemptCause::Retry;
    assert_eq!(
        causes,
        [
            (AttemptCause::First, None),
            (retry, Some(0)),
            (retry, Some(1))
        ]
    );
    let errors = attempts.iter().map(|a| a.error.as_ref().map(|e| e.kind()));
    assert_eq!(
        errors.collect::<Vec<_>>(),
        [
            Some(ErrorKind::ServerError),
            Some(ErrorKind::Overloaded),
            None
        ]
    );
    assert_eq!(attempts[2].billed, Billed::Yes);
}

/// R10, by the table: each kind is asked for exactly as often as its row says.
#[tokio::test(start_paused = true)]
async fn every_kind_is_retried_as_the_table_says() {
    for kind in ErrorKind::ALL {
        let model = failing(*kind);
        let error = fails(&around(&model, plain()), request()).await;
        assert_eq!(error.kind(), *kind);
        let expected = if kind.disposition().retry { 3 } else { 1 };
        assert_eq!(model.count(), expected, "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_server_says_of_retrying_overrides_the_table() {
    for (kind, should, expected) in [
        (ErrorKind::ServerError, false, 1),
        (ErrorKind::QuotaExhausted, true, 3),
        (ErrorKind::InvalidRequest, true, 1),
    ] {
        let model = failing(Script::fail(kind).should_retry(should));
        fails(&around(&model, plain()), request()).await;
        assert_eq!(model.count(), expected, "{kind} with {should}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_classifier_of_ones_own_overrides_the_table() {
    use donjon_core::Classify;
    let model = failing(ErrorKind::QuotaExhausted);
    let classify = |error: &LlmError| {
        let mut row = DefaultTable.classify(error);
        row.retry |= error.kind() == ErrorKind::QuotaExhausted;
        row
    };
    fails(&around(&model, plain().classify(classify)), request()).await;
    assert_eq!(model.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_before_it_is_sent_does_not_go_on_for_ever() {
    use donjon_core::Classify;
    let model = failing(ErrorKind::LimitedLocally);
    let classify = |error: &LlmError| {
        let mut row = DefaultTable.classify(error);
        row.retry = true;
        row
    };
    // A leaf of a user's own that stamps nothing.
    let seen = model.clone();
    let leaf = service_fn(move |request: LlmRequest| {
        let mut model = seen.clone();
        async move {
            let bare = LlmRequest::new(request.model().clone(), request.shared_prompt().clone());
            tower::ServiceExt::ready(&mut model).await?;
            tower::Service::call(&mut model, bare).await
        }
    });
    let layer = plain().classify(classify).build().expect("sensible");
    let mut request = request();
    let ledger = request.call.begin().clone();
    fails(&layer.layer(leaf), request).await;
    assert_eq!((model.count(), ledger.sent()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn kinds_can_have_policies_of_their_own() {
    let builder = plain()
        .for_kind(
            ErrorKind::RateLimited,
            KindPolicy::new()
                .max_attempts(5)
                .backoff(donjon_retry::Backoff::none()),
        )
        .for_kind(ErrorKind::Transport, KindPolicy::new().max_attempts(1));
    for (kind, expected) in [
        (ErrorKind::RateLimited, 5),
        (ErrorKind::Transport, 1),
        (ErrorKind::ServerError, 3),
    ] {
        let model = failing(kind);
        fails(&around(&model, builder.clone()), request()).await;
        assert_eq!(model.count(), expected, "{kind}");
    }
}

/// R6: the last attempt gets the request itself, so nobody else holds the prompt then.
#[tokio::test(start_paused = true)]
async fn the_request_is_not_cloned_for_the_last_attempt() {
    for (max, expected) in [(1, vec![1]), (2, vec![2, 1]), (3, vec![2, 2, 1])] {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let counts = seen.clone();
        let leaf = service_fn(move |request: LlmRequest| {
            let count = request.shared_by();
            counts.lock().expect("no panic").push(count);
            std::future::ready(Err::<LlmResponse, _>(LlmError::new(
                ErrorKind::ServerError,
                "",
            )))
        });
        let layer = plain().max_attempts(max).build().expect("sensible");
        fails(&layer.layer(leaf), request()).await;
        assert_eq!(*seen.lock().expect("no panic"), expected);
    }
}

/// R3, R11: the ledger's account is the call's, whoever else drew on it.
#[tokio::test(start_paused = true)]
async fn the_attempts_of_the_whole_call_are_bounded() {
    let model = failing(ErrorKind::ServerError);
    let service = around(&model, plain().total_attempts(2));
    fails(&service, request()).await;
    assert_eq!(model.count(), 2, "the layer's own cap");

    // Four targets: three attempts here, and one kept for each of the others.
    let model = failing(ErrorKind::ServerError);
    let service = around(&model, plain());
    let mut call = request();
    call.call.begin().set_targets(4);
    let ledger = call.call.begin().clone();
    fails(&service, call.clone()).await;
    assert_eq!(model.count(), 3);
    for untried in [2, 1, 0] {
        ledger.set_untried(untried);
        fails(&service, call.clone()).await;
    }
    assert_eq!(ledger.sent(), 6, "three, and one for each further target");

    // A cap that somebody else set holds as well.
    let model = failing(ErrorKind::ServerError);
    let mut call = request();
    call.call.begin().limit_attempts(1);
    fails(&around(&model, plain()), call).await;
    assert_eq!(model.count(), 1);
}

/// R3: a driver further in counts its own attempts; those around it do not count them again.
#[tokio::test(start_paused = true)]
async fn stacked_by_mistake_attempts_do_not_count_twice() {
    let model = failing(ErrorKind::ServerError);
    let inner = around(&model, plain());
    let outer = plain().build().expect("sensible").layer(inner);
    let mut call = request();
    let ledger = call.call.begin().clone();
    fails(&outer, call).await;
    assert_eq!((model.count(), ledger.sent()), (3, 3));
}

/// R14.
#[tokio::test(start_paused = true)]
async fn a_template_gives_independent_calls() {
    let model = failing(ErrorKind::ServerError);
    let service = around(&model, plain());
    let template = request().with_timeout(SECOND * 60);
    for _ in 0..100 {
        tokio::time::advance(SECOND * 59).await;
        fails(&service, template.clone()).await;
    }
    assert_eq!(
        model.count(),
        300,
        "each has three attempts and its own time"
    );
}

/// T12.
#[tokio::test(start_paused = true)]
async fn the_cause_stays_reachable() {
    let cause = std::io::Error::other("the cable");
    let error = LlmError::new(ErrorKind::Transport, "broken").with_source(cause);
    let error = fails(&around(&failing(error), plain()), request()).await;
    let source = error.source().expect("the cause");
    assert_eq!(source.to_string(), "the cable");
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_handed_on_as_it_is() {
    let leaf = service_fn(|request: LlmRequest| {
        let mut head = Head::new(request.model().clone());
        head.id = Some("id-7".into());
        let answer = donjon_core::ChatCompletion::text("served", "yes");
        std::future::ready(Ok::<_, LlmError>(LlmResponse::complete(head, answer)))
    });
    let service = RetryLayer::default().layer(leaf);
    let answer = send(&service, request()).await.expect("answered");
    assert_eq!(answer.head.id.as_deref(), Some("id-7"));
}

#[test]
fn senseless_values_are_refused() {
    let build = |builder: donjon_retry::RetryBuilder| builder.build().err();
    assert_eq!(
        build(plain().max_attempts(0)),
        Some(ConfigError::ZeroMaxAttempts)
    );
    assert_eq!(
        build(plain().total_attempts(0)),
        Some(ConfigError::ZeroTotalAttempts)
    );
    assert_eq!(
        build(plain().max_parked(0)),
        Some(ConfigError::ZeroMaxParked)
    );
    let nothing = KindPolicy::new().max_attempts(0);
    assert_eq!(
        build(plain().for_kind(ErrorKind::Connect, nothing)),
        Some(ConfigError::ZeroMaxAttempts)
    );
    let bad = donjon_retry::Backoff::exponential(SECOND).factor(0.0);
    assert_eq!(
        build(plain().backoff(bad)),
        Some(ConfigError::BackoffFactor(0.0))
    );
}
