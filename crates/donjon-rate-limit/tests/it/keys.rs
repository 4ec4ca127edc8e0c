//! Keys are kept apart, and bounded.

use donjon_core::{ErrorKind, Heard, Key, KeyBy, LlmError};
use donjon_rate_limit::{
    Limit, Overflow, RateLimitBuilder, RateLimitEvent, RateLimitLayer, Reason, Weight, WhenFull,
};
use donjon_testkit::{Script, ScriptedLlm};
use tokio::time::sleep;

use crate::{MINUTE, SLOT, around, of_tenant, passes, refused, send};

fn by_tenant(requests: u64) -> RateLimitBuilder {
    RateLimitLayer::builder()
        .limit(Limit::requests(requests).per_minute())
        .key_by(KeyBy::Tenant)
        .overflow(Overflow::Reject)
}

#[tokio::test(start_paused = true)]
async fn one_key_does_not_touch_another() {
    let (service, handle) = around(&ScriptedLlm::default(), by_tenant(2));
    for tenant in ["a", "b"] {
        passes(&service, of_tenant(tenant)).await;
        passes(&service, of_tenant(tenant)).await;
        refused(&service, of_tenant(tenant)).await;
    }
    assert_eq!(handle.keys(), 2);
}

/// L7: a limit of a model counts for the model that is asked at the target.
#[tokio::test(start_paused = true)]
async fn a_key_is_that_of_the_request_as_it_arrives() {
    let (service, _) = around(&ScriptedLlm::default(), by_tenant(1).key_by(KeyBy::Model));
    passes(&service, of_tenant("a").with_model("one")).await;
    passes(&service, of_tenant("a").with_model("other")).await;
    refused(&service, of_tenant("b").with_model("one")).await;
}

/// L6: the map is bounded, and a key that limits, has waiters or calls under way stays.
#[tokio::test(start_paused = true)]
async fn many_keys_stay_under_the_bound() {
    let bound = 100;
    let builder = by_tenant(4).max_keys(bound).overflow(Overflow::Wait);
    let (service, handle) = around(&ScriptedLlm::default(), builder);
    // It limits.
    for _ in 0..4 {
        passes(&service, of_tenant("limiting")).await;
    }
    // It has a call under way, and a waiter.
    let busy = send(&service, of_tenant("busy").streamed())
        .await
        .expect("a stream");
    for _ in 0..4 {
        passes(&service, of_tenant("queued")).await;
    }
    let waiting = tokio::spawn({
        let service = service.clone();
        async move { send(&service, of_tenant("queued")).await.map(drop) }
    });
    tokio::task::yield_now().await;
    for number in 0..20_000 {
        passes(&service, of_tenant(&format!("tenant {number}"))).await;
        assert!(handle.keys() <= bound);
    }
    let used = |key: &str| handle.peek(&Key::name(key.to_owned()))[0].used;
    assert_eq!(used("limiting"), 4);
    assert_eq!(used("busy"), 1);
    assert_eq!(handle.waiting(), 1);
    assert_eq!(handle.admitted(), 20_000 + 9, "those of forgotten keys too");
    drop(busy);
    waiting.await.expect("no panic").expect("it passes");
}

/// One that the provider asked to be left alone, though nothing is charged to it, neither.
#[tokio::test(start_paused = true)]
async fn a_key_that_is_stopped_stays() {
    let busy = LlmError::new(ErrorKind::RateLimited, "later").with_retry_after(MINUTE * 10);
    let model = ScriptedLlm::default().then(Script::fail(busy));
    let (service, handle) = around(&model, by_tenant(4).max_keys(10));
    send(&service, of_tenant("stopped"))
        .await
        .expect_err("it fails");
    for number in 0..1_000 {
        passes(&service, of_tenant(&number.to_string())).await;
    }
    assert_eq!(handle.stopped_for(&Key::name("stopped")), Some(MINUTE * 10));
    refused(&service, of_tenant("stopped")).await;
}

#[tokio::test(start_paused = true)]
async fn a_strict_layer_refuses_new_keys_rather_than_forget_anything() {
    let builder = by_tenant(4).max_keys(3).when_full(WhenFull::Refuse);
    let (service, handle) = around(&ScriptedLlm::default(), builder);
    for tenant in ["a", "b", "c"] {
        passes(&service, of_tenant(tenant)).await;
    }
    let mut events = handle.events().listen();
    let error = refused(&service, of_tenant("d")).await;
    assert_eq!(handle.refused(Reason::Keys), 1);
    match events.try_next() {
        Some(Heard::Event(RateLimitEvent::Refused { key, refusal, .. })) => {
            assert_eq!((key, refusal.reason), (Key::name("d"), Reason::Keys));
        }
        other => panic!("it is told of: {other:?}"),
    }
    assert!(error.message().contains("too many keys"));
    sleep(MINUTE + SLOT).await;
    passes(&service, of_tenant("d")).await;
    assert!(handle.keys() <= 3);
}

/// A million keys through a bound of a thousand, without any time passing; fewer where that takes
/// long.
#[tokio::test(start_paused = true)]
async fn very_many_keys_stay_under_the_bound() {
    let layer = by_tenant(100).max_keys(1_000).build().expect("sensible");
    let handle = layer.handle();
    let limiting = Key::name("limiting");
    for _ in 0..100 {
        drop(
            handle
                .try_acquire(&limiting, &Weight::request())
                .expect("room"),
        );
    }
    let many = if cfg!(debug_assertions) {
        200_000
    } else {
        1_000_000
    };
    for number in 0..many {
        let key = Key::name(u32::to_string(&number));
        drop(handle.try_acquire(&key, &Weight::request()).expect("room"));
        if number % 4_096 == 0 {
            assert!(handle.keys() <= 1_000);
        }
    }
    assert!(handle.try_acquire(&limiting, &Weight::request()).is_err());
}
