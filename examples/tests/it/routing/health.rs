//! Who is left alone, for how long, and what is told when that is everybody.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use donjon_testkit::upstream::{Failure, Script};
use http::Method;
use tokio::time::{Instant, sleep, timeout};

use super::{GEMINI, NO_BREAKER, OLLAMA, ask, routed, served, status};
use crate::{
    outage::switched,
    support::{ANTHROPIC, CHAT, Caller, Gate, OPENAI, SOON, always, chat, seen, steady, upstream},
};

/// Waits until that is how it stands.
async fn until(gate: &Gate, target: &str, word: &str) {
    let look = async {
        while status(gate, target).await.0 != word {
            sleep(Duration::from_millis(1)).await;
        }
    };
    let waited = timeout(SOON, look).await;
    waited.unwrap_or_else(|_| panic!("{target} is never {word}"));
}

#[tokio::test]
async fn a_target_that_fails_is_left_alone_and_its_reason_is_told() {
    let down = Arc::new(AtomicBool::new(true));
    let (first, second) = (switched(&down).await, steady().await);
    let targets = [(OPENAI, &first, ""), (OPENAI, &second, "")];
    let health = "[routes.health]\nconsecutive_failures = 2\nout_for = \"1h\"\nlongest = \"2h\"";
    let gate = Gate::open(&routed(&targets, health, NO_BREAKER)).await;
    for _ in 0..10 {
        assert_eq!(served(&gate).await, "t1");
    }
    assert_eq!(first.count(), 2, "two faults in a row");
    let (word, reason) = status(&gate, "t0").await;
    assert_eq!(word, "out");
    assert_eq!(reason.as_deref(), Some("unavailable"));
    assert_eq!(status(&gate, "t1").await, ("up".into(), None));
    assert_eq!(gate.get("/health").await.status, 200, "the route can serve");
}

