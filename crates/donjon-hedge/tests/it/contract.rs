//! The laws of every layer.

use donjon_hedge::{HedgeDelay, HedgeLayer};
use donjon_testkit::{Script, contract};
use tower::Layer;

use crate::{MILLI, SECOND, after_a_second, ask, layer, request};

#[tokio::test(start_paused = true)]
async fn the_layer_keeps_the_contract() {
    contract::check(|leaf| HedgeLayer::default().layer(leaf)).await;
}

#[tokio::test(start_paused = true)]
async fn with_hedges_that_come_at_once_too() {
    let built = || layer(after_a_second().delay(MILLI).burst(1000).max_hedges(3));
    contract::check(|leaf| built().layer(leaf)).await;
}

#[tokio::test(start_paused = true)]
async fn with_a_live_delay_too() {
    let delay = HedgeDelay::percentile(0.5)
        .minimum_calls(2)
        .at_least(MILLI)
        .until_known(SECOND);
    contract::check(|leaf| layer(after_a_second().delay(delay)).layer(leaf)).await;
}

#[tokio::test(start_paused = true)]
async fn what_one_layer_is_put_around_shares_its_budget() {
    let built = layer(after_a_second().budget(0.01).burst(1));
    contract::state_is_shared(
        |leaf| built.layer(leaf),
        async |service, leaf| {
            leaf.set_otherwise(Script::answer("late").first_token_after(5 * SECOND));
            let before = leaf.count();
            ask(&service, request()).await.expect("an answer");
            // The first finds one hedge, and nobody after it any.
            leaf.count() - before
        },
    )
    .await;
}
