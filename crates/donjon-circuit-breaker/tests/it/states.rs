//! What callers see of the states.

use std::time::Duration;

use donjon_circuit_breaker::{BreakerEvent, CircuitState, Exceeded, OpenDelay, Reason};
use donjon_core::{AttemptCause, ErrorKind, Heard, Key, LlmError};
use donjon_testkit::{Script, ScriptedLlm};
use tower::Layer;

use crate::{SECOND, after, build, call, failing, fails, plain, request, send, state, trip};

#[tokio::test(start_paused = true)]
async fn a_target_that_fails_is_left_alone_until_it_is_well_again() {
    let (layer, handle) = build(plain());
    let model = failing();
    let service = layer.layer(model.clone());
    trip(&service, &handle).await;
    assert_eq!(model.count(), 4);

    after(3 * SECOND).await;
    let error = fails(&service, request()).await;
    assert_eq!(error.kind(), ErrorKind::CircuitOpen);
    assert_eq!(error.retry_after(), Some(7 * SECOND));
    assert_eq!(model.count(), 4);

    // Exactly when it said, one call may try.
    after(7 * SECOND).await;
    model.set_otherwise(Script::answer("well").head_after(SECOND));
    let calls = (0..20).map(|_| send(&service, request()));
    let answers = futures_util::future::join_all(calls).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    for error in answers.into_iter().filter_map(Result::err) {
        assert_eq!(error.kind(), ErrorKind::CircuitOpen);
        assert_eq!(error.retry_after(), None, "nobody knows");
    }
    assert_eq!(model.count(), 5);
    assert_eq!(state(&handle), CircuitState::Closed);
    send(&service, request()).await.expect("all pass again");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_fails_opens_it_for_longer() {
    let (layer, handle) = build(plain().open_delay(OpenDelay::growing(10 * SECOND).jitter(0.0)));
    let service = layer.layer(failing());
    trip(&service, &handle).await;
    for seconds in [10, 20, 40, 60, 60] {
        let error = fails(&service, request()).await;
        assert_eq!(error.retry_after(), Some(seconds * SECOND));
        after(seconds * SECOND).await;
        assert_eq!(
            fails(&service, request()).await.kind(),
            ErrorKind::ServerError
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejection_names_its_target() {
    let (layer, handle) = build(plain().name("main"));
    let service = layer.layer(failing());
    trip(&service, &handle).await;
    let error = fails(&service, request()).await;
    assert_eq!(error.target().map(|name| name.as_str()), Some("main"));

    let mut request = request();
    let attempt = request.call.open_attempt(AttemptCause::First);
    attempt.set_target("spare".into());
    let error = fails(&service, request).await;
    assert_eq!(error.target().map(|name| name.as_str()), Some("spare"));
}

#[tokio::test(start_paused = true)]
async fn a_server_gets_the_time_that_it_asks_for() {
    let (layer, handle) = build(plain());
    let model = ScriptedLlm::new(Script::fail(ErrorKind::RateLimited).retry_after(45 * SECOND));
    let service = layer.layer(model);
    trip(&service, &handle).await;
    let error = fails(&service, request()).await;
    assert_eq!(error.retry_after(), Some(45 * SECOND));
    let circuit = handle.circuit(&Key::Global).expect("the one");
    assert_eq!(circuit.open_for(), Some(45 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn states_are_set_by_hand() {
    let (layer, handle) = build(plain());
    let model = failing();
    let service = layer.layer(model.clone());
    let circuit = handle.circuit(&Key::Global).expect("the one");

    circuit.force_open();
    let error = fails(&service, request()).await;
    assert_eq!(
        (error.kind(), error.retry_after()),
        (ErrorKind::CircuitOpen, None)
    );
    after(1_000 * SECOND).await;
    assert_eq!(
        fails(&service, request()).await.kind(),
        ErrorKind::CircuitOpen
    );
    assert_eq!(model.count(), 0);

    for hold in [
        |circuit: &donjon_circuit_breaker::CircuitHandle| circuit.force_closed(),
        |circuit: &donjon_circuit_breaker::CircuitHandle| circuit.disable(),
        |circuit: &donjon_circuit_breaker::CircuitHandle| circuit.metrics_only(),
    ] {
        hold(&circuit);
        for _ in 0..20 {
            assert_eq!(
                fails(&service, request()).await.kind(),
                ErrorKind::ServerError
            );
        }
    }
    circuit.close();
    trip(&service, &handle).await;
    circuit.reset();
    assert_eq!(circuit.state(), CircuitState::Closed);
    circuit.open();
    assert!(circuit.probe_now());
    assert_eq!(circuit.state(), CircuitState::HalfOpen);
    model.set_otherwise("well");
    send(&service, request()).await.expect("a probe");
    assert_eq!(circuit.state(), CircuitState::Closed);
    assert!(!circuit.probe_now());
}

#[tokio::test(start_paused = true)]
async fn transitions_are_told_and_remembered_with_their_reasons() {
    let (layer, handle) = build(plain());
    let mut events = handle.events().listen();
    let model = failing();
    let service = layer.layer(model.clone());
    let begin = tokio::time::Instant::now();
    trip(&service, &handle).await;
    after(10 * SECOND).await;
    model.set_otherwise("well");
    send(&service, request()).await.expect("a probe");

    let circuit = handle.circuit(&Key::Global).expect("the one");
    let transitions = circuit.transitions();
    let seen: Vec<_> = transitions
        .iter()
        .map(|t| (t.from, t.to, t.at - begin))
        .collect();
    use CircuitState::{Closed, HalfOpen, Open};
    assert_eq!(
        seen,
        [
            (Closed, Open, Duration::ZERO),
            (Open, HalfOpen, 10 * SECOND),
            (HalfOpen, Closed, 10 * SECOND)
        ]
    );
    let exceeded = |reason| match reason {
        Reason::Exceeded(Exceeded::FailureRate { rate, calls, .. }) => Some((rate, calls)),
        _ => None,
    };
    assert_eq!(exceeded(transitions[0].reason), Some((1.0, 4)));
    assert_eq!(transitions[1].reason, Reason::DelayOver);
    assert_eq!(transitions[2].reason, Reason::Recovered);
    for expected in transitions {
        let Some(Heard::Event(BreakerEvent::Transition { key, transition })) = events.try_next()
        else {
            panic!("it was told");
        };
        assert_eq!((key, transition), (Key::Global, expected));
    }
    // What is remembered is bounded.
    for _ in 0..100 {
        circuit.force_open();
        circuit.close();
    }
    assert_eq!(circuit.transitions().len(), 32);
}

#[tokio::test(start_paused = true)]
async fn services_that_are_dropped_take_no_state_with_them() {
    let (layer, handle) = build(plain());
    trip(&layer.layer(failing()), &handle).await;
    let error: LlmError = call(&layer.clone().layer(failing()), request())
        .await
        .expect_err("it is open");
    assert_eq!(error.kind(), ErrorKind::CircuitOpen);
}
