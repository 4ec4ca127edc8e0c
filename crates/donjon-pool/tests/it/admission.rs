//! Who is admitted, who waits, who is refused.

use std::task::{Context, Poll};

use donjon_core::{ErrorKind, LlmResponse, Priority, Scope, TimeoutClock};
use donjon_pool::{HoldUntil, Overflow, RejectReason};
use donjon_testkit::{
    Script, ScriptedLlm,
    probe::{CountingWaker, poll_once},
};
use tower::{Service, ServiceExt};

use crate::{SECOND, around, request, send, settle, sized, slow, spawn};

#[tokio::test(start_paused = true)]
async fn no_more_run_than_there_are_slots_and_the_rest_wait_in_order() {
    let model = slow(SECOND);
    let (service, handle) = around(&model, sized(3));
    let mut tasks = Vec::new();
    for n in 0..9 {
        tasks.push(spawn(&service, request().with_model(format!("m{n}"))).await);
    }
    assert_eq!((model.in_progress(), handle.stats().waiting), (3, 6));
    for task in tasks {
        task.await.expect("no panic").expect("it is served");
    }
    assert_eq!(model.peak(), 3);
    let order: Vec<_> = model
        .calls()
        .iter()
        .map(|c| c.request.model().to_string())
        .collect();
    let sorted: Vec<_> = (0..9).map(|n| format!("m{n}")).collect();
    assert_eq!(order, sorted);
    assert_eq!(handle.stats().in_use, 0);
}

/// T5 and law 1: nobody is admitted past those who wait, and a slot goes to who is next, even if they
/// were not polled yet.
#[tokio::test(start_paused = true)]
async fn nobody_barges_past_the_queue() {
    let model = ScriptedLlm::new(Script::hang());
    let (mut service, handle) = around(&model, sized(1));
    let held = spawn(&service, request()).await;
    let mut waits = Box::pin(service.ready().await.expect("ready").call(request()));
    assert!(poll_once(&mut waits).is_pending());
    held.abort();
    settle().await;
    // The slot is theirs, though they have not taken it.
    assert_eq!((handle.stats().in_use, handle.stats().waiting), (1, 0));
    let mut late = Box::pin(service.ready().await.expect("ready").call(request()));
    assert!(poll_once(&mut late).is_pending());
    assert_eq!(handle.stats().waiting, 1);
    // Given up without having been taken, it goes on to who is next.
    drop(waits);
    assert_eq!((handle.stats().in_use, handle.stats().waiting), (1, 0));
    drop(late);
    assert_eq!(handle.stats().in_use, 0);
}

/// L5, T7: a slot that is given back wakes one, once.
#[tokio::test(start_paused = true)]
async fn one_slot_wakes_one_and_nobody_polls_for_it() {
    let model = slow(SECOND);
    let (mut service, _) = around(&model, sized(1));
    let held = spawn(&service, request()).await;
    let mut waits = Vec::new();
    for _ in 0..100 {
        let wakes = CountingWaker::new();
        let mut call = Box::pin(service.ready().await.expect("ready").call(request()));
        let waker = wakes.waker();
        let mut cx = Context::from_waker(&waker);
        assert!(call.as_mut().poll(&mut cx).is_pending());
        waits.push((call, wakes));
    }
    held.await.expect("no panic").expect("served");
    let woken: Vec<_> = waits.iter().map(|(_, wakes)| wakes.count()).collect();
    assert_eq!(woken[0], 1);
    assert_eq!(woken.iter().sum::<usize>(), 1);
}

/// T5: one that leaves the queue leaves nothing behind.
#[tokio::test(start_paused = true)]
async fn one_that_left_is_not_served() {
    let model = slow(SECOND);
    let (service, handle) = around(&model, sized(1));
    let first = spawn(&service, request()).await;
    let gone = spawn(&service, request()).await;
    let last = spawn(&service, request().with_model("last")).await;
    gone.abort();
    settle().await;
    assert_eq!(handle.stats().waiting, 1);
    first.await.expect("no panic").expect("served");
    last.await.expect("no panic").expect("served");
    assert_eq!(model.count(), 2);
    assert_eq!((handle.stats().left, handle.stats().admitted), (1, 2));
}

