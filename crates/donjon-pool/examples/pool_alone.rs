//! The pool alone, around a service of one's own that speaks no HTTP: a model in this process that
//! works on two answers at a time, and slows down beyond that.
//!
//! `cargo run -p donjon-pool --example pool_alone`
#![expect(clippy::print_stdout, reason = "a program that shows something")]

use std::{sync::Arc, time::Duration};

use donjon_core::{
    ChatCompletion, Head, Heard, Identity, Key, KeyBy, LlmError, LlmRequest, LlmResponse, Message,
    Priority, Snapshot,
};
use donjon_pool::{PoolLayer, Profile};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep},
};
use tower::{Layer, ServiceExt, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The service: anything that takes a request and gives an answer.
    let cores = Arc::new(Semaphore::new(2));
    let model = service_fn(move |request: LlmRequest| {
        let cores = cores.clone();
        async move {
            let _core = cores.acquire_owned().await.expect("it is open");
            sleep(Duration::from_millis(50)).await;
            let answer = ChatCompletion::text(request.model().clone(), "The keep.");
            let head = Head::new(request.model().clone());
            Ok::<_, LlmError>(LlmResponse::complete(head, answer))
        }
    });

    // Two calls at a time for people, one for what nobody waits for.
    let by_priority = KeyBy::custom(|request: &LlmRequest| {
        let for_people = request.call.priority > Priority::BATCH;
        Key::name(if for_people { "main" } else { "mini" })
    });
    let layer = PoolLayer::builder()
        .key_by(by_priority)
        .profile(Profile::new("main").size(2))
        .profile(Profile::new("mini").size(1).model("small-model"))
        .max_queued(8)
        .weight("acme", 2)
        .build()?;
    let handle = layer.handle();
    let mut events = handle.events().listen();
    let model = layer.layer(model);

    let began = Instant::now();
    let mut calls = JoinSet::new();
    for n in 0..12 {
        let tenant = if n % 2 == 0 { "acme" } else { "globex" };
        let priority = [Priority::NORMAL, Priority::BATCH][usize::from(n % 3 == 0)];
        let request = LlmRequest::chat("large-model", [Message::user("What is a donjon?")])
            .on_behalf_of(Identity::builder().tenant(tenant).build())
            .with_priority(priority)
            .with_timeout(Duration::from_secs(2));
        let model = model.clone();
        calls.spawn(async move { (n, tenant, model.oneshot(request).await) });
    }
    while let Some(done) = calls.join_next().await {
        let (n, tenant, answer) = done?;
        let after = began.elapsed().as_millis();
        match answer {
            Ok(answer) => println!(
                "{after:>4} ms  call {n:>2} of {tenant}: {}",
                answer.head.model
            ),
            Err(error) => println!("{after:>4} ms  call {n:>2} of {tenant}: {error}"),
        }
    }

    // A size can be changed while it runs.
    handle.resize_key(&Key::name("main"), 4)?;
    while let Some(Heard::Event(event)) = events.try_next() {
        println!("{event:?}");
    }
    for figure in handle.figures() {
        if figure.value > 0.0 {
            println!("pool_{} {:?} {}", figure.name, figure.labels, figure.value);
        }
    }
    Ok(())
}
