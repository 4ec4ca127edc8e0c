//! Integration tests of the timeout layer.

mod allocations;
mod config;
mod contract;
mod deadline;
mod folded;
mod streams;
mod unary;

use std::time::Duration;

use donjon_core::{
    Body, ErrorKind, LlmError, LlmRequest, LlmResponse, Message, ResponseStream, TimeoutClock,
};
use donjon_testkit::{Script, ScriptedLlm};
use donjon_timeout::{Timeout, TimeoutLayer, Timeouts};
use tower::{Layer, Service, ServiceExt};

const SECOND: Duration = Duration::from_secs(1);

fn around(model: &ScriptedLlm, timeouts: Timeouts) -> Timeout<ScriptedLlm> {
    TimeoutLayer::new(timeouts)
        .expect("sensible")
        .layer(model.clone())
}

fn model(script: impl Into<Script>) -> ScriptedLlm {
    ScriptedLlm::new(script).commits()
}

fn request() -> LlmRequest {
    LlmRequest::chat("m", [Message::user("Hi")])
}

fn streamed() -> LlmRequest {
    request().streamed()
}

async fn send<S>(service: &S, request: LlmRequest) -> Result<LlmResponse, LlmError>
where
    S: Service<LlmRequest, Response = LlmResponse, Error = LlmError> + Clone,
{
    let mut service = service.clone();
    let answer = async { service.ready().await?.call(request).await };
    // The clock is paused: what never ends fails at once.
    let answer = tokio::time::timeout(SECOND * 1_000_000, answer).await;
    answer.expect("a call ends")
}

async fn open<S>(service: &S, request: LlmRequest) -> ResponseStream
where
    S: Service<LlmRequest, Response = LlmResponse, Error = LlmError> + Clone,
{
    let answer = send(service, request).await.expect("it commits");
    let Body::Stream(stream) = answer.body else {
        unreachable!("a stream was asked for");
    };
    stream
}

/// Reads a stream to its end: the words that it shows, and the error that it ends with.
async fn read(mut stream: ResponseStream) -> (usize, Option<LlmError>) {
    let mut words = 0;
    loop {
        let next = tokio::time::timeout(SECOND * 1_000_000, stream.next_chunk()).await;
        let Some(chunk) = next.expect("a stream goes on") else {
            break;
        };
        match chunk {
            Ok(chunk) => words += usize::from(chunk.text().is_some()),
            Err(error) => {
                assert!(stream.next_chunk().await.is_none(), "an error is the end");
                return (words, Some(error));
            }
        }
    }
    (words, None)
}

const fn ran_out(clock: TimeoutClock) -> ErrorKind {
    ErrorKind::Timeout(clock)
}
