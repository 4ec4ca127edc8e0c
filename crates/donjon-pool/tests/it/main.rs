//! Integration tests of the pool.
#![cfg(not(loom))]

mod adaptive;
mod admission;
mod allocations;
mod clients;
mod conservation;
mod contract;
mod fairness;
mod figures;
mod keys;
mod signals;

use std::time::Duration;

use donjon_core::{Identity, LlmError, LlmRequest, LlmResponse, Message};
use donjon_pool::{Pool, PoolBuilder, PoolHandle, PoolLayer};
use donjon_testkit::{Script, ScriptedLlm};
use tokio::task::JoinHandle;
use tower::{Layer, Service, ServiceExt};

const SECOND: Duration = Duration::from_secs(1);

type Answer = Result<LlmResponse, LlmError>;

fn request() -> LlmRequest {
    LlmRequest::chat("m", [Message::user("Hi")])
}

fn of_tenant(tenant: &str) -> LlmRequest {
    request().on_behalf_of(Identity::builder().tenant(tenant).build())
}

fn sized(size: u32) -> PoolBuilder {
    PoolLayer::builder().size(size)
}

/// A model that answers after so long.
fn slow(after: Duration) -> ScriptedLlm {
    ScriptedLlm::new(Script::answer("Hello.").head_after(after))
}

fn around(model: &ScriptedLlm, builder: PoolBuilder) -> (Pool<ScriptedLlm>, PoolHandle) {
    let layer = builder.build().expect("sensible");
    (layer.layer(model.clone()), layer.handle())
}

async fn send<S>(service: &S, request: LlmRequest) -> Answer
where
    S: Service<LlmRequest, Response = LlmResponse, Error = LlmError> + Clone,
{
    let mut service = service.clone();
    let answer = async { service.ready().await?.call(request).await };
    // The clock is paused: what never ends fails at once.
    let answer = tokio::time::timeout(SECOND * 1_000_000, answer).await;
    answer.expect("a call ends")
}

/// Sends it in a task of its own, which has come to its first wait on return.
async fn spawn(service: &Pool<ScriptedLlm>, request: LlmRequest) -> JoinHandle<Answer> {
    let service = service.clone();
    let task = tokio::spawn(async move { send(&service, request).await });
    settle().await;
    task
}

/// Lets every task come to where it waits.
async fn settle() {
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
}
