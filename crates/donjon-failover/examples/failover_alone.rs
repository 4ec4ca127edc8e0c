//! Failover alone, around two functions: one fails for a while, is left alone, and comes back.
#![expect(clippy::print_stdout, reason = "a program that prints what happens")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use donjon_core::{
    BoxLlmService, ChatCompletion, ErrorKind, Head, LlmError, LlmRequest, LlmResponse, Message,
};
use donjon_failover::{Failover, HealthPolicy, Target};
use tower::{Service, ServiceExt, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broken = Arc::new(AtomicBool::new(true));
    let switch = broken.clone();
    let main = service_fn(move |request: LlmRequest| {
        let broken = switch.load(Relaxed);
        async move {
            if broken {
                return Err(LlmError::new(ErrorKind::Unavailable, "down for repairs"));
            }
            Ok(answer(&request, "main"))
        }
    });
    let spare =
        service_fn(
            |request: LlmRequest| async move { Ok::<_, LlmError>(answer(&request, "spare")) },
        );

    let health = HealthPolicy::new()
        .consecutive_failures(2)
        .out_for(Duration::from_millis(50))
        .return_over(Duration::from_millis(200));
    let mut model = Failover::builder()
        .target(Target::new("main", BoxLlmService::new(main)))
        .target(Target::new("spare", BoxLlmService::new(spare)).priority(1))
        .health(health)
        .build()?;
    let handle = model.handle();
    let mut events = handle.listen();

    for call in 0..60 {
        if call == 20 {
            broken.store(false, Relaxed);
        }
        let request = LlmRequest::chat("any", [Message::user("Who are you?")]);
        model.ready().await?.call(request).await?;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    while let Some(event) = events.try_next() {
        println!("{event:?}");
    }
    for target in handle.targets() {
        println!(
            "{}: {} calls, {} failed, {}",
            target.name,
            target.calls,
            target.failed(),
            target.status
        );
    }
    Ok(())
}

fn answer(request: &LlmRequest, text: &str) -> LlmResponse {
    let head = Head::new(request.model().clone());
    LlmResponse::complete(head, ChatCompletion::text(request.model().clone(), text))
}
