//! The laws of layers.

use donjon_cache::{CacheLayer, Strategy};
use donjon_core::Origin;
use donjon_testkit::{Script, ScriptedLlm, contract};
use futures_util::future::join_all;
use tower::Layer;

use super::plain;
use crate::{SECOND, ask, hear};

#[tokio::test(start_paused = true)]
async fn the_laws_are_kept() {
    contract::check(|leaf| plain().build().expect("sensible").layer(leaf)).await;
}

#[tokio::test(start_paused = true)]
async fn also_in_the_shadow() {
    contract::check(|leaf| plain().shadow(true).build().expect("sensible").layer(leaf)).await;
}

#[tokio::test(start_paused = true)]
async fn state_is_shared() {
    let layer = plain().build().expect("sensible");
    let probe = async |service, _| hear(&service, ask("10")).await.1;
    contract::state_is_shared(|leaf| layer.layer(leaf), probe).await;
}

/// Inside the exact cache: the same words cost no embedding, many at once are one call, and what is
/// only near is not kept as if it were the same.
#[tokio::test(start_paused = true)]
async fn it_stands_inside_the_exact_cache() {
    let model = ScriptedLlm::new(Script::answer("hi").first_token_after(SECOND)).commits();
    let near = plain().build().expect("sensible");
    let exact = CacheLayer::builder().strategy(Strategy::Aggressive);
    let exact = exact.build().expect("sensible");
    let service = exact.layer(near.layer(model.clone()));
    join_all((0..9).map(|_| hear(&service, ask("10")))).await;
    assert_eq!((model.count(), near.handle().misses()), (1, 1));
    for _ in 0..3 {
        assert_eq!(hear(&service, ask("12")).await.1, Origin::Cache);
    }
    assert_eq!((near.handle().hits(), near.handle().exact_hits()), (3, 0));
    assert_eq!((exact.handle().stored(), model.count()), (1, 1));
}
