//! Integration tests of failover, over scripted models and a paused clock.

mod contract;
mod cost;
mod course;
mod drops;
mod errors;
mod handle;
mod health;
mod health_model;
mod ledger;
mod live;
mod model;
mod probes;
mod readiness;
mod resume;
mod rivals;
mod routing;
mod streams;

use std::time::Duration;

use donjon_core::{ErrorKind, LlmError, LlmRequest, LlmResponse, Message};
use donjon_failover::{Failover, FailoverBuilder, Target};
use donjon_testkit::{Script, ScriptedLlm};
use tower::{Service, ServiceExt};

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

fn request() -> LlmRequest {
    LlmRequest::chat("asked", [Message::user("Hello?")])
}

/// A model that commits, and always plays `script`.
fn model(script: impl Into<Script>) -> ScriptedLlm {
    ScriptedLlm::new(script).commits()
}

/// Targets `a`, `b`, and so on.
fn builder<S: Clone>(services: &[S]) -> FailoverBuilder<S> {
    let targets = NAMES.iter().zip(services);
    Failover::builder().targets(targets.map(|(name, service)| Target::new(*name, service.clone())))
}

fn failover<S: Clone>(services: &[S]) -> Failover<S> {
    builder(services).build().expect("a good configuration")
}

/// Asks, and fails rather than hangs.
async fn ask<S>(service: &S, request: LlmRequest) -> Result<LlmResponse, LlmError>
where
    S: Service<LlmRequest, Response = LlmResponse, Error = LlmError> + Clone,
{
    let call = service.clone().oneshot(request);
    let within = Duration::from_secs(3600);
    tokio::time::timeout(within, call).await.expect("it hangs")
}

/// Who served.
fn served(answer: &Result<LlmResponse, LlmError>) -> &str {
    let answer = answer.as_ref().expect("somebody serves");
    answer.head.target.as_deref().expect("it has a name")
}

fn counts(models: &[ScriptedLlm]) -> Vec<usize> {
    models.iter().map(ScriptedLlm::count).collect()
}

fn reasons(error: &LlmError) -> Vec<(&str, ErrorKind)> {
    let attempts = error.attempts().iter();
    attempts.map(|a| (&*a.target, a.error.kind())).collect()
}
