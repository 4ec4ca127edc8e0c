//! The laws of every layer.

use donjon_core::{ErrorKind, TimeoutClock};
use donjon_testkit::{Script, contract};
use donjon_timeout::{DeadlineLayer, TimeoutLayer};
use tower::Layer;

use crate::{SECOND, ran_out, send, streamed};

#[tokio::test(start_paused = true)]
async fn the_layer_keeps_the_contract() {
    contract::check(|leaf| TimeoutLayer::default().layer(leaf)).await;
}

#[tokio::test(start_paused = true)]
async fn over_streams_too() {
    let build = || TimeoutLayer::builder().unary_over_stream(true).build();
    contract::check(|leaf| build().expect("sensible").layer(leaf)).await;
}

#[tokio::test(start_paused = true)]
async fn the_deadline_keeps_the_contract() {
    let layer = DeadlineLayer::new(SECOND * 300).expect("sensible");
    let inner = TimeoutLayer::default();
    contract::check(|leaf| layer.layer(inner.layer(leaf))).await;
}

#[tokio::test(start_paused = true)]
async fn services_of_one_layer_share_its_figures() {
    let layer = TimeoutLayer::default();
    contract::state_is_shared(
        |leaf| layer.layer(leaf),
        async |service, leaf| {
            leaf.set_otherwise(Script::hang());
            let error = send(&service, streamed()).await.expect_err("silence");
            assert_eq!(error.kind(), ran_out(TimeoutClock::FirstToken));
            layer.handle().timeouts(TimeoutClock::FirstToken)
        },
    )
    .await;
    // Those of the transport went by.
    let leaf = crate::model(ErrorKind::Timeout(TimeoutClock::Connect));
    let error = send(&layer.layer(leaf), streamed())
        .await
        .expect_err("refused");
    assert_eq!(error.kind(), ran_out(TimeoutClock::Connect));
    assert_eq!(layer.handle().timeouts(TimeoutClock::Connect), 1);
}
