//! Circuit breakers that stay closed: ours, and seatbelt's from Microsoft's oxidizer. Those of tower-resilience and liter-llm are with
//! their other layers.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use donjon_benches::meter::Row;
use donjon_circuit_breaker::{BreakerBuilder, BreakerLayer, Window};
use donjon_core::{Identity, KeyBy, LlmError, LlmRequest, LlmResponse};
use seatbelt::breaker::Breaker;
use seatbelt::{RecoveryInfo, ResilienceContext};
use tick::Clock;
use tower::{Layer, Service};

use crate::leaf::{LEAF, model, open, request, streamed_request};

const PEER: &str = "seatbelt breaker";

pub(crate) fn rows() -> Vec<Row> {
    vec![
        row("donjon breaker", request, |pending| {
            build(BreakerLayer::builder()).layer(model(pending))
        }),
        row("donjon breaker, peek and admit", request, |pending| {
            let layer = build(BreakerLayer::builder());
            layer.peek().layer(layer.admit().layer(model(pending)))
        }),
        row("donjon breaker, time window", request, |pending| {
            let window = Window::time(Duration::from_secs(60));
            build(BreakerLayer::builder().window(window)).layer(model(pending))
        }),
        row("donjon breaker, everything on", request, |pending| {
            let builder = BreakerLayer::builder()
                .window(Window::time(Duration::from_secs(60)))
                .slow_first_token(Duration::from_secs(5))
                .slow_answer(Duration::from_secs(60))
                .consecutive_failures(5);
            build(builder).layer(model(pending))
        }),
        row("donjon breaker, keyed, one key", request, |pending| {
            build(BreakerLayer::builder().key_by(KeyBy::Model)).layer(model(pending))
        }),
        row("donjon breaker, a key a task", own_tenant, |pending| {
            build(BreakerLayer::builder().key_by(KeyBy::Tenant)).layer(model(pending))
        }),
        Row::above(LEAF, PEER).unary(|pending| seatbelt().layer(model(pending)), request),
    ]
}

fn build(builder: BreakerBuilder) -> BreakerLayer {
    builder.build().expect("a good configuration")
}

/// A request of a tenant of its own.
fn own_tenant() -> LlmRequest {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let tenant = format!("tenant-{}", NUMBER.fetch_add(1, Relaxed) % 1_000);
    request().on_behalf_of(Identity::builder().tenant(tenant).build())
}

fn row<S>(
    name: &str,
    request: fn() -> LlmRequest,
    make: impl Fn(bool) -> S + Clone + 'static,
) -> Row
where
    S: Service<LlmRequest, Response = LlmResponse, Error = LlmError, Future: Send>
        + Clone
        + Send
        + 'static,
{
    let streamed = make.clone();
    Row::above(LEAF, name)
        .unary(make, request)
        .streamed(move || streamed(false), streamed_request, open)
        .beside(PEER)
}

/// As it is by default: a failure rate of 0.1 over 30 s, 100 calls at least.
fn seatbelt<S>() -> impl Layer<S, Service = Breaker<LlmRequest, Result<LlmResponse, LlmError>, S>> {
    let context = ResilienceContext::new(Clock::new_tokio());
    Breaker::layer("breaker", &context)
        .recovery_with(|answer: &Result<LlmResponse, LlmError>, _| match answer {
            Ok(_) => RecoveryInfo::never(),
            Err(_) => RecoveryInfo::retry(),
        })
        .rejected_input_error(|_, _| {
            LlmError::new(donjon_core::ErrorKind::CircuitOpen, "the circuit is open")
        })
}
