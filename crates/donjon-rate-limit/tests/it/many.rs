//! L1: many at once.

use std::{
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use donjon_core::{ChatCompletion, Head, Key, LlmError, LlmRequest, LlmResponse, Usage};
use donjon_rate_limit::{Limit, RateLimitLayer, Weight};
use donjon_testkit::{Script, ScriptedLlm};
use tokio::{task::JoinSet, time::Instant};
use tower::{Layer, service_fn};

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

/// Ten thousand tasks on several threads, some of which leave the line: nobody is forgotten, and never
/// more than the limit are admitted within a window. The clock runs, so the limit is scaled: 500 in
/// 100 ms.
#[test]
fn ten_thousand_tasks_on_several_threads() {
    const WINDOW: Duration = Duration::from_millis(100);
    const RATE: usize = 500;
    let moments = Arc::new(Mutex::new(Vec::new()));
    let service = service_fn({
        let moments = moments.clone();
        move |request: LlmRequest| {
            let moments = moments.clone();
            async move {
                moments.lock().expect("no panic").push(Instant::now());
                tokio::task::yield_now().await;
                let answer = ChatCompletion::text(request.model().to_string(), "hi");
                Ok::<_, LlmError>(LlmResponse::complete(Head::new("m"), answer))
            }
        }
    });
    let rate = u64::try_from(RATE).expect("small");
    let layer: RateLimitLayer = RateLimitLayer::builder()
        .limit(Limit::requests(rate).per(WINDOW))
        .limit(Limit::tokens(rate * 100).per(WINDOW))
        .build()
        .expect("sensible");
    let handle = layer.handle();
    let service = layer.layer(service);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(4).enable_time().build();
    let runtime = runtime.expect("a runtime");
    let took = runtime.block_on(async move {
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for number in 0..10_000_u64 {
            let service = service.clone();
            tasks.spawn(async move {
                let call = send(&service, expecting(50, 50));
                match number % 10 {
                    // Some leave the line.
                    0 => drop(tokio::time::timeout(WINDOW * 2, call).await),
                    _ => drop(call.await.expect("it passes")),
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.expect("no panic");
        }
        start.elapsed()
    });
    let mut moments = std::mem::take(&mut *moments.lock().expect("no panic"));
    moments.sort_unstable();
    assert!(moments.len() >= 9_000, "{} passed", moments.len());
    assert_eq!(handle.waiting(), 0);
    assert_eq!(
        handle.admitted(),
        u64::try_from(moments.len()).expect("small")
    );
    // Whoever is admitted is sent by the same poll, which no more than the four threads can hold up.
    for more in moments.windows(RATE + 5) {
        let apart = *more.last().expect("many") - more[0];
        assert!(apart >= WINDOW, "{} in {apart:?}", more.len());
    }
    let windows = moments.len().div_ceil(RATE);
    assert!(took >= WINDOW * u32::try_from(windows - 1).expect("small"));
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
