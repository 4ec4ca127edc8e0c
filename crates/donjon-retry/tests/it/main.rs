//! Integration tests of the retry layer.
#![cfg(not(loom))]

mod allocations;
mod attempts;
mod budget;
mod contract;
mod figures;
mod waits;

use std::time::Duration;

use donjon_core::{Classify, ErrorKind, LlmError, LlmRequest, LlmResponse, Message};
use donjon_retry::{Backoff, Jitter, Retry, RetryBudget, RetryBuilder, RetryLayer};
use donjon_testkit::{Script, ScriptedLlm};
use tower::{Layer, Service, ServiceExt};

const SECOND: Duration = Duration::from_secs(1);

/// Three attempts, a second apart, without a budget.
fn plain() -> RetryBuilder {
    RetryLayer::builder()
        .backoff(Backoff::fixed(SECOND).jitter(Jitter::None))
        .budget(RetryBudget::unlimited())
}

fn around<C: Classify>(model: &ScriptedLlm, builder: RetryBuilder<C>) -> Retry<ScriptedLlm, C> {
    builder.build().expect("sensible").layer(model.clone())
}

fn failing(error: impl Into<Script>) -> ScriptedLlm {
    ScriptedLlm::new(error.into())
}

fn request() -> LlmRequest {
    LlmRequest::chat("m", [Message::user("Hi")])
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

async fn fails<S>(service: &S, request: LlmRequest) -> LlmError
where
    S: Service<LlmRequest, Response = LlmResponse, Error = LlmError> + Clone,
{
    send(service, request).await.expect_err("it fails")
}

fn limited() -> LlmError {
    LlmError::new(ErrorKind::RateLimited, "slow down").with_status(429)
}

/// When each call reached the model, from the first on.
fn gaps(model: &ScriptedLlm) -> Vec<Duration> {
    let calls = model.calls();
    calls.windows(2).map(|two| two[1].at - two[0].at).collect()
}
