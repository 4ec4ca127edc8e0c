//! What the admitted path costs.

use donjon_core::{ChatCompletion, Estimate, KeyBy};
use donjon_rate_limit::{Limit, RateLimitBuilder, RateLimitLayer};
use donjon_testkit::AtOnce;
use tower::Layer;

use crate::of_tenant;

/// What a call through the layer allocates, once its key is known.
fn allocations(builder: RateLimitBuilder) -> u64 {
    let mut request = of_tenant("acme");
    request.call.estimate = Some(Estimate::new(10, 90));
    // The ledger is the call's and is opened once, by whoever is outermost.
    request.call.begin();
    let mut service = builder.build().expect("sensible").layer(AtOnce::default());
    let mut call = || AtOnce::through(&mut service, request.clone());
    call();
    allocation_counter::measure(call).count_total
}

fn four() -> RateLimitBuilder {
    RateLimitLayer::builder()
        .limit(Limit::requests(1_000).per_minute())
        .limit(Limit::tokens(1_000_000).per_minute())
        .limit(Limit::tokens(1_000_000).per_day())
        .limit(Limit::output_tokens(1_000_000).per_minute())
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_admitted_allocates_nothing() {
    assert_eq!(allocations(four()), 0);
    assert_eq!(allocations(four().key_by(KeyBy::Tenant)), 0);
    assert_eq!(allocations(four().key_by(KeyBy::Tenant).for_callers()), 0);
    assert_eq!(allocations(RateLimitLayer::builder().learn(true)), 0);
}

/// There is one attempt, so what others have used need not be looked up.
#[tokio::test(start_paused = true)]
async fn nor_does_one_whose_answer_says_nothing_of_its_usage() {
    let silent = AtOnce::new(ChatCompletion::text("m", "hi"));
    let mut service = four().build().expect("sensible").layer(silent);
    let mut request = of_tenant("acme");
    request.call.dispatch().stamp_sent();
    let mut call = || AtOnce::through(&mut service, request.clone());
    call();
    assert_eq!(allocation_counter::measure(call).count_total, 0);
}
