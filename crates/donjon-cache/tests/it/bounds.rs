//! Memory: how much, and for how long.

use std::time::Duration;

use donjon_cache::CacheLayer;
use donjon_core::{
    ChatCompletion, ErrorKind, Head, LlmError, LlmRequest, LlmResponse, Message, Origin,
};
use donjon_testkit::{Script, ScriptedLlm};
use tower::{Layer, Service, service_fn};

use crate::{SECOND, around, ask, fails, hear, plain};

/// What is good for nothing is let go of, though nobody asks for it again.
#[tokio::test(start_paused = true)]
async fn what_is_too_old_is_released_unread() {
    let model = ScriptedLlm::new("Hello!");
    let (service, handle) = around(&model, plain());
    for n in 0..1_000 {
        hear(&service, ask(&n.to_string())).await;
    }
    assert_eq!(handle.entries(), 1_000);
    tokio::time::advance(62 * SECOND).await;
    // Each call that comes by releases some: none pays for all.
    hear(&service, ask("other")).await;
    let left = handle.entries();
    assert!((900..1_000).contains(&left), "{left}");
    for _ in 0..40 {
        hear(&service, ask("other")).await;
    }
    assert_eq!((handle.entries(), handle.expired()), (1, 1_000));
    // Or all at once, where somebody asks for that.
    tokio::time::advance(62 * SECOND).await;
    assert_eq!(handle.sweep(), 1);
    assert_eq!((handle.entries(), handle.bytes()), (0, 0));
}

/// Nor does it matter how calls end.
#[tokio::test(start_paused = true)]
async fn what_is_too_old_is_released_by_calls_that_fail() {
    let model = ScriptedLlm::new("Hello!");
    let (service, handle) = around(&model, plain());
    for n in 0..10 {
        hear(&service, ask(&n.to_string())).await;
    }
    tokio::time::advance(62 * SECOND).await;
    let _failing = model.then(Script::fail(ErrorKind::ServerError));
    fails(&service, ask("other")).await;
    assert_eq!((handle.entries(), handle.expired()), (0, 10));
}

#[tokio::test(start_paused = true)]
async fn what_may_be_stale_is_kept_for_so_long() {
    let model = ScriptedLlm::new("Hello!");
    let (service, handle) = around(&model, plain().stale_if_error(60 * SECOND));
    hear(&service, ask("Hi")).await;
    tokio::time::advance(100 * SECOND).await;
    assert_eq!(handle.sweep(), 0);
    tokio::time::advance(22 * SECOND).await;
    assert_eq!(handle.sweep(), 1);
}

/// What entries take in truth, and not by our own count, is within 5 % of what they may take, or less.
#[test]
fn answers_take_no_more_than_they_may() {
    bytes_stay_bounded(40_000);
}

#[test]
fn a_million_answers_take_no_more_than_they_may() {
    bytes_stay_bounded(1_000_000);
}

fn bytes_stay_bounded(answers: usize) {
    const MAX: u64 = 8 << 20;
    let model = service_fn(|request: LlmRequest| async move {
        let chat = request.as_chat().expect("a chat");
        let number: usize = chat.messages[0].text().parse().expect("a number");
        let answer = ChatCompletion::text(request.model().clone(), "w".repeat(number % 4_000));
        Ok::<_, LlmError>(LlmResponse::complete(
            Head::new(request.model().clone()),
            answer,
        ))
    });
    let layer = CacheLayer::builder()
        .strategy(donjon_cache::Strategy::Aggressive)
        .ttl(Duration::from_secs(3_600))
        .max_bytes(MAX)
        .max_entry_bytes(64 << 10);
    let layer = layer.build().expect("sensible");
    let handle = layer.handle();
    let mut service = layer.layer(model);
    let mut send = |number: usize| {
        let request = LlmRequest::chat("m", [Message::user(number.to_string())]);
        let future = std::pin::pin!(service.call(request));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(future.poll(&mut cx).is_ready());
    };
    let mut calls = 0;
    let counted = allocation_counter::measure(|| {
        for number in 0..answers {
            send(number);
            calls += 1;
            if number % 1_000 == 0 {
                assert!(handle.bytes() <= MAX);
            }
        }
    });
    let held = u64::try_from(counted.bytes_current).expect("more than nothing");
    assert!(held <= MAX / 100 * 105, "{held} bytes are held for {MAX}");
    assert!(
        handle.bytes() > MAX / 10 * 9,
        "{} are used of {MAX}",
        handle.bytes()
    );
    assert_eq!(handle.stored(), calls);
    assert_eq!(handle.evicted() + handle.entries() as u64, calls);
}

/// What is asked for often stays, whatever else goes by.
#[tokio::test(start_paused = true)]
async fn what_is_popular_stays() {
    let model = ScriptedLlm::new(&*"w".repeat(1_000));
    let (service, handle) = around(&model, plain().max_bytes(1 << 20).max_entry_bytes(64 << 10));
    let mut hits = 0;
    for n in 0..5_000 {
        hear(&service, ask(&format!("once {n}"))).await;
        if n % 10 == 0 {
            let origin = hear(&service, ask(&format!("often {}", n / 10 % 20)))
                .await
                .1;
            hits += usize::from(origin == Origin::Cache);
        }
    }
    assert!(handle.evicted() > 1_000);
    assert!(hits > 400, "{hits} of 480");
}
