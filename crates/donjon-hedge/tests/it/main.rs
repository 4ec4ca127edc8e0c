//! Integration tests of the hedge layer, over scripted models and a paused clock.
#![cfg(not(loom))]

mod allocations;
mod attempts;
mod budget;
mod config;
mod contract;
mod delay;
mod limits;
mod model;
mod race;

use std::time::Duration;

use donjon_core::{ErrorKind, LlmError, LlmRequest, LlmResponse, Message};
use donjon_hedge::{Hedge, HedgeBuilder, HedgeLayer};
use donjon_testkit::{Script, ScriptedLlm};
use tower::{Layer, Service, ServiceExt};

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

/// A hedge after a second.
fn after_a_second() -> HedgeBuilder {
    HedgeLayer::builder().delay(SECOND).budget(1.0)
}

fn layer(builder: HedgeBuilder) -> HedgeLayer {
    builder.build().expect("sensible")
}

fn around(model: &ScriptedLlm) -> Hedge<ScriptedLlm> {
    layer(after_a_second()).layer(model.clone())
}

/// A model that commits, and plays these one after the other.
fn plays<S: Into<Script>>(scripts: impl IntoIterator<Item = S>) -> ScriptedLlm {
    let model = ScriptedLlm::new("more").commits();
    scripts.into_iter().for_each(|script| model.push(script));
    model
}

fn slow(text: &str, wait: Duration) -> Script {
    Script::answer(text).first_token_after(wait)
}

fn failing(after: Duration) -> Script {
    Script::fail(ErrorKind::ServerError).head_after(after)
}

fn request() -> LlmRequest {
    LlmRequest::chat("m", [Message::user("Hi")])
}

fn streamed() -> LlmRequest {
    request().streamed()
}

/// Asks, and fails rather than hangs.
async fn ask<S>(service: &S, request: LlmRequest) -> Result<LlmResponse, LlmError>
where
    S: Service<LlmRequest, Response = LlmResponse, Error = LlmError> + Clone,
{
    let call = service.clone().oneshot(request);
    tokio::time::timeout(3600 * SECOND, call)
        .await
        .expect("it hangs")
}

async fn text(response: Result<LlmResponse, LlmError>) -> String {
    let response = response.expect("it is answered");
    donjon_testkit::probe::collect_text(response)
        .await
        .expect("a whole answer")
}
