//! The laws of every layer.

use donjon_budget::{Budgets, Limit, Price, UnknownPrice};
use donjon_core::{KeyBy, NanoUsd};
use donjon_testkit::contract;
use tower::Layer;

use crate::{builder, expecting, send, tokens};

fn wide() -> donjon_budget::BudgetsBuilder {
    let price = Price::new(NanoUsd::from_dollars(1), NanoUsd::from_dollars(2));
    Budgets::builder()
        .unknown_price(UnknownPrice::Assume(price.into()))
        .limit(Limit::hard(NanoUsd::from_dollars(1_000_000)))
        .limit(
            Limit::soft(NanoUsd::from_dollars(1))
                .per_day()
                .key_by(KeyBy::Tenant),
        )
}

#[tokio::test(start_paused = true)]
async fn the_layer_keeps_the_contract() {
    contract::check(|leaf| wide().build().expect("sensible").layer().layer(leaf)).await;
}

#[tokio::test(start_paused = true)]
async fn services_of_one_layer_share_one_budget() {
    let budgets = builder()
        .limit(Limit::hard(tokens(100)))
        .build()
        .expect("sensible");
    let layer = budgets.layer().provider("p");
    contract::state_is_shared(
        |leaf| layer.layer(leaf),
        async |service, _| send(&service, expecting(50, 50)).await.is_ok(),
    )
    .await;
}
