//! What the happy path costs.

use std::time::Duration;

use donjon_circuit_breaker::{Adaptive, BreakerBuilder, BreakerLayer, Window};
use donjon_core::{AttemptCause, KeyBy};
use donjon_testkit::AtOnce;
use tower::Layer;

use crate::request;

#[test]
fn an_admitted_call_allocates_nothing() {
    let all = BreakerLayer::builder()
        .window(Window::time(Duration::from_secs(60)))
        .slow_first_token(Duration::from_secs(5))
        .slow_answer(Duration::from_secs(60))
        .consecutive_failures(5)
        .forget_after(Duration::from_secs(60))
        .adaptive(Adaptive::new());
    for builder in [BreakerLayer::builder(), all] {
        assert_eq!(allocations(builder.clone()), 0);
        // The key of a model that is known.
        assert_eq!(allocations(builder.key_by(KeyBy::Model)), 0);
    }
}

/// What a call through both halves of the layer allocates, after the first.
fn allocations(builder: BreakerBuilder) -> u64 {
    let layer = builder.build().expect("sensible");
    let mut service = layer.peek().layer(layer.admit().layer(AtOnce::default()));
    let mut request = request();
    request.call.open_attempt(AttemptCause::First);
    let mut call = || {
        allocation_counter::measure(|| AtOnce::through(&mut service, request.clone())).count_total
    };
    call();
    (0..300).map(|_| call()).sum()
}