/// T1, T4: whoever waits holds nothing of the service below.
#[tokio::test(start_paused = true)]
async fn those_who_wait_leave_the_service_below_to_others() {
    let model = ScriptedLlm::new(Script::hang()).with_capacity(2);
    let (service, _) = around(&model, sized(1));
    let _held = spawn(&service, request()).await;
    let _waits = spawn(&service, request()).await;
    assert_eq!((model.held(), model.in_progress()), (1, 1));
    let mut beside = model.clone();
    let ready = futures_util::future::poll_fn(|cx| beside.poll_ready(cx));
    assert!(poll_once(&mut Box::pin(ready)).is_ready());
}

/// T6: tokio's cooperative budget of 128 polls refuses nobody.
#[tokio::test(start_paused = true)]
async fn a_thousand_calls_in_one_task_are_all_admitted() {
    let model = ScriptedLlm::new("Hello.");
    for overflow in [Overflow::Reject, Overflow::Queue] {
        let (service, handle) = around(&model, sized(1).overflow(overflow));
        for _ in 0..1_000 {
            send(&service, request()).await.expect("there is a slot");
        }
        // At the same time too.
        let (service, _) = around(&model, sized(1_000).overflow(overflow));
        let calls = (0..1_000).map(|_| send(&service, request()));
        for answer in futures_util::future::join_all(calls).await {
            answer.expect("there is a slot");
        }
        assert_eq!(handle.stats().rejected_in_all(), 0);
    }
}

/// S3: a slot is held until the response ends.
#[tokio::test(start_paused = true)]
async fn a_stream_holds_its_slot_until_it_ends() {
    let model = ScriptedLlm::new(Script::words(3).gap(SECOND));
    let (service, handle) = around(&model, sized(1));
    let answer = send(&service, request().streamed())
        .await
        .expect("it opens");
    assert_eq!(handle.stats().in_use, 1);
    answer.collect().await.expect("it ends");
    assert_eq!(handle.stats().in_use, 0);
    // Dropped in the middle too.
    let answer = send(&service, request().streamed())
        .await
        .expect("it opens");
    assert_eq!(handle.stats().in_use, 1);
    drop(answer);
    assert_eq!(handle.stats().in_use, 0);
}

