//! Circuits, pools and limits of the gateway, over TCP.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use donjon_examples::gateway::{Config, Gateway};
use donjon_testkit::upstream::{Script, Usage};
use futures_util::future::join_all;
use http::Method;

use crate::{
    outage::switched,
    support::{
        ANTHROPIC, CHAT, Caller, Gate, MESSAGES, OPENAI, always, chat, config, messages, seen,
        steady, waiting,
    },
};

#[tokio::test]
async fn a_provider_that_is_down_is_left_alone_and_every_call_is_served() {
    let down = Arc::new(AtomicBool::new(true));
    let (first, second) = (switched(&down).await, steady().await);
    let targets = [(OPENAI, &first), (OPENAI, &second)];
    let more = "[breaker]\nconsecutive_failures = 3\nopen = \"60s\"";
    let gate = Gate::open(&config(&targets, 1, more)).await;
    for _ in 0..30 {
        let answer = gate.post(CHAT, chat(false)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("x-donjon-target"), Some("t1"));
    }
    assert_eq!(first.count(), 3, "then its circuit was open");

    let ready = gate.get("/health/ready").await;
    assert_eq!(ready.status, 200, "{}", ready.text());
    let report = gate.get("/health").await.json().to_string();
    assert!(report.contains("circuit"), "{report}");
    assert!(report.contains(r#""target":"t0""#), "{report}");
}

/// R12.
#[tokio::test]
async fn a_tenant_over_its_tokens_gets_a_429_that_says_when_and_is_not_failed_over() {
    let thousand = || Script::answer("served").usage(Usage::new(900, 100));
    let (first, second) = (always(thousand()).await, always(thousand()).await);
    let targets = [(OPENAI, &first), (ANTHROPIC, &second)];
    let more = "[tenants.limits]\ntokens_per_minute = 2000\nwait = false";
    let gate = Gate::open(&config(&targets, 1, more)).await;
    let mut busy = Caller::connect(&gate).await.of("busy");
    for _ in 0..2 {
        let answer = busy.post(CHAT, chat(false)).await.read().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    for (path, body) in [(CHAT, chat(true)), (MESSAGES, messages(false))] {
        let refused = busy.post(path, body).await.read().await;
        assert_eq!(refused.status, 429, "{}", refused.text());
        let after = refused.header("retry-after").expect("when");
        let after: u64 = after.parse().expect("seconds");
        assert!((50..=61).contains(&after), "{after}");
        assert_eq!(refused.header("x-should-retry"), Some("false"));
        let error = &refused.json()["error"];
        let says = error["message"].as_str().unwrap_or_default();
        assert!(says.contains("tokens"), "{error}");
    }
    assert_eq!((first.count(), second.count()), (2, 0));
    let mut idle = Caller::connect(&gate).await.of("idle");
    assert_eq!(idle.post(CHAT, chat(false)).await.status(), 200);
}

#[tokio::test]
async fn a_provider_has_no_more_calls_at_a_time_than_its_pool_has_slots() {
    let slow = Script::answer("served").headers_after(Duration::from_millis(5));
    let only = always(slow).await;
    let more = "[providers.t0.pool]\nsize = 3";
    let gate = Gate::open(&config(&[(OPENAI, &only)], 1, more)).await;
    let calls = (0..24).map(|_| gate.post(CHAT, chat(false)));
    for answer in join_all(calls).await {
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(only.peak(), 3);
    let report = gate.get("/health").await.json().to_string();
    assert!(report.contains("pool"), "{report}");
}

#[tokio::test]
async fn the_quota_of_a_provider_holds_for_all_routes_to_it() {
    let (first, second) = (steady().await, steady().await);
    let targets = [(OPENAI, &first), (OPENAI, &second)];
    let more = "[[routes]]\nmodel = \"other\"\ntargets = [{ provider = \"t0\" }]\n\
                [providers.t0.limits]\nrequests_per_minute = 2\nwait = false";
    let text = config(&targets, 1, more);
    // The first match wins, so what takes everything must not stand first.
    let text = text.replacen("model = \"*\"", "model = \"gpt-*\"", 1);
    let gate = Gate::open(&text).await;
    let other = || chat(false).replace("gpt-4o", "other");
    assert_eq!(gate.post(CHAT, chat(false)).await.status, 200);
    assert_eq!(gate.post(CHAT, other()).await.status, 200);
    let refused = gate.post(CHAT, other()).await;
    assert_eq!(refused.status, 429, "there is no other target");
    let answer = gate.post(CHAT, chat(false)).await;
    assert_eq!(answer.header("x-donjon-target"), Some("t1"));
    assert_eq!((first.count(), second.count()), (2, 1));
}

/// A caller who leaves while it waits in a pool is given back everything that was taken for it.
#[tokio::test]
async fn a_caller_who_leaves_the_queue_is_refunded() {
    let only = always(Script::hang()).await;
    let more = "[providers.t0.pool]\nsize = 1\n\
                [tenants.limits]\nrequests_per_minute = 2\nwait = false";
    let gate = Gate::open(&config(&[(OPENAI, &only)], 1, more)).await;
    let ask = |caller: &mut Caller| caller.start(Method::POST, CHAT, chat(false).into());

    let mut first = Caller::connect(&gate).await.of("a");
    let held = tokio::spawn(ask(&mut first));
    seen(&only, |seen| seen.in_progress == 1).await;
    let mut second = Caller::connect(&gate).await.of("a");
    let waits = tokio::spawn(ask(&mut second));
    waiting(&gate, "t0", 1.0).await;

    let mut third = Caller::connect(&gate).await.of("a");
    let refused = third.post(CHAT, chat(false)).await;
    assert_eq!(
        refused.status(),
        429,
        "both requests of the minute are taken"
    );
    second.leave().await;
    waits.abort();
    waiting(&gate, "t0", 0.0).await;
    // It waits for the slot now, which is no refusal.
    let mut fourth = Caller::connect(&gate).await.of("a");
    let waits = tokio::spawn(ask(&mut fourth));
    waiting(&gate, "t0", 1.0).await;

    assert_eq!(only.count(), 1, "nobody else was sent");
    first.leave().await;
    fourth.leave().await;
    held.abort();
    waits.abort();
}

#[test]
fn what_makes_no_sense_is_named_by_its_path() {
    let provider = "[providers.main]\nkind = \"scripted\"\n\
                    [[routes]]\nmodel = \"*\"\ntargets = [{ provider = \"main\" }]\n";
    let refused = |more: &str| {
        let config = Config::from_toml(&format!("{provider}{more}"));
        let built = config.and_then(|config| Gateway::build(&config).map(drop));
        built.expect_err(more).path().to_owned()
    };
    for (more, path) in [
        ("[breaker]\nfailure_rate = 2.0", "breaker.failure_rate"),
        ("[breaker]\nslow_rate = 0.5", "breaker.slow_rate"),
        (
            "[breaker]\nslow_first_token = \"0s\"",
            "breaker.slow_first_token",
        ),
        (
            "[breaker]\nconsecutive_failures = 0",
            "breaker.consecutive_failures",
        ),
        ("[breaker]\nminimum_calls = 0", "breaker.minimum_calls"),
        ("[breaker]\nwindow_calls = 0", "breaker.window_calls"),
        ("[breaker]\nwindow = \"0s\"", "breaker.window"),
        (
            "[breaker]\nwindow = \"1m\"\nwindow_calls = 5",
            "breaker.window",
        ),
        ("[breaker]\nopen = \"0s\"", "breaker.open"),
        (
            "[breaker]\nopen = \"9s\"\nmax_open = \"2s\"",
            "breaker.max_open",
        ),
        ("[breaker]\nprobes = 0", "breaker.probes"),
        ("[breaker]\nclosed = true", "breaker.closed"),
        (
            "[providers.main.pool]\nsize = 0",
            "providers.main.pool.size",
        ),
        (
            "[providers.main.pool]\nmax_size = 9",
            "providers.main.pool.max_size",
        ),
        (
            "[providers.main.pool]\ntemporary = 0",
            "providers.main.pool.temporary",
        ),
        (
            "[providers.main.pool]\nmax_wait = \"0s\"",
            "providers.main.pool.max_wait",
        ),
        (
            "[providers.main.pool]\nadaptive = \"magic\"",
            "providers.main.pool.adaptive",
        ),
        (
            "[providers.main.limits]\ntokens_per_minute = 0",
            "providers.main.limits.tokens_per_minute",
        ),
        ("[tenants.limits]", "tenants.limits"),
        (
            "[tenants.limits]\nrequests_per_day = 0",
            "tenants.limits.requests_per_day",
        ),
        ("[tenants]\nheader = \"a b\"", "tenants.header"),
    ] {
        assert_eq!(refused(more), path, "{more}");
    }
}
