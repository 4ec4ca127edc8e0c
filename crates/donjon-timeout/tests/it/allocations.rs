//! What the happy path costs.

use donjon_testkit::AtOnce;
use donjon_timeout::{DeadlineLayer, TimeoutLayer};
use tower::Layer;

use crate::request;

#[test]
fn a_call_that_succeeds_at_once_allocates_nothing() {
    let deadline = DeadlineLayer::new(crate::SECOND).expect("sensible");
    let mut service = deadline.layer(TimeoutLayer::default().layer(AtOnce::default()));
    let mut request = request();
    // The ledger is the call's and is opened once, by whoever is outermost.
    request.call.begin();
    // No timer is made either: there is no runtime to make it in.
    let counted = allocation_counter::measure(|| AtOnce::through(&mut service, request.clone()));
    assert_eq!(counted.count_total, 0);
}
