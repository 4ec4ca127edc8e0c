//! The laws of every layer.

use donjon_core::{KeyBy, Scope};
use donjon_rate_limit::{Limit, Overflow, RateLimitBuilder, RateLimitLayer};
use donjon_testkit::contract;
use tower::Layer;

use crate::{SECOND, request, send};

/// More than the checks ever use.
fn wide() -> RateLimitBuilder {
    RateLimitLayer::builder()
        .limit(Limit::requests(1_000_000).per_second())
        .limit(Limit::tokens(u64::MAX).per_minute())
}

#[tokio::test(start_paused = true)]
async fn the_layer_keeps_the_contract() {
    contract::check(|leaf| wide().build().expect("sensible").layer(leaf)).await;
}

#[tokio::test(start_paused = true)]
async fn keyed_too() {
    let build = || wide().key_by(KeyBy::Tenant).for_callers().build();
    contract::check(|leaf| build().expect("sensible").layer(leaf)).await;
}

/// Most calls have to wait, and are dropped while they do.
#[tokio::test(start_paused = true)]
async fn narrow_too() {
    let build = || {
        RateLimitLayer::builder()
            .limit(Limit::requests(2).per(SECOND / 10))
            .learn(false)
            .build()
    };
    contract::check(|leaf| build().expect("sensible").layer(leaf)).await;
}

#[tokio::test(start_paused = true)]
async fn learned_too() {
    contract::check(|leaf| RateLimitLayer::learned().layer(leaf)).await;
}

#[tokio::test(start_paused = true)]
async fn services_of_one_layer_share_one_limit() {
    let layer = RateLimitLayer::builder()
        .limit(Limit::requests(1).per_minute())
        .overflow(Overflow::Reject)
        .build();
    let layer = layer.expect("sensible");
    contract::state_is_shared(
        |leaf| layer.layer(leaf),
        async |service, _| send(&service, request()).await.is_ok(),
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn whom_a_refusal_concerns() {
    for (builder, scope) in [
        (RateLimitLayer::builder(), Scope::Target),
        (RateLimitLayer::builder().for_callers(), Scope::Caller),
    ] {
        let limit = Limit::requests(1).per_minute();
        let builder = builder.limit(limit).overflow(Overflow::Reject);
        let (service, _) = crate::around(&Default::default(), builder);
        crate::passes(&service, request()).await;
        let error = crate::refused(&service, request()).await;
        assert_eq!(error.scope(), scope);
        let row = error.disposition();
        assert_eq!(row.failover, scope == Scope::Target);
        assert!(!row.retry);
        assert_eq!(row.status, 429);
    }
}
