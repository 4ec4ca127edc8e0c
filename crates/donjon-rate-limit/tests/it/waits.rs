//! Who waits, for how long, and in which order.

use std::{
    pin::{Pin, pin},
    task::Context,
    time::Duration,
};

use donjon_core::{AttemptCause, ErrorKind, LlmRequest, TimeoutClock};
use donjon_rate_limit::{Limit, RateLimitBuilder, RateLimitEvent, RateLimitLayer, Reason};
use donjon_testkit::{
    Script, ScriptedLlm,
    probe::{CountingWaker, poll_once},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tower::{Service, ServiceExt, limit::ConcurrencyLimitLayer};

use crate::{MINUTE, SECOND, SLOT, around, expecting, passes, refused, request, send, times};

fn one_a_minute() -> RateLimitBuilder {
    RateLimitLayer::builder().limit(Limit::requests(1).per_minute())
}

/// A request whose number can be seen below.
fn numbered(number: usize) -> LlmRequest {
    request().with_model(number.to_string())
}

fn order(model: &ScriptedLlm) -> Vec<usize> {
    let numbers = model.calls().into_iter();
    let number = |call: donjon_testkit::SeenCall| call.request.model().parse();
    numbers
        .map(|call| number(call).expect("a number"))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn first_come_first_served() {
    let model = ScriptedLlm::default();
    let builder = RateLimitLayer::builder().limit(Limit::requests(3).per_minute());
    let (service, handle) = around(&model, builder);
    let mut tasks = JoinSet::new();
    for number in 0..20 {
        let service = service.clone();
        tasks.spawn(async move { send(&service, numbered(number)).await.map(drop) });
        // Each is queued before the next.
        tokio::task::yield_now().await;
    }
    assert_eq!(handle.waiting(), 17);
    let start = Instant::now();
    while let Some(done) = tasks.join_next().await {
        done.expect("no panic").expect("it passes");
    }
    assert_eq!(order(&model), (0..20).collect::<Vec<_>>());
    // Seven batches of three, six windows.
    assert!(start.elapsed() <= (MINUTE + SLOT) * 6 + SECOND / 10);
    assert_eq!(
        (handle.waiting(), handle.waited(), handle.admitted()),
        (0, 17, 20)
    );
}

/// What is small does not pass what waits before it.
#[tokio::test(start_paused = true)]
async fn nobody_overtakes() {
    let model = ScriptedLlm::new(Script::answer("hi").no_usage());
    let builder = RateLimitLayer::builder().limit(Limit::input_tokens(100).per_minute());
    let (service, handle) = around(&model, builder);
    passes(&service, expecting(60, 0).with_model("0")).await;
    let mut tasks = JoinSet::new();
    for (number, tokens) in [(1, 80), (2, 10), (3, 10)] {
        let request = expecting(tokens, 0).with_model(number.to_string());
        let service = service.clone();
        tasks.spawn(async move { send(&service, request).await.map(drop) });
        tokio::task::yield_now().await;
    }
    assert_eq!((handle.waiting(), model.count()), (3, 1));
    sleep(MINUTE + SLOT + SECOND).await;
    assert_eq!(order(&model), [0, 1, 2, 3]);
    assert_eq!(tasks.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_gives_the_place_up() {
    let model = ScriptedLlm::default();
    let (service, handle) = around(&model, one_a_minute());
    passes(&service, numbered(0)).await;
    let mut calls: Vec<_> = Vec::new();
    for number in 1..=5 {
        let mut service = service.clone();
        let call = service.ready().await.expect("ready").call(numbered(number));
        let mut call = Box::pin(call);
        assert!(poll_once(&mut call).is_pending());
        calls.push((number, call));
    }
    assert_eq!(handle.waiting(), 5);
    // One in the middle, the first, the last.
    calls.retain(|(number, _)| [2, 4].contains(number));
    assert_eq!(handle.waiting(), 2);
    let start = Instant::now();
    for (_, call) in calls {
        call.await.expect("it passes");
    }
    assert_eq!(order(&model), [0, 2, 4]);
    assert!(start.elapsed() <= (MINUTE + SLOT) * 2 + SECOND / 10);
}

/// Only the next is woken, and nobody is while there is nothing to do.
#[tokio::test(start_paused = true)]
async fn there_is_no_herd_and_no_spin() {
    let model = ScriptedLlm::default();
    let (service, _) = around(&model, one_a_minute());
    passes(&service, request()).await;
    let mut calls: Vec<Pin<Box<_>>> = Vec::new();
    let wakes: Vec<_> = (0..50).map(|_| CountingWaker::new()).collect();
    for wake in &wakes {
        let mut service = service.clone();
        let mut call = Box::pin(service.ready().await.expect("ready").call(request()));
        let waker = wake.waker();
        assert!(
            call.as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
        calls.push(call);
    }
    let woken = || -> Vec<usize> { wakes.iter().map(CountingWaker::count).collect() };
    sleep(MINUTE - SECOND).await;
    assert_eq!(woken(), [0; 50]);
    sleep(SECOND * 2).await;
    assert_eq!(woken().iter().sum::<usize>(), 1);
    assert_eq!(woken()[0], 1);
    let waker = wakes[0].waker();
    assert!(
        calls[0]
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_ready()
    );
    assert_eq!(woken()[1], 1, "it hands over");
    assert_eq!(woken().iter().sum::<usize>(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_too_long_is_not_begun() {
    let model = ScriptedLlm::default();
    let (service, handle) = around(&model, one_a_minute());
    passes(&service, request()).await;
    let start = Instant::now();

    let error = refused(&service, request().with_timeout(SECOND * 30)).await;
    let after = error.retry_after().expect("it says when");
    assert!(after >= MINUTE && after <= MINUTE + SLOT);
    let mut patient = request();
    patient.call.open_attempt(AttemptCause::First);
    patient.call.begin().set_targets(2);
    patient.call.patience = Some(SECOND * 2);
    refused(&service, patient).await;
    assert_eq!(handle.refused(Reason::Deadline), 2);

    let (service, handle) = around(&model, one_a_minute().max_wait(SECOND * 90));
    passes(&service, request()).await;
    let waits = tokio::spawn({
        let service = service.clone();
        async move { send(&service, request()).await.map(drop) }
    });
    tokio::task::yield_now().await;
    let error = refused(&service, request()).await;
    let after = error.retry_after().expect("it says when");
    assert!(after >= MINUTE * 2, "behind the other one");
    assert_eq!(handle.refused(Reason::MaxWait), 1);
    assert_eq!(start.elapsed(), Duration::ZERO);
    waits.await.expect("no panic").expect("it passes");
}

/// The provider asks for a pause while a call waits: its deadline and its patience end the wait.
#[tokio::test(start_paused = true)]
async fn a_wait_that_becomes_too_long_is_ended() {
    let stop = donjon_core::LlmError::new(ErrorKind::RateLimited, "later");
    let stop = Script::fail(stop.with_retry_after(SECOND * 300)).head_after(SECOND * 10);
    for deadline in [true, false] {
        let model = ScriptedLlm::default().then(stop.clone());
        let mut builder = one_a_minute();
        if !deadline {
            builder = builder.max_wait(SECOND * 70);
        }
        let (service, handle) = around(&model, builder);
        let start = Instant::now();
        let request = match deadline {
            true => request().with_timeout(SECOND * 70),
            false => request(),
        };
        let (_, error) = tokio::join!(send(&service, crate::request()), send(&service, request));
        let error = error.expect_err("it waits in vain");
        // A timer is as fine as a millisecond.
        let waited = start.elapsed();
        assert!(waited >= SECOND * 70 && waited <= SECOND * 71);
        if deadline {
            assert_eq!(error.kind(), ErrorKind::Timeout(TimeoutClock::Total));
        } else {
            assert_eq!(error.kind(), ErrorKind::LimitedLocally);
            let after = error.retry_after().expect("it says when");
            assert!(after <= SECOND * 240 && after >= SECOND * 239, "{after:?}");
        }
        assert_eq!((handle.waiting(), model.count()), (0, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded() {
    let model = ScriptedLlm::default();
    let (service, handle) = around(&model, one_a_minute().max_queue(2));
    passes(&service, request()).await;
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let mut service = service.clone();
        waiting.push(service.ready().await.expect("ready").call(request()));
    }
    let error = refused(&service, request()).await;
    assert_eq!(handle.refused(Reason::QueueFull), 1);
    let after = error.retry_after().expect("it says when");
    assert!(
        after >= MINUTE * 3 && after <= (MINUTE + SLOT) * 3,
        "{after:?}"
    );
    waiting.pop();
    let _third = service
        .clone()
        .ready()
        .await
        .expect("ready")
        .call(request());
    assert_eq!(handle.refused(Reason::QueueFull), 1);
    assert_eq!(handle.waiting(), 2);
}

/// T6: the runtime makes ready things look pending after 128 polls in one task.
#[tokio::test(start_paused = true)]
async fn more_than_128_calls_in_one_task() {
    let model = ScriptedLlm::default();
    let limit = Limit::requests(1_000).per_second();
    let (service, handle) = around(&model, RateLimitLayer::builder().limit(limit));
    let calls = (0..1_500).map(|_| send(&service, request()));
    let answers = futures_util::future::join_all(calls).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!((handle.admitted(), handle.waited()), (1_500, 500));
}

/// T4: whoever waits for a turn holds nothing of the service below.
#[tokio::test(start_paused = true)]
async fn the_service_below_is_free_meanwhile() {
    let model = ScriptedLlm::default();
    let layer = one_a_minute().build().expect("sensible");
    let service = tower::ServiceBuilder::new()
        .layer(layer)
        .layer(ConcurrencyLimitLayer::new(1));
    let service = service.service(model.clone());
    passes(&service, request()).await;
    let mut calls = Vec::new();
    for _ in 0..3 {
        let mut service = service.clone();
        let call = service.ready().await.expect("the one permit is free");
        let mut call = Box::pin(call.call(request()));
        assert!(poll_once(&mut call).is_pending());
        calls.push((service, call));
    }
    let mut again = service.clone();
    let mut ready = pin!(again.ready());
    assert!(poll_once(&mut ready).is_ready());
}

#[tokio::test(start_paused = true)]
async fn what_is_given_back_wakes_the_next() {
    let model = ScriptedLlm::default();
    let builder = RateLimitLayer::builder().limit(Limit::tokens(1_000).per_minute());
    let (service, _) = around(&model, builder);
    let start = Instant::now();
    model.push(Script::answer("hi").head_after(SECOND * 5));
    let first = send(&service, expecting(500, 500));
    let second = send(&service, expecting(500, 400));
    let (first, second) = tokio::join!(first, second);
    first.expect("it passes");
    second.expect("it passes");
    assert_eq!(times(&model, start), [Duration::ZERO, SECOND * 5]);
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_raised_lets_the_next_pass() {
    let model = ScriptedLlm::default();
    let (service, handle) = around(&model, one_a_minute());
    let mut events = handle.events().listen();
    passes(&service, request()).await;
    let waiting = tokio::spawn({
        let service = service.clone();
        async move { send(&service, request()).await.map(drop) }
    });
    sleep(SECOND).await;
    let event = events.try_next();
    assert!(
        matches!(
            event,
            Some(donjon_core::Heard::Event(RateLimitEvent::Queued { .. }))
        ),
        "{event:?}"
    );
    let start = Instant::now();
    handle
        .set_limit(&Limit::requests(2).per_minute())
        .expect("known");
    waiting.await.expect("no panic").expect("it passes");
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert!(handle.set_limit(&Limit::tokens(2).per_minute()).is_err());
    assert!(handle.set_limit(&Limit::requests(0).per_minute()).is_err());
}
