//! Single flight.

mod apart;
mod contract;
mod deadlines;
mod interleavings;
mod many;
mod streams;

use donjon_cache::flight::{Flights, SingleFlight, SingleFlightLayer};
use donjon_core::{LlmError, LlmRequest, LlmResponse, Message};
use donjon_testkit::ScriptedLlm;
use std::time::Duration;
use tower::{Layer, Service, ServiceExt};

const SECOND: Duration = Duration::from_secs(1);

fn around(model: &ScriptedLlm) -> (SingleFlight<ScriptedLlm>, Flights) {
    let layer = SingleFlightLayer::default();
    (layer.layer(model.clone()), layer.handle())
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
