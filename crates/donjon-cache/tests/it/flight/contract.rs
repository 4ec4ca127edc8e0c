//! The laws of every layer.

use donjon_cache::flight::SingleFlightLayer;
use donjon_testkit::{Script, contract, probe::poll_once};
use tower::{Layer, Service};

use super::request;

#[tokio::test(start_paused = true)]
async fn the_layer_keeps_the_contract() {
    contract::check(|leaf| SingleFlightLayer::default().layer(leaf)).await;
}

#[tokio::test(start_paused = true)]
async fn it_does_where_nothing_is_shared() {
    contract::check(|leaf| SingleFlightLayer::default().only_if(|_| false).layer(leaf)).await;
}

#[tokio::test(start_paused = true)]
async fn services_of_one_layer_share_their_calls() {
    let layer = SingleFlightLayer::default();
    let kept = std::cell::RefCell::new(Vec::new());
    contract::state_is_shared(
        |leaf| layer.layer(leaf),
        async |mut service, leaf| {
            leaf.set_otherwise(Script::hang());
            let mut call = Box::pin(service.call(request()));
            assert!(poll_once(&mut call).is_pending());
            kept.borrow_mut().push(call);
            // The first one calls, and the others wait with it.
            (layer.handle().led(), layer.handle().joined())
        },
    )
    .await;
    assert_eq!((layer.handle().led(), layer.handle().joined()), (1, 2));
}
