//! Donjon's budget, beside liter-llm's. Limits are never reached. Answers say what they used, as those of liter-llm's
//! leaf do, so that this is what is settled.

use std::time::Duration;

use donjon_benches::meter::Row;
use donjon_budget::{Budget, Budgets, BudgetsBuilder, Limit};
use donjon_core::{
    ChatCompletion, Completion, Estimate, Head, KeyBy, LlmRequest, LlmResponse, NanoUsd, Usage,
};
use tower::Layer;

use crate::leaf::{LEAF, Leaf, Model, model, request};

pub(crate) fn rows() -> Vec<Row> {
    vec![
        row("donjon budget", one).beside("liter-llm budget"),
        row("donjon budget, no limit", Budgets::builder),
        row("donjon budget, one hot key", || {
            Budgets::builder().limit(most().key_by(KeyBy::Tenant))
        }),
        Row::above(LEAF, "donjon budget, answers that say no usage")
            .unary(|pending| layered(one(), model(pending)), counted),
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
    let make = move |pending| layered(build(), telling(pending));
    Row::above(LEAF, name).unary(make, counted)
}

fn layered(budgets: BudgetsBuilder, model: Model) -> Budget<Model> {
    let budgets = budgets.build().expect("a good configuration");
    budgets.layer().provider("openai").layer(model)
}

/// The leaf of all rows, saying what was used.
pub(crate) fn telling(pending: bool) -> Model {
    Leaf::new(
        |mut request| {
            request.call.dispatch();
            Ok(answer(request))
        },
        pending,
    )
}

fn answer(request: LlmRequest) -> LlmResponse {
    thread_local! {
        static COMPLETION: Completion = {
            let mut answer = ChatCompletion::text("gpt-4o-mini", "The keep.");
            answer.usage = Some(Usage::new(20, 10));
            answer.into()
        };
    }
    LlmResponse::complete(
        Head::new(request.model().clone()),
        COMPLETION.with(Completion::clone),
    )
}

/// A request whose tokens somebody counted.
fn counted() -> LlmRequest {
    let mut request = request();
    request.call.estimate = Some(Estimate::new(20, 10));
    request
}
