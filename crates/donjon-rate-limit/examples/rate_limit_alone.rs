//! The rate limit alone, around a service that is not HTTP: a model in this process, and ten callers of
//! two tenants. It ends by itself, in about four seconds.
//!
//! `cargo run -p donjon-rate-limit --example rate_limit_alone`
#![expect(clippy::print_stdout, reason = "an example that shows what happens")]

use std::time::Duration;

use donjon_core::{
    ChatCompletion, Estimate, Head, Identity, Key, KeyBy, LlmError, LlmRequest, LlmResponse,
    Message, Snapshot, Usage,
};
use donjon_rate_limit::{Limit, RateLimitLayer, Reason};
use tokio::{task::JoinSet, time::Instant};
use tower::{Layer, Service, ServiceExt, service_fn};

/// Answers with few words, and says what it used.
async fn model(request: LlmRequest) -> Result<LlmResponse, LlmError> {
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut answer = ChatCompletion::text("parrot-1", "Hello!");
    answer.usage = Some(Usage::new(10, 20));
    drop(request);
    Ok(LlmResponse::complete(Head::new("parrot-1"), answer))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let layer = RateLimitLayer::builder()
        .limit(Limit::requests(2).per_second())
        .limit(Limit::tokens(1_000).per_minute())
        .key_by(KeyBy::Tenant)
        .max_wait(Duration::from_secs(3))
        .for_callers()
        .build()?;
    let handle = layer.handle();
    let service = layer.layer(service_fn(model));

    let start = Instant::now();
    let mut calls = JoinSet::new();
    for number in 0..10 {
        let tenant = if number < 8 { "busy" } else { "calm" };
        let mut service = service.clone();
        let mut request = LlmRequest::chat("parrot-1", [Message::user("Hi")])
            .on_behalf_of(Identity::builder().tenant(tenant).build());
        request.call.estimate = Some(Estimate::new(10, 90));
        calls.spawn(async move {
            let answer = service.ready().await?.call(request).await;
            let at = start.elapsed().as_secs_f64();
            match answer {
                Ok(_) => println!("{at:.2} s: {tenant} was answered"),
                Err(error) => println!("{at:.2} s: {tenant} was refused: {error}"),
            }
            Ok::<_, LlmError>(())
        });
    }
    while let Some(call) = calls.join_next().await {
        call??;
    }

    // Each answer was charged 100 tokens, and used 30.
    for tenant in ["busy", "calm"] {
        let standing = &handle.peek(&Key::name(tenant))[1];
        println!(
            "{tenant}: {} of {} are left",
            standing.remaining(),
            standing.limit
        );
    }
    println!(
        "{} admitted, {} of them after a wait, {} refused",
        handle.admitted(),
        handle.waited(),
        handle.refused(Reason::MaxWait)
    );
    println!("{} figures for exporters", handle.figures().len());
    Ok(())
}
