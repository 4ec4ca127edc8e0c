//! What the happy path costs.

use donjon_core::{AttemptCause, LlmRequest};
use donjon_retry::RetryLayer;
use donjon_testkit::AtOnce;
use tower::Layer;

use crate::request;

#[test]
fn a_call_that_succeeds_at_once_allocates_nothing() {
    let mut request = request();
    // The ledger is the call's and is opened once, by whoever is outermost.
    request.call.begin();
    assert_eq!(allocations(&request), 0);
}

/// So does one whose target stands in a group of targets.
#[test]
fn neither_does_the_first_target_of_a_group() {
    let mut request = request();
    request.call.open_attempt(AttemptCause::First);
    request.call.open_attempt(AttemptCause::First);
    assert_eq!(allocations(&request), 0);
}

/// What a call through the layer allocates.
fn allocations(request: &LlmRequest) -> u64 {
    let mut service = RetryLayer::default().layer(AtOnce::default());
    let counted = allocation_counter::measure(|| AtOnce::through(&mut service, request.clone()));
    counted.count_total
}
