//! The breaker alone, around a service of one's own that is no HTTP: a model in this process, which is ill for a while.
//!
//! `cargo run -p donjon-circuit-breaker --example circuit_breaker_alone`
#![expect(clippy::print_stdout, reason = "a program that prints what happens")]

use std::{
    future::{Ready, ready},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use donjon_circuit_breaker::{BreakerEvent, BreakerLayer, CircuitState, OpenDelay};
use donjon_core::{
    ChatCompletion, ErrorKind, Head, Heard, Key, LlmError, LlmRequest, LlmResponse, Message,
};
use tower::{Layer, Service, ServiceExt};

/// A model in this process.
#[derive(Clone, Default)]
struct Model {
    ill: Arc<AtomicBool>,
    asked: Arc<AtomicU32>,
}

impl Service<LlmRequest> for Model {
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = Ready<Result<LlmResponse, LlmError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LlmError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: LlmRequest) -> Self::Future {
        self.asked.fetch_add(1, Relaxed);
        if self.ill.load(Relaxed) {
            return ready(Err(LlmError::new(ErrorKind::ServerError, "not now")));
        }
        let model = request.model().clone();
        let answer = ChatCompletion::text(model.clone(), "Here you are.");
        ready(Ok(LlmResponse::complete(Head::new(model), answer)))
    }
}

// The clock of this example is paused, and moves on when nothing else can be done.
#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let breaker = BreakerLayer::builder()
        .failure_rate(0.5)
        .minimum_calls(4)
        .open_delay(OpenDelay::growing(Duration::from_secs(2)).jitter(0.0))
        .name("the model")
        .build()?;
    let handle = breaker.handle();
    let mut events = handle.events().listen();
    let model = Model::default();
    let mut service = breaker.layer(model.clone());
    let begin = tokio::time::Instant::now();

    // A call a second for half a minute; from the fifth to the fifteenth second the model is ill.
    for second in 0..30_u64 {
        model.ill.store((5..15).contains(&second), Relaxed);
        let request = LlmRequest::chat("some-model", [Message::user("Hello!")]);
        let said = match service.ready().await?.call(request).await {
            Ok(answer) => answer.text().await?,
            Err(error) => error.to_string(),
        };
        println!("{second:>2} s  {said}");
        while let Some(Heard::Event(BreakerEvent::Transition { transition, .. })) =
            events.try_next()
        {
            let (from, to) = (transition.from, transition.to);
            println!("      {from} -> {to}: {:?}", transition.reason);
        }
        tokio::time::sleep_until(begin + Duration::from_secs(second + 1)).await;
    }
    let calls = handle.calls();
    println!(
        "asked {} times; {} succeeded, {} failed, {} were rejected",
        model.asked.load(Relaxed),
        calls.successes,
        calls.failures,
        calls.rejected
    );
    assert_eq!(handle.state(&Key::Global), CircuitState::Closed);
    Ok(())
}
