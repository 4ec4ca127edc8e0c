//! The cache alone, around a service of one's own that speaks no HTTP: a slow model in this process.
//!
//! `cargo run -p donjon-cache --example cache_alone`
#![expect(clippy::print_stdout, reason = "a program that shows something")]

use std::time::Duration;

use donjon_cache::{CacheLayer, Invalidate, Strategy};
use donjon_core::{
    ChatCompletion, Head, Heard, Identity, LlmError, LlmRequest, LlmResponse, Message, Snapshot,
};
use tokio::time::{Instant, sleep};
use tower::{Layer, ServiceExt, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The service: anything that takes a request and gives an answer.
    let model = service_fn(|request: LlmRequest| async move {
        sleep(Duration::from_millis(50)).await;
        let answer = ChatCompletion::text(request.model().clone(), "The keep of a castle.");
        let head = Head::new(request.model().clone());
        Ok::<_, LlmError>(LlmResponse::complete(head, answer))
    });

    let layer = CacheLayer::builder()
        .strategy(Strategy::Conservative)
        .ttl(Duration::from_secs(600))
        .stale_if_error(Duration::from_secs(3_600))
        .max_bytes(16 << 20)
        .build()?;
    let handle = layer.handle();
    let mut events = handle.events().listen();
    let model = layer.layer(model);

    let ask = |tenant: &str| {
        LlmRequest::chat("some-model", [Message::user("What is a donjon?")])
            .on_behalf_of(Identity::builder().tenant(tenant).build())
    };
    let show = async |what: &str, request: LlmRequest| {
        let began = Instant::now();
        let answer = model.clone().oneshot(request).await?;
        let origin = answer.head.origin;
        let text = answer.text().await?;
        let took = began.elapsed().as_millis();
        println!("{what:<32} {took:>3} ms  {origin:?}: {text}");
        Ok::<_, LlmError>(())
    };

    // Two who ask the same at the same time are one call.
    let (one, other) = tokio::join!(
        show("asked for the first time", ask("acme")),
        show("and by another just then", ask("acme")),
    );
    one.and(other)?;
    show("again", ask("acme")).await?;
    show("again, as a stream", ask("acme").streamed()).await?;
    show("by another tenant", ask("globex")).await?;
    let gone = handle.invalidate(Invalidate::tenant("acme"));
    println!("{gone} answer of acme is forgotten");
    show("after that", ask("acme")).await?;

    while let Some(Heard::Event(event)) = events.try_next() {
        println!("{event:?}");
    }
    for figure in handle.figures() {
        if figure.value > 0.0 {
            println!("cache_{} {:?} {}", figure.name, figure.labels, figure.value);
        }
    }
    Ok(())
}
