//! Integration tests of the cache.
#![cfg(not(loom))]

mod allocations;
mod answers;
mod bounds;
mod contract;
mod flight;
mod invalidation;
mod kept;
mod key;
mod semantic;
mod stale;
mod store;
mod strategies;
mod streams;

use std::time::Duration;

use donjon_cache::{CacheBuilder, CacheHandle, CacheLayer, CacheService, Strategy};
use donjon_core::{Chunk, Delivery, Identity, LlmError, LlmRequest, LlmResponse, Message, Origin};
use donjon_testkit::ScriptedLlm;
use tower::{Layer, Service, ServiceExt};

const SECOND: Duration = Duration::from_secs(1);

/// Keeps everything for a minute.
fn plain() -> CacheBuilder {
    CacheLayer::builder()
        .strategy(Strategy::Aggressive)
        .ttl(60 * SECOND)
        .max_bytes(16 << 20)
}

type Cached = CacheService<ScriptedLlm>;

fn around(model: &ScriptedLlm, builder: CacheBuilder) -> (Cached, CacheHandle) {
    let layer = builder.build().expect("sensible");
    (layer.layer(model.clone()), layer.handle())
}

fn ask(text: &str) -> LlmRequest {
    LlmRequest::chat("m", [Message::user(text)])
}

fn of_tenant(request: LlmRequest, tenant: &str) -> LlmRequest {
    request.on_behalf_of(Identity::builder().tenant(tenant).build())
}

fn told_no_usage(mut request: LlmRequest) -> LlmRequest {
    request.delivery = Delivery::Stream { usage: false };
    request
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

/// The text of the answer, and where it came from.
async fn hear<S>(service: &S, request: LlmRequest) -> (String, Origin)
where
    S: Service<LlmRequest, Response = LlmResponse, Error = LlmError> + Clone,
{
    let answer = send(service, request).await.expect("an answer");
    let origin = answer.head.origin;
    (answer.text().await.expect("whole"), origin)
}

async fn fails<S>(service: &S, request: LlmRequest) -> LlmError
where
    S: Service<LlmRequest, Response = LlmResponse, Error = LlmError> + Clone,
{
    send(service, request).await.expect_err("it fails")
}

/// Every chunk of a stream.
async fn chunks(answer: LlmResponse) -> Vec<Chunk> {
    let donjon_core::Body::Stream(mut stream) = answer.body else {
        panic!("not a stream");
    };
    let mut all = Vec::new();
    while let Some(chunk) = stream.next_chunk().await {
        all.push(chunk.expect("no error"));
    }
    all
}

/// A chunk as it would go out.
fn written(chunks: &[Chunk]) -> Vec<String> {
    let json = |chunk| serde_json::to_string(chunk).expect("it can be written");
    chunks.iter().map(json).collect()
}

/// Lets background tasks come to rest.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}
