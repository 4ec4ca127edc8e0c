//! What was recorded from the wire: the values of headers, as others have published them.

use std::time::Duration;

use donjon_core::{Key, LlmRequest, Usage};
use donjon_providers::hints;
use donjon_rate_limit::{Limit, Overflow, RateLimitHandle, RateLimitLayer};
use donjon_testkit::{Script, ScriptedLlm};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::{Instant, sleep, sleep_until};
use tower::Layer;

use crate::{MINUTE, SECOND, SLOT, around, expecting, passes};

/// The answer that a server gave at `date`, with these headers and this usage.
fn recorded(date: &str, pairs: &[(&'static str, &str)], usage: Usage) -> Script {
    let headers: HeaderMap = pairs
        .iter()
        .map(|(name, value)| {
            let value = HeaderValue::from_str(value).expect("a value");
            (HeaderName::from_static(name), value)
        })
        .collect();
    let now = hints::rfc3339(date).expect("a date");
    let hints = hints::limits(&headers, now).expect("hints");
    let script = Script::answer("hi").usage(usage);
    hints.limits.into_iter().fold(script, Script::limit)
}

fn remaining(handle: &RateLimitHandle) -> Vec<u64> {
    let standing = handle.peek(&Key::Global).into_iter();
    standing.map(|standing| standing.remaining()).collect()
}

fn small() -> LlmRequest {
    expecting(20, 15)
}

/// Anthropic, 3 June 2024, five requests a minute: `DataDog/dd-trace-py`, `tests/contrib/anthropic/`
/// `cassettes/anthropic_completion_async{,_multi_prompt,_multi_prompt_with_chat_history}.yaml`. The
/// window is fixed: all of it comes back at once, at 57 s.
fn anthropic(date: &str, requests: &str, tokens: &str, reset: &str) -> Script {
    recorded(
        date,
        &[
            ("anthropic-ratelimit-requests-limit", "5"),
            ("anthropic-ratelimit-requests-remaining", requests),
            ("anthropic-ratelimit-requests-reset", reset),
            ("anthropic-ratelimit-tokens-limit", "10000"),
            ("anthropic-ratelimit-tokens-remaining", tokens),
            ("anthropic-ratelimit-tokens-reset", reset),
        ],
        Usage::new(20, 15),
    )
}

#[tokio::test(start_paused = true)]
async fn a_minute_of_anthropic() {
    let reset = "2024-06-03T20:29:57Z";
    let at = |date, requests| anthropic(date, requests, "10000", reset);
    let model = ScriptedLlm::default()
        .then(at("2024-06-03T20:29:14Z", "4"))
        // Another client came between.
        .then(at("2024-06-03T20:29:20Z", "2"))
        .then(at("2024-06-03T20:29:22Z", "1"));
    let layer = RateLimitLayer::learned();
    let handle = layer.handle();
    let service = layer.layer(model.clone());
    let start = Instant::now();
    for (second, left) in [(0, 4), (6, 2), (8, 1)] {
        sleep_until(start + second * SECOND).await;
        passes(&service, small()).await;
        assert_eq!(remaining(&handle)[0], left);
    }
    // The last of the minute, and the first of the next: nobody need be told by a 429.
    passes(&service, small()).await;
    assert_eq!(start.elapsed(), 8 * SECOND);
    passes(&service, small()).await;
    let waited = start.elapsed();
    assert!(
        waited >= 43 * SECOND && waited <= 43 * SECOND + 2 * SLOT,
        "{waited:?}"
    );
}

/// The same account, 20 minutes before (`anthropic_completion_multi_prompt.yaml`): the last request of
/// a minute, answered with 200 and `retry-after: 1`, a second before its end.
#[tokio::test(start_paused = true)]
async fn the_last_request_of_a_minute() {
    let reset = "2024-06-03T20:05:57Z";
    let last = anthropic("2024-06-03T20:05:56Z", "0", "9000", reset);
    let layer = RateLimitLayer::learned();
    let handle = layer.handle();
    let service = layer.layer(ScriptedLlm::default().then(last));
    passes(&service, small()).await;
    assert_eq!(remaining(&handle)[..2], [0, 9_000]);
    let start = Instant::now();
    passes(&service, small()).await;
    let waited = start.elapsed();
    assert!(
        waited >= SECOND && waited <= SECOND + 2 * SLOT,
        "{waited:?}"
    );
}

/// OpenAI, December 2023 and later, two hundred requests a day beside forty thousand tokens a minute:
/// `newrelic/newrelic-python-agent`, `tests/mlmodel_openai/_mock_external_openai_server.py`. No header
/// says over which time a limit holds.
#[tokio::test(start_paused = true)]
async fn a_daily_limit_of_openai() {
    let answer = recorded(
        "2023-12-08T00:37:13Z",
        &[
            ("x-ratelimit-limit-requests", "200"),
            ("x-ratelimit-limit-tokens", "40000"),
            ("x-ratelimit-limit-tokens_usage_based", "40000"),
            ("x-ratelimit-remaining-requests", "198"),
            ("x-ratelimit-remaining-tokens", "39880"),
            ("x-ratelimit-remaining-tokens_usage_based", "39880"),
            ("x-ratelimit-reset-requests", "11m32.334s"),
            ("x-ratelimit-reset-tokens", "180ms"),
            ("x-ratelimit-reset-tokens_usage_based", "180ms"),
        ],
        Usage::new(26, 82),
    );
    let limits = RateLimitLayer::builder()
        .overflow(Overflow::Reject)
        .limit(Limit::requests(10_000).per_day())
        .limit(Limit::tokens(90_000).per_minute())
        .limit(Limit::tokens(1_000_000).per_day());
    let (service, handle) = around(&ScriptedLlm::default().then(answer), limits);
    passes(&service, expecting(26, 82)).await;
    assert_eq!(
        remaining(&handle),
        [198, 39_880, 999_892],
        "the tokens of a day are another limit"
    );
    // What others had used of the minute is back; of the day it is not.
    sleep(2 * SLOT).await;
    assert_eq!(remaining(&handle), [198, 39_892, 999_892]);
}

/// OpenAI, two calls within two seconds of January 2026, ten thousand requests and fifty million tokens
/// a minute: the same project, `tests/mlmodel_langchain/_mock_external_openai_server.py`. It fills up so
/// fast that a reset is told as `0s` although something is used, and each answer tells of one request.
#[tokio::test(start_paused = true)]
async fn a_large_limit_of_openai() {
    let answer = |date, tokens, usage| {
        recorded(
            date,
            &[
                ("x-ratelimit-limit-requests", "10000"),
                ("x-ratelimit-limit-tokens", "50000000"),
                ("x-ratelimit-remaining-requests", "9999"),
                ("x-ratelimit-remaining-tokens", tokens),
                ("x-ratelimit-reset-requests", "6ms"),
                ("x-ratelimit-reset-tokens", "0s"),
            ],
            usage,
        )
    };
    let model = ScriptedLlm::default()
        .then(answer(
            "2026-01-05T19:53:32Z",
            "49999974",
            Usage::new(70, 15),
        ))
        .then(answer(
            "2026-01-05T19:53:33Z",
            "49999970",
            Usage::new(96, 16),
        ));
    let limits = RateLimitLayer::builder()
        .overflow(Overflow::Reject)
        .limit(Limit::requests(10_000).per_minute())
        .limit(Limit::tokens(50_000_000).per_minute());
    let (service, handle) = around(&model, limits);
    passes(&service, expecting(70, 100)).await;
    assert_eq!(remaining(&handle), [9_999, 49_999_915]);
    sleep(SECOND).await;
    passes(&service, expecting(96, 100)).await;
    assert_eq!(
        remaining(&handle),
        [9_998, 49_999_803],
        "what it says makes nothing looser"
    );
    sleep(MINUTE + 2 * SLOT).await;
    assert_eq!(remaining(&handle), [10_000, 50_000_000]);
    assert_eq!(handle.stopped_for(&Key::Global), None::<Duration>);
}