#[tokio::test]
async fn a_target_that_works_again_comes_back() {
    let down = Arc::new(AtomicBool::new(true));
    let (first, second) = (switched(&down).await, steady().await);
    let targets = [(OPENAI, &first, ""), (OPENAI, &second, "")];
    let health = "[routes.health]\nconsecutive_failures = 1\nout_for = \"10ms\"\n\
                  longest = \"10ms\"\nreturn_over = \"10ms\"";
    let gate = Gate::open(&routed(&targets, health, NO_BREAKER)).await;
    assert_eq!(served(&gate).await, "t1");
    // Once after the other it is tried, and nobody notices.
    let tried = async {
        while first.count() < 4 {
            assert_eq!(served(&gate).await, "t1");
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(SOON, tried).await.expect("it is tried");
    down.store(false, SeqCst);
    let back = async {
        while served(&gate).await != "t0" {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(SOON, back).await.expect("it comes back");
    until(&gate, "t0", "up").await;
    assert_eq!(served(&gate).await, "t0");
}

#[tokio::test]
async fn one_that_is_slow_is_left_alone() {
    let slow = Script::answer("served").first_token_after(Duration::from_millis(50));
    let (first, second) = (always(slow).await, steady().await);
    let targets = [(OPENAI, &first, ""), (OPENAI, &second, "")];
    let health = "[routes.health]\nconsecutive_failures = 2\nslow_first_token = \"20ms\"\n\
                  slow_answer = \"20ms\"\nout_for = \"1h\"\nlongest = \"1h\"";
    for stream in [true, false] {
        let gate = Gate::open(&routed(&targets, health, "")).await;
        let before = first.count();
        for _ in 0..6 {
            ask(&gate, &chat(stream)).await;
        }
        assert_eq!(first.count() - before, 2, "streamed: {stream}");
        let (word, reason) = status(&gate, "t0").await;
        assert_eq!((&*word, reason.as_deref()), ("out", Some("slow")));
    }
}

#[tokio::test]
async fn probes_find_out_before_callers_do() {
    for kind in [OPENAI, ANTHROPIC, GEMINI, OLLAMA] {
        let (first, second) = (steady().await, steady().await);
        first.refuse_listings(Failure::service_unavailable());
        let targets = [(kind, &first, ""), (OPENAI, &second, "")];
        let probes = "[routes.health]\nreturn_over = \"1ms\"\n\
                      [routes.probes]\ninterval = \"5ms\"\ntimeout = \"5s\"\ndown_after = 2\nup_after = 2";
        let gate = Gate::open(&routed(&targets, probes, "")).await;
        until(&gate, "t0", "down").await;
        assert!(first.seen().listings >= 2, "{kind}");
        let (_, reason) = status(&gate, "t0").await;
        assert_eq!(reason.as_deref(), Some("probe"));
        assert_eq!(served(&gate).await, "t1");
        assert_eq!(first.count(), 0, "no call found it out");
        first.refuse_listings(None);
        let back = async {
            while served(&gate).await != "t0" {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(SOON, back).await.expect("it comes back");
    }
}

#[tokio::test]
async fn when_all_are_out_it_is_told_exactly_when_to_come_back() {
    const MOMENT: Duration = Duration::from_secs(1);
    let refusal = |script: Script| upstream([script]);
    let limited = || Script::fail(Failure::rate_limited());
    let first = refusal(limited().retry_after(60)).await;
    let second = refusal(limited().retry_after_ms(1_000)).await;
    // One that has all the calls it may have is not out, and asked by nobody.
    let full = always(Script::hang()).await;
    let targets = [
        (OPENAI, &first, "priority = 1"),
        (OPENAI, &second, "priority = 1"),
        (OPENAI, &full, "max_in_flight = 1"),
    ];
    let route = "when_out = \"fail\"\n[routes.health]\nmost_out = 1.0";
    let gate = Gate::open(&routed(&targets, route, NO_BREAKER)).await;
    let mut held = Caller::connect(&gate).await;
    let hangs = tokio::spawn(held.start(Method::POST, CHAT, chat(false).into()));
    seen(&full, |seen| seen.in_progress == 1).await;

    let began = Instant::now();
    let failed = gate.post(CHAT, chat(false)).await;
    assert!([429, 503].contains(&failed.status), "{}", failed.text());
    let out = Instant::now();
    let refused = gate.post(CHAT, chat(false)).await;
    let told = Instant::now();
    if told - began >= MOMENT {
        // The machine was so busy that it had come back.
        return;
    }
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!((first.count(), second.count()), (1, 1), "nobody was asked");
    let header = |name| refused.header(name).expect("when").parse::<u64>();
    let after = Duration::from_millis(header("retry-after-ms").expect("milliseconds"));
    let whole = after.as_secs() + u64::from(after.subsec_nanos() > 0);
    assert_eq!(header("retry-after"), Ok(whole));
    assert!(told + after >= began + MOMENT, "{after:?} is too early");
    let latest = out + MOMENT + Duration::from_millis(1);
    assert!(out + after <= latest, "{after:?} is too late");
    sleep(after).await;
    assert_eq!(served(&gate).await, "t1", "as it was told");
    held.leave().await;
    hangs.abort();
}

#[tokio::test]
async fn where_the_least_bad_is_asked_nobody_is_refused() {
    let limited = Script::fail(Failure::rate_limited()).retry_after(60);
    let (first, full) = (upstream([limited]).await, always(Script::hang()).await);
    let targets = [
        (OPENAI, &first, "priority = 1"),
        (OPENAI, &full, "max_in_flight = 1"),
    ];
    let route = "when_out = \"least-bad\"\n[routes.health]\nmost_out = 1.0";
    let gate = Gate::open(&routed(&targets, route, NO_BREAKER)).await;
    let mut held = Caller::connect(&gate).await;
    let hangs = tokio::spawn(held.start(Method::POST, CHAT, chat(false).into()));
    seen(&full, |seen| seen.in_progress == 1).await;
    assert_ne!(gate.post(CHAT, chat(false)).await.status, 200);
    assert_eq!(status(&gate, "t0").await.0, "out");
    assert_eq!(served(&gate).await, "t0");
    held.leave().await;
    hangs.abort();
}
