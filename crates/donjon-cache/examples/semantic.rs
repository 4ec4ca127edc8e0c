//! Answers what was asked in nearly the same words, around a model of one's own.
#![expect(clippy::print_stdout, reason = "an example that shows what it does")]

use std::{error::Error, sync::Arc};

use donjon_cache::semantic::SemanticLayer;
use donjon_core::{ChatCompletion, Head, LlmError, LlmRequest, LlmResponse, Message};
use tower::{Layer, Service, ServiceExt, service_fn};

/// How often each letter occurs. A real embedding would be a model, here or at a provider.
fn letters(text: &str) -> Vec<f32> {
    let mut counts = vec![0.0; 26];
    for letter in text.to_ascii_lowercase().bytes() {
        if letter.is_ascii_lowercase() {
            counts[usize::from(letter - b'a')] += 1.0;
        }
    }
    counts
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let embedding = service_fn(|text: Arc<str>| async move { Ok::<_, LlmError>(letters(&text)) });
    let model = service_fn(|request: LlmRequest| async move {
        let model = request.model().clone();
        let answer = ChatCompletion::text(model.clone(), "A donjon is a fortified keep.");
        Ok::<_, LlmError>(LlmResponse::complete(Head::new(model), answer))
    });

    let layer = SemanticLayer::builder(embedding).build()?;
    let mut model = layer.layer(model);
    for text in [
        "What is a donjon?",
        "what's a donjon",
        "How tall is a tower?",
    ] {
        let request = LlmRequest::chat("parrot-1", [Message::user(text)]);
        let answer = model.ready().await?.call(request).await?;
        println!("{text:<24} from {}", answer.head.origin.as_str());
    }
    let handle = layer.handle();
    println!(
        "{} of {} were near",
        handle.hits(),
        handle.hits() + handle.misses()
    );
    Ok(())
}
