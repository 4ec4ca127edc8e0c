//! Donjon's budget, beside liter-llm's. Limits are never reached.

use std::time::Duration;

use donjon_benches::meter::Row;
use donjon_budget::{Budgets, BudgetsBuilder, Limit};
use donjon_core::{Estimate, KeyBy, LlmRequest, NanoUsd};
use tower::Layer;

use crate::leaf::{LEAF, model, request};

pub(crate) fn rows() -> Vec<Row> {
    vec![
        row("donjon budget", one).beside("liter-llm budget"),
        row("donjon budget, no limit", Budgets::builder),
        row("donjon budget, looking at no prompts", || {
            one().sample_one_in(0)
        }),
        row("donjon budget, a month, and a day for each tenant", || {
            one().limit(most().per_day().key_by(KeyBy::Tenant))
        }),
        row("donjon budget, rolling", || {
            Budgets::builder().limit(most().rolling(Duration::from_secs(86_400)))
        }),
    ]
}

fn most() -> Limit {
    Limit::hard(NanoUsd::from_dollars(72_000_000))
}

fn one() -> BudgetsBuilder {
    Budgets::builder().limit(most())
}

fn row(name: &str, build: fn() -> BudgetsBuilder) -> Row {
    let make = move |pending| {
        let budgets = build().build().expect("a good configuration");
        budgets.layer().provider("openai").layer(model(pending))
    };
    Row::above(LEAF, name).unary(make, counted)
}

/// A request whose tokens somebody counted.
fn counted() -> LlmRequest {
    let mut request = request();
    request.call.estimate = Some(Estimate::new(20, 10));
    request
}
