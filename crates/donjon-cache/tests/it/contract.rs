//! The laws of layers.

use donjon_cache::{CacheLayer, Strategy};
use donjon_testkit::contract;
use tower::Layer;

use crate::{ask, hear, plain};

#[tokio::test(start_paused = true)]
async fn the_laws_are_kept() {
    contract::check(|leaf| plain().build().expect("sensible").layer(leaf)).await;
}

#[tokio::test(start_paused = true)]
async fn also_where_nothing_is_kept() {
    contract::check(|leaf| {
        let layer = CacheLayer::builder().strategy(Strategy::Disabled);
        layer.build().expect("sensible").layer(leaf)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn state_is_shared() {
    let layer = plain().build().expect("sensible");
    let probe = async |service, _| hear(&service, ask("answer")).await.1;
    contract::state_is_shared(|leaf| layer.layer(leaf), probe).await;
}
