//! The semantic tier. Here a text is a number of degrees, and its vector points there.

mod contract;
mod embedding;
mod near;
mod rooms;

use std::{future::Ready, sync::Arc};

use donjon_cache::semantic::{SemanticBuilder, SemanticHandle, SemanticLayer, SemanticService};
use donjon_core::{BoxError, LlmRequest, Origin};
use donjon_testkit::ScriptedLlm;
use tower::{Layer, Service, service_fn};

use crate::hear;

type Near = SemanticService<ScriptedLlm>;

/// Every number of the text is added up; words are nothing.
fn vector(text: &str) -> Vec<f32> {
    let numbers = text.split(|c: char| !c.is_ascii_digit());
    let degrees: f32 = numbers.filter_map(|n| n.parse::<f32>().ok()).sum();
    let (sin, cos) = degrees.to_radians().sin_cos();
    vec![cos, sin]
}

fn degrees() -> impl Service<
    Arc<str>,
    Response = Vec<f32>,
    Error = BoxError,
    Future = Ready<Result<Vec<f32>, BoxError>>,
> + Clone
+ Send
+ Sync
+ 'static {
    service_fn(|text: Arc<str>| std::future::ready(Ok(vector(&text))))
}

/// The threshold is at 18.2 degrees.
fn plain() -> SemanticBuilder {
    SemanticLayer::builder(degrees())
}

fn around(model: &ScriptedLlm, builder: SemanticBuilder) -> (Near, SemanticHandle) {
    let layer = builder.build().expect("sensible");
    (layer.layer(model.clone()), layer.handle())
}

/// Whether it was answered from what is kept.
async fn is_near(service: &Near, request: LlmRequest) -> bool {
    hear(service, request).await.1 == Origin::Cache
}
