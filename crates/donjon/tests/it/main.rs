//! The preset stack as its users meet it.

mod admission;
mod chaos;
mod drops;
mod hedge;
mod laws;
mod layers;
mod money;
mod resume;
mod scenarios;
mod targets;
mod together;

use std::time::Duration;

use donjon::{
    Body, ErrorKind, Ledger, LlmError, LlmRequest, LlmResponse, Message, Preset, Stack,
    failover::Target,
    providers::{OpenAi, Provider, transport::HttpClient},
    retry::RetryLayer,
    timeout::TimeoutLayer,
};
use donjon_testkit::upstream::{Script, Upstream};
use futures_util::StreamExt;
use tokio::time::Instant;

type Http = Provider<OpenAi, HttpClient>;

/// An upstream over real HTTP and in-memory IO, so that a paused clock governs it.
fn upstream<S: Into<Script>>(scripts: impl IntoIterator<Item = S>) -> Upstream {
    Upstream::builder()
        .scripts(scripts)
        .otherwise(Script::answer("served"))
        .in_memory()
}

/// One that plays `script` for every call.
fn always(script: impl Into<Script>) -> Upstream {
    Upstream::builder().otherwise(script).in_memory()
}

fn provider(upstream: &Upstream) -> Http {
    let codec = OpenAi::compatible("http://upstream.test/v1")
        .build()
        .expect("a good configuration");
    let client = HttpClient::builder()
        .proxy(donjon::providers::transport::Proxy::none())
        .build_with_connector(upstream.connector())
        .expect("a good configuration");
    Provider::new(codec, client)
}

/// The preset around these upstreams, named `t0`, `t1`, …
fn preset(upstreams: &[&Upstream]) -> Preset<Http> {
    let timeout = TimeoutLayer::builder()
        .first_token(Duration::from_secs(10))
        .idle(Duration::from_secs(15))
        .response(Duration::from_secs(90))
        .build()
        .expect("a good configuration");
    upstreams.iter().enumerate().fold(
        Preset::new()
            .retry(RetryLayer::default())
            .timeout(timeout)
            .total_timeout(Duration::from_secs(120)),
        |preset, (at, upstream)| preset.target(Target::new(format!("t{at}"), provider(upstream))),
    )
}

fn stack(upstreams: &[&Upstream]) -> Stack<Http> {
    preset(upstreams).build().expect("a good configuration")
}

fn unary() -> LlmRequest {
    LlmRequest::chat("asked", [Message::user("What is a donjon?")])
}

fn streamed() -> LlmRequest {
    unary().streamed()
}

/// What a caller got.
#[derive(Debug)]
struct Got {
    text: String,
    error: Option<LlmError>,
    target: Option<String>,
    model: Option<String>,
    committed_after: Duration,
    ended_after: Duration,
    sent: u32,
}

impl Got {
    fn kind(&self) -> Option<ErrorKind> {
        self.error.as_ref().map(LlmError::kind)
    }
}

/// Makes a call and reads it to its end.
async fn call(stack: &Stack<Http>, mut request: LlmRequest) -> Got {
    let began = Instant::now();
    let ledger = request.call.begin().clone();
    let result = stack.send(request).await;
    let committed_after = began.elapsed();
    let mut got = Got {
        text: String::new(),
        error: None,
        target: None,
        model: None,
        committed_after,
        ended_after: committed_after,
        sent: 0,
    };
    match result {
        Err(error) => got.error = Some(error),
        Ok(response) => read(response, &mut got).await,
    }
    got.ended_after = began.elapsed();
    got.sent = Ledger::sent(&ledger);
    got
}

async fn read(response: LlmResponse, got: &mut Got) {
    got.target = response.head.target.map(|name| name.to_string());
    got.model = Some(response.head.model.to_string());
    match response.body {
        Body::Complete(completion) => {
            let chat = completion.as_chat().expect("a chat");
            got.text = chat.first_text().into_owned();
        }
        Body::Stream(mut stream) => {
            while let Some(item) = stream.next().await {
                match item {
                    Ok(chunk) => got.text.push_str(
                        chunk
                            .choices
                            .first()
                            .and_then(|c| c.content.as_deref())
                            .unwrap_or_default(),
                    ),
                    Err(error) => got.error = Some(error),
                }
            }
        }
    }
}
