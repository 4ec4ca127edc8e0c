//! Donjon's own parts and layers. **New layers are added here**, each `beside` the row of its nearest peer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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
    ]
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

    fn check(&self, _: &mut LlmRequest) -> Result<Permit, LlmError> {
        Ok(self.enter())
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
