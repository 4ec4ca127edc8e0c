//! What a handle shows and does.

use std::time::Duration;

use donjon_core::{Heard, Key, KeyBy, Snapshot, Usage};
use donjon_rate_limit::{
    Limit, Overflow, RateLimitEvent, RateLimitHandle, RateLimitLayer, Reason, Weight,
};
use donjon_testkit::ScriptedLlm;
use tokio::time::{Instant, sleep};

use crate::{MILLI, MINUTE, SECOND, SLOT, around, of_tenant, passes, refused, request};

fn tokens(n: u64) -> Weight {
    Weight::request().tokens(n, 0)
}

fn handle() -> RateLimitHandle {
    let layer = RateLimitLayer::builder()
        .limit(Limit::requests(10).per_minute())
        .limit(Limit::tokens(100).per_minute())
        .build();
    layer.expect("sensible").handle()
}

#[tokio::test(start_paused = true)]
async fn it_acquires_without_waiting() {
    let (handle, key) = (handle(), Key::Global);
    let held = handle.try_acquire(&key, &tokens(60)).expect("it fits");
    assert_eq!(handle.fits_in(&key, &tokens(40)), Some(Duration::ZERO));
    let wait = handle.fits_in(&key, &tokens(41)).expect("some day");
    assert!(wait > MINUTE && wait <= MINUTE + SLOT);
    assert_eq!(handle.fits_in(&key, &tokens(101)), None);
    let refusal = handle.try_acquire(&key, &tokens(41)).expect_err("too much");
    assert_eq!(
        (refusal.reason, refusal.retry_after),
        (Reason::Limit, Some(wait))
    );
    held.settle(Usage::new(20, 5));
    assert_eq!(handle.peek(&key)[1].remaining(), 75);
    handle
        .try_acquire(&key, &tokens(75))
        .expect("it fits")
        .refund();
    // Dropped, it stays charged.
    drop(handle.try_acquire(&key, &tokens(70)));
    assert_eq!(handle.peek(&key)[1].used, 95);
    assert_eq!(handle.admitted(), 3);
}

#[tokio::test(start_paused = true)]
async fn it_waits_up_to_a_timeout() {
    let (handle, key) = (handle(), Key::Global);
    let start = Instant::now();
    let held = handle.acquire(&key, &tokens(100), SECOND).await;
    let _held = held.expect("it fits");
    let error = handle.acquire(&key, &tokens(100), MINUTE).await;
    let after = error
        .expect_err("too long")
        .retry_after()
        .expect("it says when");
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert!(after > MINUTE);
    let held = handle.acquire(&key, &tokens(100), MINUTE * 2).await;
    held.expect("it fits then").refund();
    assert!(start.elapsed() <= MINUTE + SLOT + MILLI);
}

#[tokio::test(start_paused = true)]
async fn it_shows_figures() {
    let builder = RateLimitLayer::builder()
        .limit(Limit::requests(1).per_minute())
        .key_by(KeyBy::Tenant)
        .overflow(Overflow::Reject);
    let (service, handle) = around(&ScriptedLlm::default(), builder);
    let mut events = handle.events().listen();
    passes(&service, of_tenant("a")).await;
    passes(&service, of_tenant("b")).await;
    refused(&service, of_tenant("a")).await;
    let value = |name: &str, reason: Option<&str>| {
        let figures = handle.figures().into_iter();
        let mut found = figures.filter(|figure| {
            let labels = figure.labels.first();
            figure.name == name && reason.is_none_or(|reason| labels.is_some_and(|l| l.1 == reason))
        });
        found.next().expect("a figure").value
    };
    assert_eq!(value("admitted", None), 2.0);
    assert_eq!(value("refused", Some("limit")), 1.0);
    assert_eq!(value("refused", Some("queue_full")), 0.0);
    assert_eq!(value("keys", None), 2.0);
    assert_eq!(value("waiting", None), 0.0);
    assert_eq!(value("debt", None), 0.0);
    assert_eq!(handle.layer(), "rate_limit");
    let Some(Heard::Event(RateLimitEvent::Refused { key, refusal })) = events.try_next() else {
        panic!("it was told");
    };
    assert_eq!((key, refusal.reason), (Key::name("a"), Reason::Limit));
    assert_eq!(handle.peek(&Key::name("a"))[0].used, 1);
    assert_eq!(handle.peek(&Key::name("nobody"))[0].remaining(), 1);
    assert_eq!(handle.keys(), 2, "looking makes no key");
}

#[tokio::test(start_paused = true)]
async fn limits_are_set_while_they_are_used() {
    let builder = RateLimitLayer::builder()
        .limit(Limit::requests(2).per_minute())
        .overflow(Overflow::Reject);
    let (service, handle) = around(&ScriptedLlm::default(), builder);
    passes(&service, request()).await;
    passes(&service, request()).await;
    refused(&service, request()).await;
    handle.set_limit(&Limit::requests(3)).expect("known");
    passes(&service, request()).await;
    handle.set_limit(&Limit::requests(1)).expect("known");
    refused(&service, request()).await;
    sleep(MINUTE + SLOT).await;
    passes(&service, request()).await;
    refused(&service, request()).await;
}

#[tokio::test(start_paused = true)]
async fn it_waits_also_where_calls_do_not() {
    let builder = RateLimitLayer::builder()
        .limit(Limit::requests(1).per_second())
        .overflow(Overflow::Reject);
    let handle = builder.build().expect("sensible").handle();
    let one = Weight::request();
    let _held = handle.try_acquire(&Key::Global, &one).expect("it fits");
    let began = Instant::now();
    let waited = handle.acquire(&Key::Global, &one, SECOND * 5).await;
    let _held = waited.expect("its turn comes");
    assert!(began.elapsed() >= SECOND);
}

/// Those who wait go first, and it says when they have gone.
#[tokio::test(start_paused = true)]
async fn behind_others_it_says_when_they_have_gone() {
    let builder = RateLimitLayer::builder().limit(Limit::requests(10).per_second());
    let handle = builder.build().expect("sensible").handle();
    let eight = Weight::requests(8);
    let _held = handle.try_acquire(&Key::Global, &eight).expect("it fits");
    let waits = tokio::spawn({
        let handle = handle.clone();
        async move {
            handle
                .acquire(&Key::Global, &Weight::requests(8), SECOND * 9)
                .await
                .map(drop)
        }
    });
    tokio::task::yield_now().await;
    assert_eq!(handle.waiting(), 1);
    // Alone it would fit at once.
    let refused = handle.try_acquire(&Key::Global, &Weight::requests(2));
    let after = refused.err().and_then(|refused| refused.retry_after);
    assert!(after.is_some_and(|after| after > SECOND / 2), "{after:?}");
    waits.await.expect("no panic").expect("its turn comes");
}
