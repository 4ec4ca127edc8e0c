//! Donjon's own parts and layers. **New layers are added here**, each `beside` the row of its nearest peer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use donjon::Preset;
use donjon::failover::{Failover, Target};
use donjon::retry::RetryLayer;
use donjon::timeout::{DeadlineLayer, TimeoutLayer};
use donjon_benches::meter::Row;
use donjon_core::shape::{Admission, Admit, Check, CheckService, Gate};
use donjon_core::{BoxLlmService, CommitLayer, End, LlmError, LlmRequest, LlmResponse, Observer};
use tower::{Layer, Service};

use crate::leaf::{LEAF, model, model_without_ledger, open, request, streamed_request};

pub(crate) fn rows() -> Vec<Row> {
    vec![
        row(Row::leaf("leaf, opening no ledger"), model_without_ledger),
        row(Row::leaf(LEAF), model),
        row(above("commit"), |pending| {
            CommitLayer::new().layer(model(pending))
        }),
        row(above("check, observed"), |pending| {
            CheckService::new(model(pending), Counter::default())
        }),
        row(above("gate, observed"), |pending| {
            Gate::new(model(pending), Counter::default())
        })
        .beside("tower concurrency limit"),
        row(above("boxed service"), |pending| {
            BoxLlmService::new(model(pending))
        }),
        row(above("deadline"), |pending| {
            let minute = std::time::Duration::from_secs(60);
            DeadlineLayer::new(minute)
                .expect("a minute is some time")
                .layer(model(pending))
        }),
        row(above("timeout"), |pending| timeout().layer(model(pending))).beside("tower timeout"),
        row(above("retry"), |pending| {
            RetryLayer::default().layer(model(pending))
        })
        .beside("tower retry"),
        row(above("failover, one target"), |pending| {
            failover([model(pending)])
        }),
        row(above("failover, two targets"), |pending| {
            failover([model(pending), model(pending)])
        }),
        row(above("stack, two targets"), |pending| {
            let target = |name| Target::new(name, model(pending));
            Preset::new()
                .timeout(timeout())
                .total_timeout(std::time::Duration::from_secs(60))
                .target(target("main"))
                .target(target("spare"))
                .build()
                .expect("a good configuration")
        })
        .beside("tower-resilience, these five stacked"),
        row(above("stack with hedges, two targets"), |pending| {
            let target = |name| Target::new(name, model(pending));
            Preset::new()
                .timeout(timeout())
                .total_timeout(std::time::Duration::from_secs(60))
                .hedge(donjon::hedge::HedgeLayer::default())
                .target(target("main"))
                .target(target("spare"))
                .build()
                .expect("a good configuration")
        }),
    ]
}

fn timeout() -> TimeoutLayer {
    TimeoutLayer::builder()
        .first_token(std::time::Duration::from_secs(10))
        .idle(std::time::Duration::from_secs(15))
        .response(std::time::Duration::from_secs(90))
        .build()
        .expect("a good configuration")
}

fn failover<S, const N: usize>(services: [S; N]) -> Failover<S> {
    let targets = ["main", "spare"].into_iter().zip(services);
    Failover::builder()
        .targets(targets.map(|(name, service)| Target::new(name, service)))
        .build()
        .expect("a good configuration")
}

fn above(name: &str) -> Row {
    Row::above(LEAF, &format!("donjon {name}"))
}

/// A row in all modes.
fn row<S>(row: Row, make: impl Fn(bool) -> S + Clone + 'static) -> Row
where
    S: Service<LlmRequest, Response = LlmResponse, Error = LlmError, Future: Send>
        + Clone
        + Send
        + 'static,
{
    let streamed = make.clone();
    row.unary(make, request)
        .streamed(move || streamed(false), streamed_request, open)
}

/// Admits every call and counts those that are not over: the least a gate can do.
#[derive(Clone, Debug, Default)]
struct Counter(Arc<AtomicU64>);

impl Counter {
    fn enter(&self) -> Permit {
        self.0.fetch_add(1, Relaxed);
        Permit(Arc::clone(&self.0))
    }
}

impl Check for Counter {
    type Permit = Permit;

    fn check(&self, _: &mut LlmRequest) -> Result<Option<Permit>, LlmError> {
        Ok(Some(self.enter()))
    }
}

impl Admit for Counter {
    type Permit = Permit;
    type Wait = std::future::Pending<Result<Permit, LlmError>>;

    fn admit(&self, _: &mut LlmRequest) -> Admission<Permit, Self::Wait> {
        Admission::Yes(self.enter())
    }
}

#[derive(Debug)]
struct Permit(Arc<AtomicU64>);

impl Observer for Permit {
    fn end(&mut self, _: &End<'_>) {
        self.0.fetch_sub(1, Relaxed);
    }
}
