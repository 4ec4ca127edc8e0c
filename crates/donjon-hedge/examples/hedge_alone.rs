//! Hedging alone, around a function that is slow now and then: how long callers wait, without and with.
#![expect(clippy::print_stdout, reason = "a program that prints what happens")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use donjon_core::{ChatCompletion, Head, LlmError, LlmRequest, LlmResponse, Message};
use donjon_hedge::HedgeLayer;
use tokio::time::{Instant, sleep};
use tower::{Layer, Service, ServiceExt, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Every eighth attempt takes twenty times as long.
    let attempts = Arc::new(AtomicU32::new(0));
    let model = service_fn(move |request: LlmRequest| {
        let slow = attempts.fetch_add(1, Relaxed) % 8 == 7;
        async move {
            sleep(Duration::from_millis(if slow { 400 } else { 20 })).await;
            let answer = ChatCompletion::text(request.model().clone(), "Here you are.");
            let head = Head::new(request.model().clone());
            Ok::<_, LlmError>(LlmResponse::complete(head, answer))
        }
    });

    let layer = HedgeLayer::builder()
        .delay(Duration::from_millis(40))
        .budget(0.25)
        .build()?;
    let handle = layer.handle();
    let mut model = layer.layer(model);

    for hedged in [false, true] {
        handle.set_enabled(hedged);
        let mut took = Vec::new();
        for _ in 0..40 {
            let request = LlmRequest::chat("any", [Message::user("Quick!")]);
            let began = Instant::now();
            model.ready().await?.call(request).await?;
            took.push(began.elapsed());
        }
        took.sort_unstable();
        println!(
            "hedges {}: median {:?}, slowest {:?}",
            if hedged { "on" } else { "off" },
            took[20],
            took[39]
        );
    }
    println!(
        "{} hedges in {} calls; {} won, {} lost",
        handle.hedges(),
        handle.calls(),
        handle.won_by_hedge(),
        handle.won_by_first()
    );
    Ok(())
}
