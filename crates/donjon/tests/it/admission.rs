//! Circuits, pools and limits in the stack, over real HTTP. The attempts are counted, and timed, at
//! the upstream.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use donjon::{
    ErrorKind, Estimate, Identity, Key, KeyBy, LlmRequest, Scope,
    circuit_breaker::{BreakerLayer, CircuitState, OpenDelay},
    failover::Target,
    pool::{Aimd, Overflow as PoolOverflow, PoolLayer},
    rate_limit::{Limit, Overflow, RateLimitLayer},
    retry::RetryLayer,
};
use donjon_testkit::upstream::{Failure, Script, Upstream, Usage};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use crate::{always, call, preset, provider, unary};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// Opens after ten failures, and tries every five seconds.
fn breaker() -> donjon::circuit_breaker::BreakerBuilder {
    BreakerLayer::builder().open_delay(OpenDelay::fixed(5 * SECOND).jitter(0.0))
}

fn once() -> RetryLayer {
    RetryLayer::builder().max_attempts(1).build().expect("good")
}

/// Answers 503 while the switch is on.
fn switched(down: &Arc<AtomicBool>, takes: Duration) -> Upstream {
    let down = down.clone();
    Upstream::builder()
        .respond(move |_| {
            if down.load(SeqCst) {
                Script::from(Failure::service_unavailable()).headers_after(takes)
            } else {
                Script::answer("served")
            }
        })
        .in_memory()
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_down_for_a_minute_sees_one_probe_an_interval_and_serves_again_at_once() {
    let down = Arc::new(AtomicBool::new(true));
    let (first, second) = (
        switched(&down, Duration::ZERO),
        always(Script::answer("served")),
    );
    let stack = preset(&[&first, &second]).retry(once()).breaker(breaker());
    let stack = stack.build().expect("good");
    let began = Instant::now();
    let mut recovered = None;
    // Ten calls a second for 70 s; it is down for the first 60.
    for n in 0..700 {
        if n == 600 {
            down.store(false, SeqCst);
        }
        let got = call(&stack, unary()).await;
        assert_eq!(got.text, "served", "call {n}: {:?}", got.error);
        if got.target.as_deref() == Some("t0") && recovered.is_none() {
            recovered = Some(began.elapsed());
        }
        sleep(100 * MS).await;
    }
    let during: Vec<_> = first.calls().iter().map(|call| call.request.at).collect();
    let down_for = began + 60 * SECOND;
    let during = during.into_iter().filter(|at| *at < down_for);
    let (opening, probes): (Vec<_>, Vec<_>) =
        during.partition(|at| *at < began + SECOND + 100 * MS);
    assert_eq!(opening.len(), 10, "the calls that opened the circuit");
    assert!(probes.len() <= 12, "{} probes in a minute", probes.len());
    for two in probes.windows(2) {
        assert!(two[1] - two[0] >= 5 * SECOND, "two probes in one interval");
    }
    let recovered = recovered.expect("it serves again");
    assert!(recovered <= 65 * SECOND + 200 * MS, "{recovered:?}");
    let handle = stack
        .target("t0")
        .and_then(|t| t.breaker)
        .expect("a circuit");
    assert_eq!(handle.state(&Key::Global), CircuitState::Closed);
}

/// R13: what is parked in a queue does not pour into a target that is dead by now.
#[tokio::test(start_paused = true)]
async fn five_hundred_calls_parked_when_the_circuit_opens_do_not_reach_the_target() {
    let down = Arc::new(AtomicBool::new(true));
    let (first, second) = (switched(&down, 500 * MS), always(Script::answer("served")));
    let pool = PoolLayer::builder().size(10).max_queued(1_000).build();
    let stack = preset(&[&first, &second])
        .retry(once())
        .breaker(breaker())
        .pool_of("t0", pool.expect("good"))
        .build()
        .expect("good");
    let calls = (0..510).map(|_| call(&stack, unary()));
    let parked = async {
        sleep(200 * MS).await;
        let pool = stack.target("t0").and_then(|t| t.pool).expect("a pool");
        pool.stats().waiting
    };
    let (all, waiting) = tokio::join!(join_all(calls), parked);
    assert_eq!(waiting, 500, "they were parked when it opened");
    for got in &all {
        assert_eq!(got.text, "served", "{:?}", got.error);
        assert_eq!(got.target.as_deref(), Some("t1"));
    }
    assert_eq!(first.count(), 10, "those that were out when it opened");
}

fn of(tenant: &str) -> LlmRequest {
    unary().on_behalf_of(Identity::builder().tenant(tenant).build())
}

fn tenants(limit: Limit, overflow: Overflow) -> RateLimitLayer {
    let builder = RateLimitLayer::builder()
        .key_by(KeyBy::Tenant)
        .for_callers()
        .limit(limit)
        .overflow(overflow);
    builder.build().expect("good")
}

fn thousand_tokens() -> Script {
    Script::answer("served").usage(Usage::new(900, 100))
}

/// R12.
#[tokio::test(start_paused = true)]
async fn a_tenant_over_its_limit_is_told_when_to_come_back_and_never_failed_over() {
    let (first, second) = (always(thousand_tokens()), always(thousand_tokens()));
    let limit = tenants(Limit::tokens(3_000).per_minute(), Overflow::Reject);
    let stack = preset(&[&first, &second]).caller_limit(limit);
    let stack = stack.build().expect("good");
    for _ in 0..3 {
        assert_eq!(call(&stack, of("a")).await.text, "served");
        sleep(SECOND).await;
    }
    let error = call(&stack, of("a")).await.error.expect("refused");
    assert_eq!(error.kind(), ErrorKind::LimitedLocally);
    assert_eq!((error.scope(), error.http_status()), (Scope::Caller, 429));
    assert_eq!(
        (first.count(), second.count()),
        (3, 0),
        "it was not failed over"
    );
    assert_eq!(
        call(&stack, of("b")).await.text,
        "served",
        "another one is untouched"
    );

    // Exact: not a millisecond earlier, and then at once.
    let after = error.retry_after().expect("it says when");
    sleep(after - MS).await;
    assert!(call(&stack, of("a")).await.error.is_some());
    sleep(MS).await;
    assert_eq!(call(&stack, of("a")).await.text, "served");
}

#[tokio::test(start_paused = true)]
async fn or_it_waits_for_its_turn() {
    let only = always(thousand_tokens());
    let limit = tenants(Limit::tokens(2_000).per_minute(), Overflow::Wait);
    let stack = preset(&[&only]).caller_limit(limit).build().expect("good");
    let began = Instant::now();
    for _ in 0..3 {
        assert_eq!(call(&stack, of("a")).await.text, "served");
    }
    let waited = began.elapsed();
    assert!(waited >= 60 * SECOND && waited <= 62 * SECOND, "{waited:?}");
}

/// Whatever was taken for a call that never left is given back in full: one that was refused by a full
/// queue, and one that was dropped while it waited in it.
#[tokio::test(start_paused = true)]
async fn a_call_that_is_shed_or_dropped_before_it_was_sent_is_refunded() {
    let slow = always(thousand_tokens().headers_after(10 * SECOND));
    let limit = tenants(Limit::tokens(10_000).per_minute(), Overflow::Reject);
    let handle = limit.handle();
    let pool = PoolLayer::builder().size(1).max_queued(1);
    let stack = preset(&[&slow]).caller_limit(limit).pool(pool).build();
    let stack = stack.expect("good");
    let left = || handle.peek(&Key::name("a"))[0].remaining();

    let served = tokio::spawn({
        let stack = stack.clone();
        async move { call(&stack, of("a")).await }
    });
    sleep(SECOND).await;
    assert_eq!(left(), 9_000);
    let waits = tokio::spawn({
        let stack = stack.clone();
        async move { call(&stack, of("a")).await }
    });
    sleep(SECOND).await;
    assert_eq!(left(), 8_000);
    let shed = call(&stack, of("a"))
        .await
        .error
        .expect("the queue is full");
    assert_eq!(shed.kind(), ErrorKind::QueueFull);
    assert_eq!(left(), 8_000, "the one that was shed is refunded");
    waits.abort();
    assert!(waits.await.is_err());
    assert_eq!(left(), 9_000, "the one that left is refunded");
    assert_eq!(served.await.expect("no panic").text, "served");
    assert_eq!((left(), slow.count()), (9_000, 1));
}

/// A provider that was waited for in vain may have read the prompt, whoever serves in the end.
#[tokio::test(start_paused = true)]
async fn a_tenant_pays_for_the_attempts_that_were_given_up_too() {
    let (first, second) = (always(Script::hang()), always(thousand_tokens()));
    let limit = tenants(Limit::tokens(10_000).per_minute(), Overflow::Reject);
    let handle = limit.handle();
    let stack = preset(&[&first, &second]).retry(once()).caller_limit(limit);
    let stack = stack.build().expect("good");
    let mut request = of("a").streamed();
    request.call.estimate = Some(Estimate::new(700, 300));
    assert_eq!(call(&stack, request).await.text, "served");
    assert_eq!((first.count(), second.count()), (1, 1));
    let used = handle.peek(&Key::name("a"))[0].used;
    assert_eq!(used, 700 + 1_000);
}

/// The limit is the last that waits, so that what it admits is sent now.
#[tokio::test(start_paused = true)]
async fn behind_a_full_pool_the_upstream_sees_no_more_than_the_rate() {
    let only = always(Script::answer("served").headers_after(300 * MS));
    let stack = preset(&[&only])
        .pool(PoolLayer::builder().size(4).max_queued(1_000))
        .rate_limit(RateLimitLayer::builder().limit(Limit::requests(10).per_second()))
        .build()
        .expect("good");
    let all = join_all((0..200).map(|_| call(&stack, unary()))).await;
    assert!(all.iter().all(|got| got.text == "served"));
    let mut sent: Vec<_> = only.calls().iter().map(|call| call.request.at).collect();
    sent.sort_unstable();
    assert_eq!(sent.len(), 200);
    for eleven in sent.windows(11) {
        assert!(
            eleven[10] - eleven[0] >= SECOND,
            "more than ten in a second"
        );
    }
    let took = sent[199] - sent[0];
    assert!(took <= 21 * SECOND, "the limit is used: {took:?}");
    assert!(only.peak() <= 4);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_by_the_quota_of_one_target_fails_over_to_the_next() {
    let (first, second) = (always(Script::answer("one")), always(Script::answer("two")));
    let limit = RateLimitLayer::builder()
        .limit(Limit::requests(1).per_minute())
        .overflow(Overflow::Reject);
    let stack = preset(&[&first, &second]).rate_limit(limit);
    let stack = stack.build().expect("good");
    assert_eq!(call(&stack, unary()).await.text, "one");
    assert_eq!(call(&stack, unary()).await.text, "two");
    let error = call(&stack, unary()).await.error.expect("both are used up");
    assert_eq!(error.kind(), ErrorKind::AllTargetsFailed);
    let after = error.retry_after().expect("the earliest of both");
    // A sub-window of the minute expires as a whole.
    assert!(after > 59 * SECOND && after <= 61 * SECOND, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn temporary_slots_take_what_a_pool_cannot() {
    let only = always(Script::answer("served").headers_after(SECOND));
    let pool = PoolLayer::builder()
        .size(2)
        .max_queued(0)
        .overflow(PoolOverflow::Temporary(1));
    let stack = preset(&[&only]).pool(pool).build().expect("good");
    let all = join_all((0..4).map(|_| call(&stack, unary()))).await;
    assert_eq!(all.iter().filter(|got| got.text == "served").count(), 3);
    assert_eq!(only.peak(), 3);
}

#[test]
fn what_is_set_for_a_target_that_there_is_not_is_refused() {
    let upstream = always(Script::answer("served"));
    let preset = donjon::Preset::new()
        .target(Target::new("main", provider(&upstream)))
        .pool_of("mian", PoolLayer::default());
    let error = preset.build().expect_err("a name that is not there");
    assert_eq!(error.to_string(), "no target is named `mian`");
}

/// The stack can serve while any of its targets can.
#[tokio::test(start_paused = true)]
async fn an_open_circuit_is_shown_and_does_not_make_the_stack_unhealthy() {
    let (first, second) = (
        always(Failure::service_unavailable()),
        always(Script::answer("served")),
    );
    let stack = preset(&[&first, &second]).retry(once()).breaker(breaker());
    let stack = stack.build().expect("good");
    for _ in 0..20 {
        assert_eq!(call(&stack, unary()).await.text, "served");
    }
    let snapshots = stack.snapshots();
    assert!(snapshots.iter().all(|of| of.health().is_ok()));
    let figures = snapshots.iter().flat_map(|of| of.figures());
    let serving: Vec<_> = figures.filter(|f| f.name == "targets_serving").collect();
    assert!((serving[0].value - 1.0).abs() < f64::EPSILON);

    let handle = stack
        .target("t1")
        .and_then(|t| t.breaker)
        .expect("a circuit");
    handle
        .circuit_or_new(&Key::Global)
        .expect("room")
        .force_open();
    let ill: Vec<_> = stack
        .snapshots()
        .iter()
        .filter_map(|of| of.health().err())
        .collect();
    assert_eq!(ill, ["the circuits of all targets are open"]);
}

/// A provider counts what it is asked, also while it is down.
#[tokio::test(start_paused = true)]
async fn the_rate_holds_while_the_upstream_fails() {
    let only = always(Failure::service_unavailable());
    let limit = RateLimitLayer::builder().limit(Limit::requests(10).per_second());
    let stack = preset(&[&only]).retry(once()).breaker(None);
    let stack = stack.rate_limit(limit).build().expect("good");
    join_all((0..50).map(|_| call(&stack, unary()))).await;
    let mut sent: Vec<_> = only.calls().iter().map(|call| call.request.at).collect();
    sent.sort_unstable();
    assert_eq!(sent.len(), 50);
    for eleven in sent.windows(11) {
        assert!(
            eleven[10] - eleven[0] >= SECOND,
            "more than ten in a second"
        );
    }
}

/// Those who wait for their turn at the target's limit when its circuit opens were not charged, hold
/// no slot, and go on to the next.
#[tokio::test(start_paused = true)]
async fn calls_parked_at_the_limit_when_the_circuit_opens_go_on_to_the_next_target() {
    let (first, second) = (always(Script::answer("one")), always(Script::answer("two")));
    let limit = RateLimitLayer::builder().limit(Limit::requests(2).per_second());
    let stack = preset(&[&first, &second])
        .patience(100 * SECOND)
        .retry(once())
        .pool_of("t0", PoolLayer::new(50).expect("good"))
        .rate_limit_of("t0", limit.build().expect("good"))
        .build()
        .expect("good");
    let of_first = stack.target("t0").expect("it is there").clone();
    let open = async {
        sleep(SECOND / 2).await;
        let breaker = of_first.breaker.as_ref().expect("a circuit");
        let circuit = breaker.circuit_or_new(&Key::Global).expect("room");
        circuit.force_open();
    };
    let calls = join_all((0..22).map(|_| call(&stack, unary())));
    let (all, ()) = tokio::join!(calls, open);
    assert!(all.iter().all(|got| got.error.is_none()));
    assert_eq!((first.count(), second.count()), (2, 20));
    let limit = of_first.rate_limit.as_ref().expect("a limit");
    assert!(limit.peek(&Key::Global)[0].used <= 2);
    let pool = of_first.pool.as_ref().expect("a pool");
    assert_eq!(pool.stats().in_use, 0);
}

/// A server that hangs has too much to do, whichever clock says so.
#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_at_the_server_makes_an_adaptive_pool_smaller() {
    let only = always(Script::hang());
    let stack = preset(&[&only])
        .retry(once())
        .breaker(None)
        .total_timeout(5 * SECOND)
        .pool(PoolLayer::builder().aimd(Aimd::new().initial(20)))
        .build()
        .expect("good");
    for _ in 0..10 {
        assert!(call(&stack, unary()).await.error.is_some());
    }
    let pool = stack.target("t0").and_then(|t| t.pool);
    assert!(pool.expect("a pool").stats().size < 20);
}

/// Without it a call would first wait for a slot that a dead target's calls hold.
#[tokio::test(start_paused = true)]
async fn an_open_circuit_is_told_before_the_pool_is_waited_for() {
    let (first, second) = (always(Script::hang()), always(Script::answer("two")));
    let stack = preset(&[&first, &second])
        .retry(once())
        .pool_of("t0", PoolLayer::new(1).expect("good"))
        .build()
        .expect("good");
    let holds = tokio::spawn({
        let stack = stack.clone();
        async move { call(&stack, unary()).await }
    });
    sleep(MS).await;
    let breaker = stack.target("t0").and_then(|t| t.breaker);
    let circuit = breaker.expect("a circuit").circuit_or_new(&Key::Global);
    circuit.expect("room").force_open();
    let got = call(&stack, unary()).await;
    assert_eq!(got.text, "two");
    assert!(
        got.ended_after < 100 * MS,
        "it waited {:?}",
        got.ended_after
    );
    holds.abort();
}
