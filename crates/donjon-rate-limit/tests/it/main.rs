//! Integration tests of the rate limit layer.
#![cfg(not(loom))]

mod allocations;
mod contract;
mod handle;
mod keys;
mod learned;
mod limits;
mod many;
mod property;
mod recorded;
mod settle;
mod waits;

use std::time::Duration;

use donjon_core::{ErrorKind, Estimate, Identity, Key, LlmError, LlmRequest, LlmResponse, Message};
use donjon_rate_limit::{RateLimit, RateLimitBuilder, RateLimitHandle, RateLimitLayer};
use donjon_testkit::ScriptedLlm;
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt};

const SECOND: Duration = Duration::from_secs(1);
/// A timer is as fine as this.
const MILLI: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);

/// A sub-window of a minute, by which a limit is kept longer than its window at most.
const SLOT: Duration = Duration::from_nanos(937_500_000);

fn around(
    model: &ScriptedLlm,
    builder: RateLimitBuilder,
) -> (RateLimit<ScriptedLlm>, RateLimitHandle) {
    let layer: RateLimitLayer = builder.build().expect("sensible");
    let handle = layer.handle();
    (layer.layer(model.clone()), handle)
}

fn request() -> LlmRequest {
    LlmRequest::chat("m", [Message::user("Hi")])
}

/// One that is expected to use so many tokens.
fn expecting(input: u64, output: u64) -> LlmRequest {
    let mut request = request();
    request.call.estimate = Some(Estimate::new(input, output));
    request
}

fn of_tenant(tenant: &str) -> LlmRequest {
    request().on_behalf_of(Identity::builder().tenant(tenant).build())
}

async fn send<S>(service: &S, request: LlmRequest) -> Result<LlmResponse, LlmError>
where
    S: Service<LlmRequest, Response = LlmResponse, Error = LlmError> + Clone,
{
    let mut service = service.clone();
    service.ready().await?.call(request).await
}

async fn passes<S>(service: &S, request: LlmRequest)
where
    S: Service<LlmRequest, Response = LlmResponse, Error = LlmError> + Clone,
{
    let answer = send(service, request).await.expect("it passes");
    answer.collect().await.expect("a whole answer");
}

async fn refused<S>(service: &S, request: LlmRequest) -> LlmError
where
    S: Service<LlmRequest, Response = LlmResponse, Error = LlmError> + Clone,
{
    let error = send(service, request).await.expect_err("it is refused");
    assert_eq!(error.kind(), ErrorKind::LimitedLocally, "{error}");
    error
}

fn used(handle: &RateLimitHandle, limit: usize) -> u64 {
    handle.peek(&Key::Global)[limit].used
}

/// Calls come at these moments, from `start` on.
fn times(model: &ScriptedLlm, start: Instant) -> Vec<Duration> {
    model.calls().iter().map(|call| call.at - start).collect()
}
