//! What the handle shows.

use donjon_circuit_breaker::{BreakerEvent, CircuitState};
use donjon_core::{ErrorKind, Heard, Key, KeyBy, Snapshot};
use donjon_testkit::{Script, ScriptedLlm};
use tower::Layer;

use crate::{build, fails, plain, request, send};

#[tokio::test(start_paused = true)]
async fn figures_say_what_calls_came_to() {
    let (layer, handle) = build(plain());
    let model = ScriptedLlm::new("hi");
    let service = layer.layer(model.clone());
    send(&service, request()).await.expect("an answer");
    model.set_otherwise(Script::fail(ErrorKind::InvalidRequest));
    fails(&service, request()).await;
    model.set_otherwise(Script::fail(ErrorKind::ServerError));
    for _ in 0..5 {
        fails(&service, request()).await;
    }
    let shows = |name: &str, label: Option<(&str, &str)>| {
        let figures = handle.figures();
        let found = figures.iter().find(|figure| {
            figure.name == name
                && label.is_none_or(|(k, v)| figure.labels.iter().any(|l| l.0 == k && l.1 == v))
        });
        found.map(|figure| figure.value)
    };
    assert_eq!(shows("calls", Some(("outcome", "success"))), Some(1.0));
    assert_eq!(shows("calls", Some(("outcome", "failure"))), Some(3.0));
    assert_eq!(shows("calls", Some(("outcome", "neutral"))), Some(1.0));
    assert_eq!(shows("rejected", None), Some(2.0));
    assert_eq!(shows("transitions", Some(("to", "open"))), Some(1.0));
    assert_eq!(shows("not_closed", Some(("state", "open"))), Some(1.0));
    assert_eq!(shows("window_calls", None), Some(4.0));
    assert_eq!(shows("failure_rate", None), Some(0.75));
    assert_eq!(handle.layer(), "circuit_breaker");
}

#[tokio::test(start_paused = true)]
async fn it_is_not_well_when_no_circuit_lets_calls_pass() {
    let (_, handle) = build(plain().name("main"));
    let circuit = handle.circuit(&Key::Global).expect("the one");
    assert_eq!(handle.health(), Ok(()));
    circuit.open();
    assert_eq!(
        handle.health(),
        Err("the circuit of main is open".to_owned())
    );
    crate::after(10 * crate::SECOND).await;
    assert_eq!(handle.health(), Ok(()), "the next call may try");
    circuit.probe_now();
    assert_eq!(handle.health(), Ok(()));

    let (_, handle) = build(plain().key_by(KeyBy::Model));
    assert_eq!(handle.health(), Ok(()));
    let one = handle.circuit_or_new(&Key::name("one")).expect("room");
    let two = handle.circuit_or_new(&Key::name("two")).expect("room");
    one.force_open();
    assert_eq!(handle.health(), Ok(()));
    two.open();
    assert!(handle.health().is_err());
}

#[tokio::test(start_paused = true)]
async fn one_that_only_counts_tells_what_would_have_opened_it() {
    let (layer, handle) = build(plain());
    let circuit = handle.circuit(&Key::Global).expect("the one");
    circuit.metrics_only();
    let mut events = handle.events().listen();
    let service = layer.layer(ScriptedLlm::new(Script::fail(ErrorKind::ServerError)));
    for _ in 0..20 {
        fails(&service, request()).await;
    }
    let told = events.try_next();
    assert!(matches!(
        told,
        Some(Heard::Event(BreakerEvent::Exceeded { .. }))
    ));
    assert_eq!(events.try_next(), None);
    assert_eq!(circuit.state(), CircuitState::MetricsOnly);
    assert_eq!(circuit.failure_threshold(), Some(0.5));
}
