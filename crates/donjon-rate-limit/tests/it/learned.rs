//! What providers say of their limits.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use donjon_core::{
    ChatCompletion, ErrorKind, Head, Health, Key, LimitHint, LimitUnit, LlmError, LlmRequest,
    LlmResponse, Origin, Usage,
};
use donjon_providers::hints;
use donjon_rate_limit::{Limit, Overflow, RateLimitBuilder, RateLimitHandle, RateLimitLayer};
use donjon_testkit::{Script, ScriptedLlm};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::{Instant, sleep};
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::{MINUTE, SECOND, SLOT, around, expecting, passes, refused, request, send};

const NOW: Duration = Duration::from_secs(1_735_689_600);

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pairs = pairs.iter().map(|(name, value)| {
        let value = HeaderValue::from_str(value).expect("a value");
        (HeaderName::from_static(name), value)
    });
    pairs.collect()
}

/// An answer with these headers, received at 2025-01-01T00:00:00Z and so long after.
fn answer(after: Duration, pairs: &[(&'static str, &str)]) -> Script {
    told(
        Script::answer("hi").usage(Usage::new(100, 100)),
        after,
        pairs,
    )
}

fn told(script: Script, after: Duration, pairs: &[(&'static str, &str)]) -> Script {
    let now: SystemTime = UNIX_EPOCH + NOW + after;
    let hints = hints::limits(&headers(pairs), now).expect("hints");
    hints.limits.into_iter().fold(script, Script::limit)
}

fn openai(remaining_requests: &str, remaining_tokens: &str) -> Script {
    answer(
        Duration::ZERO,
        &[
            ("x-ratelimit-limit-requests", "60"),
            ("x-ratelimit-limit-tokens", "150000"),
            ("x-ratelimit-remaining-requests", remaining_requests),
            ("x-ratelimit-remaining-tokens", remaining_tokens),
            ("x-ratelimit-reset-requests", "12s"),
            ("x-ratelimit-reset-tokens", "6s"),
        ],
    )
}

fn rejecting() -> RateLimitBuilder {
    RateLimitLayer::builder().overflow(Overflow::Reject)
}

fn remaining(handle: &RateLimitHandle) -> Vec<u64> {
    let standing = handle.peek(&Key::Global).into_iter();
    standing.map(|standing| standing.remaining()).collect()
}

/// Another client of the same key uses it up; what OpenAI says tells so before the first 429.
#[tokio::test(start_paused = true)]
async fn a_sequence_of_openai() {
    let model = ScriptedLlm::default()
        .then(openai("59", "149800"))
        .then(openai("40", "90000"))
        .then(openai("3", "700"))
        .then(openai("0", "0"));
    let limits = rejecting()
        .limit(Limit::requests(500).per_minute())
        .limit(Limit::tokens(200_000).per_minute());
    let (service, handle) = around(&model, limits);
    passes(&service, expecting(100, 100)).await;
    assert_eq!(
        remaining(&handle),
        [59, 149_800],
        "its limits are tighter than ours"
    );
    passes(&service, expecting(100, 100)).await;
    assert_eq!(remaining(&handle), [40, 90_000]);
    passes(&service, expecting(100, 100)).await;
    assert_eq!(remaining(&handle), [3, 700]);
    let error = refused(&service, expecting(500, 500)).await;
    let after = error.retry_after().expect("it says when");
    assert!(
        after >= SECOND * 6 && after <= SECOND * 6 + SLOT,
        "{after:?}"
    );
    passes(&service, expecting(100, 100)).await;
    assert_eq!(remaining(&handle), [0, 0]);
    let error = refused(&service, expecting(10, 10)).await;
    let after = error.retry_after().expect("it says when");
    assert!(
        after >= SECOND * 12 && after <= SECOND * 12 + SLOT,
        "{after:?}"
    );
    assert_eq!(model.count(), 4, "no 429 was needed");
    sleep(after).await;
    passes(&service, expecting(10, 10)).await;
    // Long after, what was configured counts again.
    sleep(MINUTE * 3).await;
    assert_eq!(remaining(&handle), [500, 200_000]);
}

#[tokio::test(start_paused = true)]
async fn a_sequence_of_anthropic() {
    let at = |second: u64, requests: &str, input: &str, output: &str| {
        let reset = format!("2025-01-01T00:00:{second:02}Z");
        answer(
            Duration::from_secs(second - 20),
            &[
                ("anthropic-ratelimit-requests-limit", "50"),
                ("anthropic-ratelimit-requests-remaining", requests),
                ("anthropic-ratelimit-requests-reset", &reset),
                ("anthropic-ratelimit-input-tokens-limit", "30000"),
                ("anthropic-ratelimit-input-tokens-remaining", input),
                ("anthropic-ratelimit-input-tokens-reset", &reset),
                ("anthropic-ratelimit-output-tokens-limit", "8000"),
                ("anthropic-ratelimit-output-tokens-remaining", output),
                ("anthropic-ratelimit-output-tokens-reset", &reset),
            ],
        )
    };
    let model = ScriptedLlm::default()
        .then(at(20, "49", "29000", "7000"))
        .then(at(21, "48", "12000", "2000"))
        .then(at(22, "47", "1000", "0"));
    let layer = RateLimitLayer::learned();
    let handle = layer.handle();
    let service = tower::Layer::layer(&layer, model.clone());
    assert_eq!(remaining(&handle), [u64::MAX; 4], "nobody told of any");
    passes(&service, expecting(1_000, 1_000)).await;
    assert_eq!(remaining(&handle), [49, u64::MAX, 29_000, 7_000]);
    sleep(SECOND).await;
    passes(&service, expecting(1_000, 1_000)).await;
    let left = remaining(&handle);
    assert!(
        left[0] <= 49 && left[2] <= 12_900 && left[3] <= 2_900,
        "{left:?}"
    );
    sleep(SECOND).await;
    passes(&service, expecting(1_000, 1_000)).await;
    // The next one waits for the reset instead of asking for a 429.
    let start = Instant::now();
    passes(&service, expecting(1_000, 1_000)).await;
    let waited = start.elapsed();
    // It comes back bit by bit, as the earlier answers said.
    assert!(
        waited >= SECOND * 18 && waited <= SECOND * 20 + SLOT * 2,
        "{waited:?}"
    );
}

/// A provider that says less than we know makes nothing looser.
#[tokio::test(start_paused = true)]
async fn nothing_is_loosened() {
    let wide = [LimitUnit::Requests, LimitUnit::Tokens];
    let mut script = Script::answer("hi");
    for unit in wide {
        let mut hint = LimitHint::new(unit);
        hint.limit = Some(1_000_000);
        hint.remaining = Some(1_000_000);
        hint.reset = Some(SECOND);
        script = script.limit(hint);
    }
    let limits = rejecting().limit(Limit::requests(2).per_minute());
    let (service, handle) = around(&ScriptedLlm::new(script), limits);
    passes(&service, request()).await;
    assert_eq!(remaining(&handle), [1]);
    passes(&service, request()).await;
    refused(&service, request()).await;
}

/// A limit over a day is not taken for one over a minute, nor the other way round.
#[tokio::test(start_paused = true)]
async fn a_limit_is_recognised_by_its_window() {
    let minute = answer(
        Duration::ZERO,
        &[
            ("x-ratelimit-limit-tokens", "30000"),
            ("x-ratelimit-remaining-tokens", "29000"),
            ("x-ratelimit-reset-tokens", "2s"),
            ("x-ratelimit-limit-requests", "10000"),
            ("x-ratelimit-remaining-requests", "9000"),
            ("x-ratelimit-reset-requests", "2h24m"),
        ],
    );
    let limits = rejecting()
        .limit(Limit::tokens(1_000_000).per_day())
        .limit(Limit::requests(20_000).per_day());
    let (service, handle) = around(&ScriptedLlm::new(minute), limits);
    passes(&service, expecting(100, 100)).await;
    assert_eq!(remaining(&handle), [1_000_000 - 200, 9_000]);
}

#[tokio::test(start_paused = true)]
async fn a_429_stops_admission_until_its_hint() {
    let slow_down = |after| {
        let error = LlmError::new(ErrorKind::RateLimited, "slow down");
        Script::fail(error.with_retry_after(after))
    };
    let model = ScriptedLlm::default()
        .then(slow_down(SECOND * 20).head_after(SECOND / 2))
        .then(slow_down(SECOND * 5).head_after(SECOND));
    let limits = RateLimitLayer::builder().limit(Limit::requests(100).per_minute());
    let (service, handle) = around(&model, limits);
    let second = {
        // Under way when the first is refused; its shorter hint shortens nothing.
        let (first, second) = tokio::join!(send(&service, request()), send(&service, request()));
        first.expect_err("it fails");
        second
    };
    second.expect_err("it fails");
    assert_eq!(handle.stopped_for(&Key::Global), Some(SECOND * 39 / 2));
    let start = Instant::now();
    passes(&service, request()).await;
    assert_eq!(start.elapsed(), SECOND * 39 / 2);
    assert_eq!(handle.stopped_for(&Key::Global), None);
}

#[tokio::test(start_paused = true)]
async fn a_429_without_retry_after_stops_until_the_reset() {
    let refusal = told(
        Script::fail(ErrorKind::RateLimited),
        Duration::ZERO,
        &[
            ("x-ratelimit-remaining-tokens", "0"),
            ("x-ratelimit-reset-tokens", "6m0s"),
            ("x-ratelimit-remaining-requests", "12"),
            ("x-ratelimit-reset-requests", "10m0s"),
        ],
    );
    let limits = rejecting().limit(Limit::requests(100).per_minute());
    let (service, handle) = around(&ScriptedLlm::default().then(refusal), limits);
    send(&service, request()).await.expect_err("it fails");
    assert_eq!(handle.stopped_for(&Key::Global), Some(MINUTE * 6));
    let error = refused(&service, request()).await;
    assert_eq!(error.retry_after(), Some(MINUTE * 6));
    assert!(error.message().contains("the provider asked for a pause"));
    handle.resume(&Key::Global);
    passes(&service, request()).await;
}

/// R2: hints that make no sense stop nothing, and a fault is no overload.
#[tokio::test(start_paused = true)]
async fn what_says_nothing_stops_nothing() {
    let zero = LlmError::new(ErrorKind::RateLimited, "now").with_retry_after(Duration::ZERO);
    let broken = LlmError::new(ErrorKind::ServerError, "oh").with_retry_after(MINUTE);
    for script in [
        Script::fail(ErrorKind::RateLimited),
        Script::fail(zero),
        Script::fail(broken),
    ] {
        let limits = rejecting().limit(Limit::requests(100).per_minute());
        let (service, handle) = around(&ScriptedLlm::default().then(script), limits);
        send(&service, request()).await.expect_err("it fails");
        assert_eq!(handle.stopped_for(&Key::Global), None);
        passes(&service, request()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_stops_admission_is_for_the_user_to_say() {
    let down = LlmError::new(ErrorKind::Unavailable, "down").with_retry_after(MINUTE);
    let limits = rejecting()
        .limit(Limit::requests(100).per_minute())
        .classify(|error: &LlmError| {
            let mut row = error.kind().disposition();
            row.health = match error.kind() {
                ErrorKind::Unavailable => Health::Overload,
                _ => Health::Neutral,
            };
            row
        });
    let slow_down = LlmError::new(ErrorKind::RateLimited, "slow down").with_retry_after(MINUTE);
    let model = ScriptedLlm::default()
        .then(Script::fail(slow_down))
        .then(Script::fail(down));
    let (service, handle) = around(&model, limits);
    send(&service, request()).await.expect_err("it fails");
    assert_eq!(handle.stopped_for(&Key::Global), None);
    send(&service, request()).await.expect_err("it fails");
    assert_eq!(handle.stopped_for(&Key::Global), Some(MINUTE));
}

/// What a cache has kept, or another call was told, is no news.
#[tokio::test(start_paused = true)]
async fn nothing_is_learned_from_an_answer_that_is_not_the_providers_own() {
    for origin in [Origin::Cache, Origin::Coalesced, Origin::Upstream] {
        let service = service_fn(move |_: LlmRequest| async move {
            let told = [
                ("x-ratelimit-limit-requests", "60"),
                ("x-ratelimit-remaining-requests", "3"),
                ("x-ratelimit-reset-requests", "57s"),
            ];
            let mut head = Head::new("m");
            head.origin = origin;
            head.hints = hints::limits(&headers(&told), UNIX_EPOCH + NOW).map(Into::into);
            Ok::<_, LlmError>(LlmResponse::complete(head, ChatCompletion::text("m", "hi")))
        });
        let layer = rejecting().limit(Limit::requests(60)).build();
        let layer: RateLimitLayer = layer.expect("sensible");
        let handle = layer.handle();
        let mut service = layer.layer(service);
        let answer = service.ready().await.expect("ready").call(request()).await;
        answer.expect("an answer");
        let expected = match origin {
            Origin::Upstream => 3,
            // Nor is it charged.
            _ => 60,
        };
        assert_eq!(remaining(&handle), [expected], "{origin:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_learned_for_callers_unless_asked_for() {
    let limits = || {
        rejecting()
            .limit(Limit::requests(500).per_minute())
            .for_callers()
    };
    let model = || ScriptedLlm::new(openai("3", "9"));
    let (service, handle) = around(&model(), limits());
    passes(&service, request()).await;
    assert_eq!(remaining(&handle), [499]);
    let (service, handle) = around(&model(), limits().learn(true));
    passes(&service, request()).await;
    assert_eq!(remaining(&handle), [3]);
    let (service, handle) = around(
        &model(),
        rejecting().limit(Limit::requests(500)).learn(false),
    );
    passes(&service, request()).await;
    assert_eq!(remaining(&handle), [499]);
}
