//! L1: many at once.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
};

use donjon_core::{Key, LlmRequest, Usage};
use donjon_rate_limit::{Limit, RateLimitLayer, Weight};
use donjon_testkit::{Script, ScriptedLlm};
use tokio::{task::JoinSet, time::Instant};

use crate::{MINUTE, SECOND, SLOT, around, expecting, send};

/// Ten thousand calls at once against a hundred requests and ten thousand tokens a minute: never more
/// in any window, and close to that much in all.
#[tokio::test(start_paused = true)]
async fn ten_thousand_calls_at_once() {
    let expected = |number: u64| 50 + number * 7919 % 101;
    let model = ScriptedLlm::from_fn(|request: &LlmRequest| {
        let estimate = request.call.estimate.unwrap_or_default();
        Script::answer("hi").usage(Usage::new(estimate.input, estimate.output))
    });
    let builder = RateLimitLayer::builder()
        .limit(Limit::requests(100).per_minute())
        .limit(Limit::tokens(10_000).per_minute());
    let (service, handle) = around(&model, builder);
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..10_000_u64 {
        let service = service.clone();
        tasks.spawn(async move {
            let call = expecting(expected(number) / 2, expected(number).div_ceil(2));
            send(&service, call).await.map(drop)
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no panic").expect("it passes");
    }
    let sent: Vec<_> = model
        .calls()
        .iter()
        .map(|call| {
            (
                call.at - start,
                call.request.call.estimate.unwrap_or_default().total(),
            )
        })
        .collect();
    assert_eq!(sent.len(), 10_000);
    let mut first = 0;
    let mut tokens = 0;
    for (at, (moment, used)) in sent.iter().enumerate() {
        tokens += used;
        while *moment - sent[first].0 >= MINUTE {
            tokens -= sent[first].1;
            first += 1;
        }
        assert!(
            at - first < 100 && tokens <= 10_000,
            "{at}: {tokens} tokens"
        );
    }
    // On average 100 tokens: both limits bind. No time is lost but the one sub-window a window.
    let total: u64 = sent.iter().map(|(_, used)| used).sum();
    let windows = u32::try_from(total.max(10_000 * 100) / 10_000).expect("a small number");
    assert!(start.elapsed() <= (MINUTE + SLOT) * (windows + windows / 10));
    assert_eq!((handle.waiting(), handle.admitted()), (0, 10_000));
    tokio::time::sleep(MINUTE + SLOT + SECOND).await;
    let standing = handle.peek(&Key::Global);
    assert!(standing.iter().all(|standing| standing.used == 0));
}

/// The same from threads, which no clock orders.
#[test]
fn threads_never_get_more_than_the_limit() {
    let layer = RateLimitLayer::builder()
        .limit(Limit::requests(500).per_hour())
        .limit(Limit::tokens(3_000).per_hour())
        .build();
    let handle = Arc::new(layer.expect("sensible").handle());
    let weight = Weight::request().tokens(7, 0);
    let got: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let tries =
                        (0..5_000).map(|_| handle.try_acquire(&Key::Global, &weight).is_ok());
                    tries.filter(|got| *got).count()
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .sum()
    });
    assert_eq!(got, 3_000 / 7);
    assert_eq!(handle.peek(&Key::Global)[0].used, 428);
}

/// Nobody's turn is lost: one place, and threads that take it in turn, each woken by the one before.
#[test]
fn no_wake_is_lost_between_threads() {
    struct Thread(std::thread::Thread);

    impl std::task::Wake for Thread {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let limit = Limit::tokens(10).per_day();
    let layer = RateLimitLayer::builder().limit(limit).build();
    let handle = layer.expect("sensible").handle();
    let weight = Weight::request().tokens(7, 0);
    // Its timers never fire: only what is given back lets anybody pass.
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().build().expect("a runtime");
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let _runtime = runtime.enter();
                let waker = Arc::new(Thread(std::thread::current())).into();
                let mut cx = Context::from_waker(&waker);
                for _ in 0..2_000 {
                    let mut turn = pin!(handle.acquire(&Key::Global, &weight, MINUTE * 10_000));
                    let acquired = loop {
                        match turn.as_mut().poll(&mut cx) {
                            Poll::Ready(acquired) => break acquired,
                            Poll::Pending => std::thread::park(),
                        }
                    };
                    acquired.expect("its turn comes").refund();
                }
            });
        }
    });
    assert_eq!((handle.admitted(), handle.waiting()), (6_000, 0));
}
