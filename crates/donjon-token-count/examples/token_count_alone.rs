//! The token count alone, around a service of one's own that is no HTTP: a model in this process with a small window and a
//! tokenizer that nobody publishes. It shows estimates that are corrected, a conversation that is made to fit, and a refusal.
//!
//! `cargo run -p donjon-token-count --example token_count_alone`
#![expect(clippy::print_stdout, reason = "a program that prints what happens")]

use std::{
    future::{Ready, ready},
    task::{Context, Poll},
};

use donjon_core::{ChatCompletion, Head, Heard, LlmError, LlmRequest, LlmResponse, Message, Usage};
use donjon_token_count::{Estimator, Model, Rules, TokenCountLayer, TokenEvent};
use tower::{Layer, Service, ServiceExt};

/// A model in this process. Its tokens are three letters long.
#[derive(Clone)]
struct Local;

impl Service<LlmRequest> for Local {
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = Ready<Result<LlmResponse, LlmError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LlmError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: LlmRequest) -> Self::Future {
        let messages = request.as_chat().map(|chat| &chat.messages[..]);
        let messages = messages.unwrap_or_default().iter();
        let input = messages
            .map(|message| message.text().len() as u64 / 3)
            .sum();
        let mut answer = ChatCompletion::text("local", "Tell me more about the castle, please.");
        answer.usage = Some(Usage::new(input, 8));
        ready(Ok(LlmResponse::complete(Head::new("local"), answer)))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let local = Model::new(Estimator::new("local").doubt(0.4), Rules::plain())
        .context(600)
        .max_output(100);
    let layer = TokenCountLayer::builder()
        .model("local", local)
        .trim(true)
        .build()?;
    let handle = layer.handle();
    let mut events = handle.events().listen();
    let mut service = layer.layer(Local);

    let mut conversation = vec![Message::system("You know castles.")];
    for turn in 1..=12 {
        let text = "The donjon is the strongest tower of a castle. ".repeat(turn.min(4));
        conversation.push(Message::user(text));
        let request = LlmRequest::chat("local", conversation.clone());
        let count = handle.count(&request);
        let answer = service.ready().await?.call(request).await?;
        let (_, answer) = answer.collect().await?;
        println!("turn {turn:>2}: {count}");
        while let Some(Heard::Event(TokenEvent::Trimmed { messages, .. })) = events.try_next() {
            println!("         {messages} messages are left out");
        }
        conversation.push(Message::assistant(answer.text().into_owned()));
    }

    let book = LlmRequest::chat("local", [Message::user("castle ".repeat(5_000))]);
    let refused = service.ready().await?.call(book).await;
    println!("{}", refused.err().ok_or("it is too long")?);
    let figures = handle.figures_of("local");
    println!(
        "estimated {} tokens, actually {}; {:.0} % off in the mean",
        figures.estimated,
        figures.actual,
        figures.mean_error().unwrap_or_default() * 100.0
    );
    println!(
        "estimates are multiplied by {:.2}",
        handle
            .corrections()
            .iter()
            .find(|c| c.tokenizer == "local")
            .map_or(1.0, |c| c.factor)
    );
    Ok(())
}
