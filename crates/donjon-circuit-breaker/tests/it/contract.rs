//! The laws of every layer.

use donjon_circuit_breaker::{BreakerLayer, Window};
use donjon_core::{ErrorKind, KeyBy};
use donjon_testkit::{Script, contract};
use tower::Layer;

use crate::{build, fails, plain, request};

/// The checks fail half of a thousand calls.
fn patient() -> donjon_circuit_breaker::BreakerBuilder {
    BreakerLayer::builder()
        .minimum_calls(100_000)
        .window(Window::count(100_000))
        .slow_first_token(crate::SECOND)
}

#[tokio::test(start_paused = true)]
async fn the_layer_keeps_the_contract() {
    let build = || patient().build().expect("sensible");
    contract::check(|leaf| build().layer(leaf)).await;
}

#[tokio::test(start_paused = true)]
async fn with_keys_and_over_time_too() {
    let build = || {
        let window = Window::time(60 * crate::SECOND);
        patient().window(window).key_by(KeyBy::Model).build()
    };
    contract::check(|leaf| build().expect("sensible").layer(leaf)).await;
}

#[tokio::test(start_paused = true)]
async fn both_halves_keep_it_too() {
    let build = || patient().build().expect("sensible");
    contract::check(|leaf| {
        let layer = build();
        layer.peek().layer(layer.admit().layer(leaf))
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn services_of_one_layer_share_one_circuit() {
    let (layer, _) = build(plain().minimum_calls(1));
    contract::state_is_shared(
        |leaf| layer.layer(leaf),
        async |service, leaf| {
            leaf.set_otherwise(Script::fail(ErrorKind::ServerError));
            fails(&service, request()).await.kind()
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn both_halves_share_it_too() {
    let (layer, _) = build(plain().minimum_calls(1));
    contract::state_is_shared(
        |leaf| layer.peek().layer(layer.admit().layer(leaf)),
        async |service, leaf| {
            leaf.set_otherwise(Script::fail(ErrorKind::ServerError));
            fails(&service, request()).await.kind()
        },
    )
    .await;
}
