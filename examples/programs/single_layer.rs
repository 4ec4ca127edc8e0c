//! One crate alone: `donjon-retry`, around a service of your own that speaks no HTTP.
//!
//! ```console
//! cargo run --release --example single_layer
//! ```
//!
//! The service is a small model inside this process, with errors of its own. It needs nothing of
//! Donjon but the words of a request and an answer (`donjon-core`), and tower's own layers stack
//! with it as they do with anything.

#![expect(clippy::print_stdout, reason = "a program")]

use std::{error::Error, time::Duration};

use donjon_core::{
    ChatCompletion, ErrorKind, Head, LlmError, LlmRequest, LlmResponse, Message, Snapshot,
};
use donjon_retry::{Backoff, GiveUp, RetryBudget, RetryLayer};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};
use tower::{ServiceBuilder, ServiceExt, service_fn};

/// What goes wrong in the model.
enum Fault {
    /// Its weights are not loaded yet.
    Loading { ready_in: Duration },
    /// Its memory was full at that moment.
    OutOfMemory,
    /// It takes no more than so many words.
    TooLong { most: usize },
}

/// All that a layer needs to know of it: which kind of error it is. The kind decides whether asking
/// again can help; here a prompt that is too long is not asked twice.
impl From<Fault> for LlmError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Loading { ready_in } => {
                Self::new(ErrorKind::Overloaded, "loading the weights").with_retry_after(ready_in)
            }
            Fault::OutOfMemory => Self::new(ErrorKind::ServerError, "out of memory"),
            Fault::TooLong { most } => {
                Self::new(ErrorKind::ContextLength, format!("more than {most} words"))
            }
        }
    }
}

/// Repeats the longest word of the prompt.
async fn generate(request: LlmRequest, loaded_at: Instant) -> Result<LlmResponse, Fault> {
    let ready_in = loaded_at.saturating_duration_since(Instant::now());
    if !ready_in.is_zero() {
        return Err(Fault::Loading { ready_in });
    }
    sleep(Duration::from_millis(5)).await;
    if fastrand::u32(..10) < 3 {
        return Err(Fault::OutOfMemory);
    }
    let prompt = request.as_chat().map(|chat| chat.messages[0].text());
    let prompt = prompt.as_deref().unwrap_or_default();
    if prompt.split_whitespace().count() > 8 {
        return Err(Fault::TooLong { most: 8 });
    }
    let longest = prompt.split_whitespace().max_by_key(|word| word.len());
    let answer = ChatCompletion::text(request.model().clone(), longest.unwrap_or_default());
    Ok(LlmResponse::complete(
        Head::new(request.model().clone()),
        answer,
    ))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let retry = RetryLayer::builder()
        .max_attempts(5)
        .backoff(Backoff::exponential(Duration::from_millis(10)))
        // Calls earn retries, one for five of them. A dozen calls to a model that is still loading
        // have earned too few, so that some are given in advance; 10 in 10 s is the default.
        .budget(RetryBudget::builder().reserve(50).build()?)
        .build()?;
    let handle = retry.handle();

    let loaded_at = Instant::now() + Duration::from_millis(60);
    let model = ServiceBuilder::new()
        .layer(retry)
        // tower's own. Inside retry: a call that waits for its next attempt holds no place.
        .concurrency_limit(4)
        .service(service_fn(move |request| generate(request, loaded_at)));

    let prompts = (1..=12).map(|words| vec!["stone"; words].join(" ") + "work");
    let calls = prompts.map(|prompt| {
        let request = LlmRequest::chat("longest-word-1", [Message::user(prompt)]);
        model.clone().oneshot(request)
    });
    for (number, result) in join_all(calls).await.into_iter().enumerate() {
        match result {
            Ok(response) => {
                let (_, answer) = response.collect().await?;
                let text = answer.as_chat().map(|chat| chat.first_text().into_owned());
                println!("{:2} words: {}", number + 1, text.unwrap_or_default());
            }
            Err(error) => println!("{:2} words: {error}", number + 1),
        }
    }

    println!(
        "\n{} calls, {} retries, of which",
        handle.calls(),
        handle.retries()
    );
    for kind in [ErrorKind::Overloaded, ErrorKind::ServerError] {
        println!("  {} after {kind}", handle.retries_after(kind));
    }
    println!("{} calls succeeded by a retry", handle.recovered());
    println!(
        "{} errors that asking again does not mend",
        handle.gave_up(GiveUp::NotRetryable)
    );

    // What an exporter reads, of this layer or any other.
    println!("\nas an exporter sees it:");
    for figure in handle.figures() {
        let labels = figure
            .labels
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        let labels = labels.collect::<Vec<_>>().join(",");
        println!(
            "  {}_{}{{{labels}}} {}",
            handle.layer(),
            figure.name,
            figure.value
        );
    }
    Ok(())
}
