//! Hedging, with a delay that is never reached: what a call pays that is answered in time.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use donjon_benches::meter::Row;
use donjon_core::{LlmError, LlmRequest, LlmResponse};
use donjon_failover::{Failover, Target};
use donjon_hedge::{HedgeDelay, HedgeLayer};
use tower::hedge::{Hedge, Policy};
use tower::{Layer, Service, ServiceExt};
use tower_resilience::hedge::HedgeLayer as PeerLayer;

use crate::leaf::{LEAF, Model, model, open, request, streamed_request};

pub(crate) fn rows() -> Vec<Row> {
    vec![
        row("hedge, fixed delay", |pending| {
            fixed().layer(model(pending))
        })
        .beside("tower-resilience hedge"),
        row("hedge, percentile", |pending| live().layer(model(pending))).beside("tower hedge"),
        row("hedge, not of this request", |pending| {
            let layer = HedgeLayer::builder().when(|_| false).build();
            layer.expect("a good configuration").layer(model(pending))
        }),
        row("hedge around failover", |pending| {
            live().layer(failover(pending))
        }),
        Row::above(LEAF, "tower hedge").unary_alone(
            |pending| Hedge::new::<LlmRequest>(model(pending), All, 10, 0.95, HOUR),
            request,
        ),
        Row::above(LEAF, "tower-resilience hedge").unary_alone(
            |pending| {
                let layer = PeerLayer::builder().delay(HOUR).max_hedged_attempts(2);
                // It asks for answers that are `Sync`.
                let model = model(pending).map_response(Mutex::new);
                let hedged = layer.build().layer(model);
                hedged.map_response(|answer| {
                    let answer: Mutex<LlmResponse> = answer;
                    answer.into_inner().unwrap_or_else(PoisonError::into_inner)
                })
            },
            request,
        ),
    ]
}

const HOUR: Duration = Duration::from_secs(3_600);

fn fixed() -> HedgeLayer {
    let layer = HedgeLayer::builder().delay(HOUR).build();
    layer.expect("a good configuration")
}

fn live() -> HedgeLayer {
    let delay = HedgeDelay::percentile(0.95).at_least(HOUR);
    let layer = HedgeLayer::builder().delay(delay).build();
    layer.expect("a good configuration")
}

fn failover(pending: bool) -> Failover<Model> {
    let targets = ["main", "spare"].map(|name| Target::new(name, model(pending)));
    Failover::builder()
        .targets(targets)
        .build()
        .expect("a good configuration")
}

fn row<S>(name: &str, make: impl Fn(bool) -> S + Clone + 'static) -> Row
where
    S: Service<LlmRequest, Response = LlmResponse, Error = LlmError, Future: Send>
        + Clone
        + Send
        + 'static,
{
    let streamed = make.clone();
    Row::above(LEAF, &format!("donjon {name}"))
        .unary(make, request)
        .streamed(move || streamed(false), streamed_request, open)
}

/// Every request may be made twice.
#[derive(Clone, Copy)]
struct All;

impl<R: Clone> Policy<R> for All {
    fn clone_request(&self, request: &R) -> Option<R> {
        Some(request.clone())
    }

    fn can_retry(&self, _: &R) -> bool {
        true
    }
}
