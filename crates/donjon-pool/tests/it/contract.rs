//! The laws of every layer.

use std::cell::RefCell;

use donjon_core::{ErrorKind, KeyBy};
use donjon_pool::{Aimd, Gradient, HoldUntil, Overflow, PoolLayer, Profile};
use donjon_testkit::{Script, contract};
use tower::Layer;

use crate::{request, send, sized, spawn};

#[tokio::test(start_paused = true)]
async fn the_layer_keeps_the_contract() {
    contract::check(|leaf| PoolLayer::default().layer(leaf)).await;
}

#[tokio::test(start_paused = true)]
async fn with_calls_that_wait_too() {
    for size in [1, 2] {
        contract::check(|leaf| sized(size).build().expect("sensible").layer(leaf)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn with_adaptive_limits_too() {
    let aimd = || PoolLayer::builder().aimd(Aimd::new().initial(2));
    contract::check(|leaf| aimd().build().expect("sensible").layer(leaf)).await;
    let gradient = || PoolLayer::builder().gradient(Gradient::new().initial(1));
    contract::check(|leaf| gradient().build().expect("sensible").layer(leaf)).await;
}

#[tokio::test(start_paused = true)]
async fn with_keys_and_temporary_slots_too() {
    let build = || {
        sized(1)
            .key_by(KeyBy::Model)
            .profile(Profile::new("m").size(1))
            .overflow(Overflow::Temporary(1))
            .hold_until(HoldUntil::Committed)
            .build()
    };
    contract::check(|leaf| build().expect("sensible").layer(leaf)).await;
}

#[tokio::test(start_paused = true)]
async fn services_of_one_layer_share_its_slots() {
    let layer = sized(2)
        .overflow(Overflow::Reject)
        .build()
        .expect("sensible");
    let held = RefCell::new(Vec::new());
    contract::state_is_shared(
        |leaf| layer.layer(leaf),
        async |service, leaf| {
            leaf.set_otherwise(Script::hang());
            let task = spawn(&service, request()).await;
            held.borrow_mut().push(task);
            layer.handle().stats().in_use
        },
    )
    .await
}

/// The law above is told by figures; this is what it is for.
#[tokio::test(start_paused = true)]
async fn a_service_layered_again_finds_no_fresh_slots() {
    let layer = sized(1)
        .overflow(Overflow::Reject)
        .build()
        .expect("sensible");
    let model = donjon_testkit::ScriptedLlm::new(Script::hang());
    let held = spawn(&layer.layer(model.clone()), request()).await;
    let refused = send(&layer.layer(model.clone()), request()).await;
    assert_eq!(refused.expect_err("full").kind(), ErrorKind::QueueFull);
    let refused = send(&layer.clone().layer(model), request()).await;
    assert_eq!(refused.expect_err("full").kind(), ErrorKind::QueueFull);
    held.abort();
}