#[tokio::test(start_paused = true)]
async fn by_choice_until_its_commit_point() {
    let model = ScriptedLlm::new(Script::words(3).gap(SECOND)).commits();
    let (service, handle) = around(&model, sized(1).hold_until(HoldUntil::Committed));
    let mut open: Vec<LlmResponse> = Vec::new();
    for _ in 0..3 {
        open.push(
            send(&service, request().streamed())
                .await
                .expect("it opens"),
        );
        assert_eq!(handle.stats().in_use, 0);
    }
    assert_eq!(model.in_progress(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_full_pool_refuses_where_it_shall() {
    let model = slow(8 * SECOND);
    let (service, handle) = around(&model, sized(2).overflow(Overflow::Reject));
    let tasks = [
        spawn(&service, request()).await,
        spawn(&service, request()).await,
    ];
    let refused = send(&service, request()).await.expect_err("it is full");
    assert_eq!(refused.kind(), ErrorKind::QueueFull);
    assert_eq!(refused.scope(), Scope::Target);
    assert!(refused.disposition().failover && !refused.disposition().retry);
    assert_eq!(refused.retry_after(), None, "nobody knows yet");
    for task in tasks {
        task.await.expect("no panic").expect("served");
    }
    let _tasks = [
        spawn(&service, request()).await,
        spawn(&service, request()).await,
    ];
    let refused = send(&service, request()).await.expect_err("it is full");
    assert_eq!(
        refused.retry_after(),
        Some(4 * SECOND),
        "two slots of 8 s each"
    );
    assert_eq!(handle.stats().rejected(RejectReason::Full), 2);
}

#[tokio::test(start_paused = true)]
async fn temporary_slots_are_counted_and_given_back_first() {
    let model = slow(SECOND);
    let builder = sized(2).overflow(Overflow::Temporary(2)).max_queued(1);
    let (service, handle) = around(&model, builder);
    let mut tasks = Vec::new();
    for _ in 0..4 {
        tasks.push(spawn(&service, request()).await);
    }
    let stats = handle.stats();
    assert_eq!((stats.in_use, stats.beyond, stats.temporary), (4, 2, 2));
    tasks.push(spawn(&service, request()).await);
    assert_eq!((model.in_progress(), handle.stats().waiting), (4, 1));
    let refused = send(&service, request()).await.expect_err("all is full");
    assert_eq!(refused.kind(), ErrorKind::QueueFull);
    // Two are given back before the one who waits gets a slot.
    tasks.remove(0).abort();
    tasks.remove(0).abort();
    settle().await;
    let stats = handle.stats();
    assert_eq!((stats.in_use, stats.beyond, stats.waiting), (2, 0, 1));
    // Meanwhile nobody takes a temporary one past them: the queue has no place for another.
    send(&service, request())
        .await
        .expect_err("the queue is full");
    tasks.remove(0).abort();
    settle().await;
    let stats = handle.stats();
    assert_eq!((stats.in_use, stats.waiting, stats.temporary), (2, 0, 2));
}

/// R9: the deadline covers the wait.
#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_wait() {
    let model = ScriptedLlm::new(Script::hang());
    let (service, handle) = around(&model, sized(1));
    let _held = spawn(&service, request()).await;
    let began = tokio::time::Instant::now();
    let error = send(&service, request().with_timeout(3 * SECOND)).await;
    let error = error.expect_err("it is over");
    assert_eq!(error.kind(), ErrorKind::Timeout(TimeoutClock::Total));
    assert_eq!(began.elapsed(), 3 * SECOND);
    let stats = handle.stats();
    assert_eq!(
        (stats.waiting, stats.rejected(RejectReason::Deadline)),
        (0, 1)
    );
    assert_eq!(model.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_patience_ends_it_while_another_target_is_left() {
    let model = ScriptedLlm::new(Script::hang());
    let (service, handle) = around(&model, sized(1));
    let _held = spawn(&service, request()).await;
    let mut patient = request();
    patient.call.patience = Some(2 * SECOND);
    patient.call.begin().set_targets(2);
    let attempt = patient
        .call
        .open_attempt(donjon_core::AttemptCause::First)
        .clone();
    let error = send(&service, patient).await.expect_err("it moves on");
    assert_eq!(error.kind(), ErrorKind::QueueFull);
    assert_eq!(handle.stats().rejected(RejectReason::Patience), 1);
    assert_eq!(attempt.read().billed, donjon_core::Billed::No);
    assert_eq!(attempt.ledger().sent(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_pool_bounds_the_wait_where_it_is_told_to() {
    let model = ScriptedLlm::new(Script::hang());
    let (service, handle) = around(&model, sized(1).max_wait(5 * SECOND));
    let _held = spawn(&service, request()).await;
    let error = send(&service, request()).await.expect_err("it is over");
    assert_eq!(error.kind(), ErrorKind::QueueFull);
    assert_eq!(handle.stats().rejected(RejectReason::MaxWait), 1);
}

/// What cannot be served in time is refused at once, with the time at which it could be.
#[tokio::test(start_paused = true)]
async fn what_comes_too_late_is_not_begun() {
    let model = slow(10 * SECOND);
    let (service, handle) = around(&model, sized(2));
    // The pace is known from those that waited, or took the last slot.
    for _ in 0..2 {
        let calls = [
            spawn(&service, request()).await,
            spawn(&service, request()).await,
        ];
        for call in calls {
            call.await.expect("no panic").expect("served");
        }
    }
    let mut tasks = Vec::new();
    for _ in 0..6 {
        tasks.push(spawn(&service, request()).await);
    }
    assert_eq!(handle.stats().waiting, 4);
    // Four wait, two slots, 10 s each: the fifth has its turn after 25 s.
    let before = tokio::time::Instant::now();
    let error = send(&service, request().with_timeout(24 * SECOND)).await;
    let error = error.expect_err("refused");
    assert_eq!(before.elapsed(), std::time::Duration::ZERO);
    assert_eq!(error.kind(), ErrorKind::QueueFull);
    assert_eq!(error.retry_after(), Some(25 * SECOND));
    assert_eq!(handle.stats().rejected(RejectReason::TooLate), 1);
    let in_time = send(&service, request().with_timeout(60 * SECOND)).await;
    in_time.expect("served");
    // One of a higher priority goes first, and so is in time.
    for _ in 0..6 {
        tasks.push(spawn(&service, request()).await);
    }
    let urgent = request()
        .with_priority(Priority::INTERACTIVE)
        .with_timeout(24 * SECOND);
    send(&service, urgent).await.expect("served");
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_or_the_lowest_gives_way() {
    for evict in [false, true] {
        let model = slow(SECOND);
        let (service, handle) = around(&model, sized(1).max_queued(2).evict_lower(evict));
        let low = || request().with_priority(Priority::BATCH);
        let high = || request().with_priority(Priority::INTERACTIVE);
        let first = spawn(&service, low()).await;
        let older = spawn(&service, low()).await;
        let newer = spawn(&service, low()).await;
        let refused = send(&service, low()).await.expect_err("the queue is full");
        assert_eq!(refused.kind(), ErrorKind::QueueFull);
        let urgent = send(&service, high()).await;
        first.await.expect("no panic").expect("served");
        older.await.expect("no panic").expect("served");
        let newer = newer.await.expect("no panic");
        let stats = handle.stats();
        assert_eq!(urgent.is_ok(), evict);
        assert_eq!(newer.is_err(), evict);
        assert_eq!(stats.rejected(RejectReason::Evicted), u64::from(evict));
        assert_eq!(
            stats.rejected(RejectReason::QueueFull),
            2 - u64::from(evict)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn growth_wakes_as_many_as_it_admits_and_shrinking_revokes_nothing() {
    let model = ScriptedLlm::new(Script::hang());
    let (mut service, handle) = around(&model, sized(1));
    let _held = spawn(&service, request()).await;
    let mut waits = Vec::new();
    for _ in 0..5 {
        let wakes = CountingWaker::new();
        let mut call = Box::pin(service.ready().await.expect("ready").call(request()));
        let waker = wakes.waker();
        assert!(
            call.as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
        waits.push((call, wakes));
    }
    handle.resize(4).expect("sensible");
    let woken: Vec<_> = waits.iter().map(|(_, wakes)| wakes.count()).collect();
    assert_eq!(woken, [1, 1, 1, 0, 0]);
    for (call, _) in &mut waits {
        assert!(matches!(poll_once(call), Poll::Pending));
    }
    assert_eq!(model.in_progress(), 4);
    handle.resize(2).expect("sensible");
    let stats = handle.stats();
    assert_eq!((stats.size, stats.in_use, stats.beyond), (2, 4, 2));
    assert_eq!(model.in_progress(), 4);
    // What is beyond the size is handed on to nobody.
    waits.remove(0);
    waits.remove(0);
    assert_eq!((handle.stats().in_use, handle.stats().waiting), (2, 2));
    waits.remove(0);
    assert_eq!((handle.stats().in_use, handle.stats().waiting), (2, 1));
    assert!(handle.resize(0).is_err());
}

#[tokio::test(start_paused = true)]
async fn failures_and_panics_give_the_slot_back() {
    let model = ScriptedLlm::new("Hello.")
        .then(Script::fail(ErrorKind::ServerError))
        .then(Script::panics("as it was told"))
        .then(Script::words(3).cut_after(1));
    let (service, handle) = around(&model, sized(1));
    send(&service, request()).await.expect_err("it fails");
    assert!(spawn(&service, request()).await.await.is_err(), "it panics");
    let cut = send(&service, request().streamed())
        .await
        .expect("it opens");
    cut.collect().await.expect_err("it is cut");
    assert_eq!(handle.stats().in_use, 0);
    send(&service, request()).await.expect("served");
}
