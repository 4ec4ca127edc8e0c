//! What a call costs that is admitted at once.

use donjon_core::KeyBy;
use donjon_pool::{Aimd, Gradient, PoolBuilder, PoolLayer, Profile};
use donjon_testkit::AtOnce;
use tower::Layer;

use crate::{request, sized};

#[test]
fn a_call_that_is_admitted_at_once_allocates_nothing() {
    assert_eq!(allocations(sized(32)), 0);
    // Also where it takes the last slot.
    assert_eq!(allocations(sized(1)), 0);
}

#[test]
fn neither_does_one_with_a_key() {
    assert_eq!(allocations(sized(32).key_by(KeyBy::Model)), 0);
    let profile = Profile::new("m").size(4).model("another");
    assert_eq!(
        allocations(sized(32).key_by(KeyBy::Model).profile(profile)),
        0
    );
}

#[test]
fn neither_does_one_whose_limit_adapts() {
    assert_eq!(allocations(PoolLayer::builder().aimd(Aimd::new())), 0);
    let gradient = PoolLayer::builder().gradient(Gradient::new());
    assert_eq!(allocations(gradient), 0);
}

/// What a thousand calls through the layer allocate, after the first.
fn allocations(builder: PoolBuilder) -> u64 {
    let mut request = request();
    // The ledger is the call's and is opened once, by whoever is outermost.
    request.call.begin();
    let mut service = builder.build().expect("sensible").layer(AtOnce::default());
    let mut call = || AtOnce::through(&mut service, request.clone());
    // A key is new once.
    call();
    let counted = allocation_counter::measure(|| (0..1_000).for_each(|_| call()));
    counted.count_total
}
