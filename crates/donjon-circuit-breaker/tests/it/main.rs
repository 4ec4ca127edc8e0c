//! Integration tests of the circuit breaker.
#![cfg(not(loom))]

mod allocations;
mod config;
mod contract;
mod ends;
mod figures;
mod keys;
mod parked;
mod slow;
mod states;

use std::time::Duration;

use donjon_circuit_breaker::{
    BreakerBuilder, BreakerHandle, BreakerLayer, CircuitState, OpenDelay,
};
use donjon_core::{ErrorKind, Key, LlmError, LlmRequest, LlmResponse, LlmService, Message};
use donjon_testkit::{Script, ScriptedLlm};

const SECOND: Duration = Duration::from_secs(1);

/// Opens for exactly 10 s when half of at least four calls failed; one probe.
fn plain() -> BreakerBuilder {
    BreakerLayer::builder()
        .minimum_calls(4)
        .open_delay(OpenDelay::fixed(10 * SECOND).jitter(0.0))
}

fn build(builder: BreakerBuilder) -> (BreakerLayer, BreakerHandle) {
    let layer = builder.build().expect("sensible");
    let handle = layer.handle();
    (layer, handle)
}

fn request() -> LlmRequest {
    LlmRequest::chat("m", [Message::user("Hi")])
}

fn failing() -> ScriptedLlm {
    ScriptedLlm::new(Script::fail(ErrorKind::ServerError))
}

/// Calls and waits for the answer, not for its stream.
async fn call<S: LlmService + Clone>(
    service: &S,
    request: LlmRequest,
) -> Result<LlmResponse, LlmError> {
    let mut service = service.clone();
    let answer = async {
        std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
        service.call(request).await
    };
    // The clock is paused: what never ends fails at once.
    let answer = tokio::time::timeout(1_000_000 * SECOND, answer).await;
    answer.expect("a call ends").map_err(Into::into)
}

/// Calls and reads the answer to its end.
async fn send<S: LlmService + Clone>(service: &S, request: LlmRequest) -> Result<String, LlmError> {
    call(service, request).await?.text().await
}

async fn fails<S: LlmService + Clone>(service: &S, request: LlmRequest) -> LlmError {
    send(service, request).await.expect_err("it fails")
}

/// Fails until the circuit is open.
async fn trip<S: LlmService + Clone>(service: &S, handle: &BreakerHandle) {
    for _ in 0..100 {
        if state(handle) == CircuitState::Open {
            return;
        }
        fails(service, request()).await;
    }
    panic!("it does not open");
}

fn state(handle: &BreakerHandle) -> CircuitState {
    handle.state(&Key::Global)
}

async fn after(time: Duration) {
    tokio::time::advance(time).await;
}
