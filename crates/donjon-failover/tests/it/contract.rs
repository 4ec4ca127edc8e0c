//! The laws that every layer keeps.

use donjon_core::BoxLlmService;
use donjon_failover::{FailoverLayer, Target};
use donjon_testkit::contract;
use tower::{Layer, ServiceExt};

use crate::{failover, model, request};

#[tokio::test(start_paused = true)]
async fn one_target_keeps_the_contract() {
    contract::check(|leaf| failover(&[leaf])).await;
}

#[tokio::test(start_paused = true)]
async fn several_targets_keep_the_contract() {
    contract::check(|leaf| failover(&[leaf.clone(), leaf.clone(), leaf])).await;
}

#[tokio::test(start_paused = true)]
async fn a_failover_of_failovers_keeps_the_contract() {
    contract::check(|leaf| {
        let group = || BoxLlmService::new(failover(&[leaf.clone(), leaf.clone()]));
        failover(&[group(), group()])
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn whatever_a_layer_is_put_around_shares_its_state() {
    let layer = FailoverLayer::new([Target::new("spare", model("spare"))]);
    let layer = layer.expect("a good configuration");
    contract::state_is_shared(
        |leaf| layer.layer(leaf),
        async |service, _| {
            let handle = service.handle();
            service.oneshot(request()).await.expect("it serves");
            handle.targets()[0].calls
        },
    )
    .await;
}
