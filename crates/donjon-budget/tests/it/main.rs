//! Integration tests of the budget layer.
#![cfg(not(loom))]

mod advice;
mod allocations;
mod clock;
mod contract;
mod failing;
#[cfg(feature = "file-store")]
mod journal;
#[cfg(feature = "file-store")]
mod kept;
mod limits;
mod many;
mod prices;
mod settle;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, UNIX_EPOCH},
};

use donjon_budget::{Budget, BudgetHandle, Budgets, BudgetsBuilder, Limit, Price, PriceTable};
use donjon_core::{
    ErrorKind, Estimate, Identity, Key, LlmError, LlmRequest, LlmResponse, Message, NanoUsd,
    WallClock,
};
use donjon_testkit::ScriptedLlm;
use tower::{Layer, Service, ServiceExt};

/// One dollar for a million tokens of either kind, so that a token costs 1,000 nano-dollars.
fn one_dollar() -> PriceTable {
    let mut prices = PriceTable::empty();
    let dollar = NanoUsd::from_dollars(1);
    let price = Price::new(dollar, dollar);
    prices.set("p", "m", price).expect("a good price");
    prices
}

const TOKEN: i64 = 1_000;

fn tokens(n: i64) -> NanoUsd {
    NanoUsd::from_nanos(n * TOKEN)
}

/// A wall clock that tests put forward; it begins with 2025-11-19 12:00 UTC, a Wednesday.
#[derive(Clone)]
struct Clock(Arc<AtomicU64>);

impl Clock {
    fn new() -> Self {
        Self(Arc::new(AtomicU64::new(1_763_553_600)))
    }

    fn wall(&self) -> WallClock {
        let clock = self.clone();
        WallClock::from_fn(move || UNIX_EPOCH + Duration::from_secs(clock.0.load(SeqCst)))
    }

    fn forward(&self, seconds: u64) {
        self.0.fetch_add(seconds, SeqCst);
    }

    fn back(&self, seconds: u64) {
        let now = self.0.load(SeqCst);
        self.0.store(now.saturating_sub(seconds), SeqCst);
    }
}

fn builder() -> BudgetsBuilder {
    Budgets::builder().prices(one_dollar())
}

fn around(model: &ScriptedLlm, builder: BudgetsBuilder) -> (Budget<ScriptedLlm>, BudgetHandle) {
    let budgets = builder.build().expect("sensible");
    let layer = budgets.layer().provider("p");
    (layer.layer(model.clone()), budgets.handle())
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

fn of_tenant(tenant: &str) -> Arc<Identity> {
    Identity::builder().tenant(tenant).build()
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
    assert_eq!(error.kind(), ErrorKind::OverBudget, "{error}");
    error
}

/// What is spent and reserved under the only limit.
fn standing(handle: &BudgetHandle, limit: &Limit, key: &Key) -> (NanoUsd, NanoUsd) {
    let standing = handle.standing(&limit.to_string(), key);
    let standing = standing.expect("there is such a limit");
    (standing.spent, standing.reserved)
}
