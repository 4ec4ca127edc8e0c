//! The laws of every layer.

use donjon_core::ErrorKind;
use donjon_retry::{RetryBudget, RetryLayer};
use donjon_testkit::{Script, contract};
use tower::Layer;

use crate::{fails, plain, request};

#[tokio::test(start_paused = true)]
async fn the_layer_keeps_the_contract() {
    contract::check(|leaf| RetryLayer::default().layer(leaf)).await;
}

#[tokio::test(start_paused = true)]
async fn without_waits_too() {
    let build = || plain().backoff(donjon_retry::Backoff::none()).build();
    contract::check(|leaf| build().expect("sensible").layer(leaf)).await;
}

#[tokio::test(start_paused = true)]
async fn with_adaptive_rate_control_too() {
    let build = || RetryLayer::builder().adaptive(true).build();
    contract::check(|leaf| build().expect("sensible").layer(leaf)).await;
}

#[tokio::test(start_paused = true)]
async fn services_of_one_layer_share_one_budget() {
    let budget = RetryBudget::builder().ratio(0.0).reserve(1).build();
    let layer = plain().budget(budget.expect("sensible")).build();
    let layer = layer.expect("sensible");
    contract::state_is_shared(
        |leaf| layer.layer(leaf),
        async |service, leaf| {
            leaf.set_otherwise(Script::fail(ErrorKind::ServerError));
            let before = leaf.count();
            fails(&service, request()).await;
            // The first finds one retry, and nobody after it any.
            leaf.count() - before
        },
    )
    .await;
}
