//! What the happy path costs.

use donjon_core::AttemptCause;
use donjon_hedge::{HedgeDelay, HedgeLayer};
use donjon_testkit::AtOnce;
use tower::Layer;

use crate::{after_a_second, layer, request};

fn allocations(layer: &HedgeLayer, under: u32) -> u64 {
    let mut request = request();
    // The ledger is the call's and is opened once, by whoever is outermost.
    request.call.begin();
    for _ in 0..under {
        request.call.open_attempt(AttemptCause::First);
    }
    let mut service = layer.layer(AtOnce::default());
    // Whatever is made once is made.
    AtOnce::through(&mut service, crate::request());
    allocation_counter::measure(|| AtOnce::through(&mut service, request)).count_total
}

#[tokio::test]
async fn a_call_that_is_answered_at_once_allocates_nothing() {
    let live = HedgeDelay::percentile(0.9).minimum_calls(1);
    for layer in [
        HedgeLayer::default(),
        layer(after_a_second()),
        layer(after_a_second().delay(live)),
        layer(after_a_second().when(|_| false)),
    ] {
        assert_eq!(allocations(&layer, 0), 0);
        assert_eq!(
            allocations(&layer, 1),
            0,
            "so does one in a group of targets"
        );
    }
}
