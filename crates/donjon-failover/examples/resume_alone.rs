//! A stream that breaks in the middle, and is continued: around two functions, one of which hangs up.
#![expect(clippy::print_stdout, reason = "a program that prints what happens")]

use std::future::ready;

use donjon_core::{
    BoxLlmService, Chunk, ErrorKind, FinishReason, Head, LlmError, LlmRequest, LlmResponse,
    Message, ResponseStream, Role,
};
use donjon_failover::{Failover, Resume, Target};
use futures_util::stream;
use tower::{Service, ServiceExt, service_fn};

const ANSWER: &str = "A donjon is the great tower of a castle: it stands when the walls do not.";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let hangs_up = service_fn(|request: LlmRequest| {
        let broken = LlmError::new(ErrorKind::StreamBroken, "the peer hung up");
        let shown = ANSWER.split_inclusive(' ').take(6).map(Chunk::text).map(Ok);
        ready(answer(&request, shown.chain([Err(broken)]).collect()))
    });
    // Given what was begun, it says the rest.
    let goes_on = service_fn(|request: LlmRequest| {
        let chat = request.as_chat().expect("a chat");
        let last = chat
            .messages
            .last()
            .filter(|last| last.role == Role::Assistant);
        let begun = last
            .map(|last| last.text().into_owned())
            .unwrap_or_default();
        println!("asked to go on after {begun:?}");
        let rest = ANSWER.strip_prefix(&*begun).unwrap_or(ANSWER);
        let rest = rest.split_inclusive(' ').map(Chunk::text).map(Ok);
        let end = [Ok(Chunk::finish(FinishReason::Stop))];
        ready(answer(&request, rest.chain(end).collect()))
    });

    let mut model = Failover::builder()
        .target(Target::new("main", BoxLlmService::new(hangs_up)))
        .target(Target::new("spare", BoxLlmService::new(goes_on)).continues(true))
        .resume(Resume::new())
        .build()?;
    let mut events = model.handle().listen();

    let request = LlmRequest::chat("any", [Message::user("What is a donjon?")]).streamed();
    let text = model.ready().await?.call(request).await?.text().await?;
    println!("{text}");
    assert_eq!(text, ANSWER);
    while let Some(event) = events.try_next() {
        println!("{event:?}");
    }
    Ok(())
}

fn answer(
    request: &LlmRequest,
    chunks: Vec<Result<Chunk, LlmError>>,
) -> Result<LlmResponse, LlmError> {
    let stream = ResponseStream::new(1, stream::iter(chunks));
    Ok(LlmResponse::stream(
        Head::new(request.model().clone()),
        stream,
    ))
}
