//! Circuits of their own.

use donjon_circuit_breaker::CircuitState;
use donjon_core::{AttemptCause, ErrorKind, Key, KeyBy, LlmRequest};
use donjon_testkit::{Script, ScriptedLlm};
use tower::Layer;

use crate::{build, fails, plain, request, send};

/// A model that is down for those whose name begins with `bad`.
fn model() -> ScriptedLlm {
    ScriptedLlm::from_fn(|request: &LlmRequest| match &**request.model() {
        name if name.starts_with("bad") => Script::fail(ErrorKind::ServerError),
        _ => Script::answer("hi"),
    })
}

fn of(model: &str) -> LlmRequest {
    request().with_model(model)
}

#[tokio::test(start_paused = true)]
async fn each_key_has_a_circuit_of_its_own() {
    let (layer, handle) = build(plain().key_by(KeyBy::Model));
    let service = layer.layer(model());
    for _ in 0..4 {
        fails(&service, of("bad")).await;
        send(&service, of("good")).await.expect("well");
    }
    assert_eq!(handle.state(&Key::name("bad")), CircuitState::Open);
    assert_eq!(handle.state(&Key::name("good")), CircuitState::Closed);
    assert_eq!(
        fails(&service, of("bad")).await.kind(),
        ErrorKind::CircuitOpen
    );
    send(&service, of("good")).await.expect("well");
    let mut keys = handle.keys();
    keys.sort_by_key(ToString::to_string);
    assert_eq!(keys, [Key::name("bad"), Key::name("good")]);
    // By hand, and before any call.
    let circuit = handle.circuit_or_new(&Key::name("new")).expect("room");
    circuit.force_open();
    assert_eq!(
        fails(&service, of("new")).await.kind(),
        ErrorKind::CircuitOpen
    );
    handle.reset_all();
    assert_eq!(handle.state(&Key::name("new")), CircuitState::Closed);
    assert_eq!(handle.state(&Key::name("bad")), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn by_target_and_by_closure() {
    let (layer, handle) = build(plain().key_by(KeyBy::Target));
    let service = layer.layer(model());
    for _ in 0..4 {
        let mut request = of("bad");
        let attempt = request.call.open_attempt(AttemptCause::First);
        attempt.set_target("main".into());
        fails(&service, request).await;
    }
    assert_eq!(handle.state(&Key::name("main")), CircuitState::Open);

    let pair = KeyBy::custom(|request| Key::Pair("a".into(), request.model().clone()));
    let (layer, handle) = build(plain().key_by(pair));
    let service = layer.layer(model());
    for _ in 0..4 {
        fails(&service, of("bad")).await;
    }
    let key = Key::Pair("a".into(), "bad".into());
    assert_eq!(handle.state(&key), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn keys_are_bounded_and_one_that_holds_calls_back_is_kept() {
    let (layer, handle) = build(plain().key_by(KeyBy::Model).max_keys(10));
    let service = layer.layer(model());
    for bad in ["bad-0", "bad-1", "bad-2"] {
        for _ in 0..4 {
            fails(&service, of(bad)).await;
        }
    }
    // One that is half-open is kept too.
    let half = handle.circuit(&Key::name("bad-2")).expect("known");
    assert!(half.probe_now());
    drop(half);
    for n in 0..5_000 {
        send(&service, of(&format!("good-{n}")))
            .await
            .expect("well");
        assert!(handle.keys().len() <= 10);
    }
    assert_eq!(handle.state(&Key::name("bad-0")), CircuitState::Open);
    assert_eq!(handle.state(&Key::name("bad-1")), CircuitState::Open);
    assert_eq!(handle.state(&Key::name("bad-2")), CircuitState::HalfOpen);
    assert_eq!(handle.calls().successes, 5_000, "those forgotten included");
    assert_eq!(handle.untracked(), 0);
}

#[tokio::test(start_paused = true)]
async fn while_there_is_room_none_is_forgotten() {
    let (layer, handle) = build(plain().key_by(KeyBy::Model).max_keys(100));
    let service = layer.layer(model());
    for n in 0..1_000 {
        let model = format!("good-{}", n % 100);
        send(&service, of(&model)).await.expect("well");
    }
    assert_eq!(handle.keys().len(), 100);
    let circuit = handle.circuit(&Key::name("good-7")).expect("known");
    assert_eq!(circuit.window().calls, 10);
    assert_eq!(circuit.calls().successes, 10);
}

#[tokio::test(start_paused = true)]
async fn one_that_knows_of_failures_is_forgotten_last() {
    let (layer, handle) = build(plain().key_by(KeyBy::Model).max_keys(10));
    let service = layer.layer(model());
    let bad = |n: usize| format!("bad-{n}");
    for n in 0..3 {
        fails(&service, of(&bad(n))).await;
    }
    for n in 0..1_000 {
        send(&service, of(&format!("good-{n}")))
            .await
            .expect("well");
    }
    for n in 0..3 {
        let circuit = handle.circuit(&Key::name(bad(n))).expect("known");
        assert_eq!(circuit.window().failures, 1);
    }
    // Where all know of some, one of them gives way all the same.
    for n in 0..50 {
        fails(&service, of(&bad(n))).await;
    }
    assert_eq!(handle.keys().len(), 10);
    assert_eq!(handle.untracked(), 0);
}

#[tokio::test(start_paused = true)]
async fn where_all_hold_calls_back_a_new_key_passes_unjudged() {
    let (layer, handle) = build(plain().key_by(KeyBy::Model).max_keys(2));
    let service = layer.layer(model());
    for bad in ["bad-0", "bad-1"] {
        for _ in 0..4 {
            fails(&service, of(bad)).await;
        }
    }
    for _ in 0..9 {
        assert_eq!(
            fails(&service, of("bad-2")).await.kind(),
            ErrorKind::ServerError
        );
    }
    assert_eq!(handle.untracked(), 9);
    assert!(handle.circuit_or_new(&Key::name("bad-2")).is_err());
    assert_eq!(
        fails(&service, of("bad-0")).await.kind(),
        ErrorKind::CircuitOpen
    );
}

#[tokio::test(start_paused = true)]
async fn without_keys_there_is_one() {
    let (_, handle) = build(plain());
    assert_eq!(handle.keys(), [Key::Global]);
    assert!(handle.circuit(&Key::name("m")).is_none());
    assert!(handle.circuit_or_new(&Key::name("m")).is_err());
}
