//! What passes and what does not.

use std::{error::Error, time::Duration};

use donjon_core::{ErrorKind, Estimate, LlmError, LlmRequest, LlmResponse};
use donjon_rate_limit::{
    Blocker, ConfigError, Limit, Overflow, RateLimitBuilder, RateLimitLayer, Reason, Refusal,
    Weight,
};
use donjon_testkit::{Script, ScriptedLlm};
use tokio::time::{Instant, sleep};
use tower::{Layer, service_fn};

use crate::{MINUTE, SECOND, SLOT, around, expecting, passes, refused, request, send, times};

fn rejecting() -> RateLimitBuilder {
    RateLimitLayer::builder().overflow(Overflow::Reject)
}

/// A model whose answers use what was expected.
fn model() -> ScriptedLlm {
    ScriptedLlm::from_fn(|request: &LlmRequest| {
        let expected = request.call.estimate.unwrap_or_default();
        let usage = donjon_core::Usage::new(expected.input, expected.output);
        Script::answer("hi").usage(usage)
    })
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_exactly_as_long_as_told_gets_in() {
    for limit in [
        Limit::requests(3).per_second(),
        Limit::requests(3).per_minute(),
        Limit::requests(3).per_hour(),
        Limit::requests(3).per_day(),
        Limit::requests(3).per(Duration::from_millis(777)),
    ] {
        let window = limit.window();
        let (service, _) = around(&model(), rejecting().limit(limit));
        let start = Instant::now();
        for _ in 0..3 {
            passes(&service, request()).await;
            sleep(window / 10).await;
        }
        let after = refused(&service, request()).await.retry_after();
        let after = after.expect("it says when");
        // A timer is as fine as a millisecond.
        sleep(after - Duration::from_millis(1)).await;
        refused(&service, request()).await;
        sleep(Duration::from_millis(1)).await;
        passes(&service, request()).await;
        let waited = start.elapsed();
        assert!(waited > window && waited <= window + window / 64 + SECOND / 500);
        refused(&service, request()).await;
    }
}

/// Nothing at the end of one minute and the beginning of the next adds up to two limits.
#[tokio::test(start_paused = true)]
async fn there_is_no_double_burst_at_an_edge() {
    let model = model();
    let (service, _) = around(&model, rejecting().limit(Limit::requests(10).per_minute()));
    let start = Instant::now();
    // Tries ten times every second, for five minutes.
    for _ in 0..300 {
        sleep(SECOND).await;
        for _ in 0..10 {
            let _ = crate::send(&service, request()).await;
        }
    }
    let times = times(&model, start);
    assert!(times.len() >= 48, "{}", times.len());
    for ten in times.windows(11) {
        assert!(ten[10] - ten[0] >= MINUTE, "{ten:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn all_limits_or_none_are_charged() {
    let limits = rejecting()
        .limit(Limit::requests(10).per_minute())
        .limit(Limit::tokens(1_000).per_minute())
        .limit(Limit::input_tokens(800).per_hour())
        .limit(Limit::output_tokens(500).per_minute())
        .limit(Limit::custom("images", 3, |_| 1).per_day());
    let (service, handle) = around(&model(), limits);
    passes(&service, expecting(400, 100)).await;
    let before = handle.peek(&donjon_core::Key::Global);
    let used: Vec<_> = before.iter().map(|standing| standing.used).collect();
    assert_eq!(used, [1, 500, 400, 100, 1]);
    for (request, limit) in [
        (expecting(300, 201), 1),
        (expecting(401, 0), 2),
        (expecting(0, 401), 3),
    ] {
        let error = refused(&service, request).await;
        let refusal = error
            .source()
            .and_then(|source| source.downcast_ref::<Refusal>());
        let Some(Refusal {
            by: Blocker::Limit { limit: by, .. },
            ..
        }) = refusal
        else {
            panic!("{error:?}");
        };
        assert_eq!(by, &before[limit].limit);
        assert_eq!(
            handle.peek(&donjon_core::Key::Global),
            before,
            "nothing was charged"
        );
    }
    passes(&service, expecting(0, 0)).await;
    passes(&service, expecting(0, 0)).await;
    let day = refused(&service, expecting(0, 0)).await;
    assert!(day.retry_after().expect("it says when") > Duration::from_secs(86_000));
}

#[tokio::test(start_paused = true)]
async fn what_can_never_fit_is_told_so() {
    let (service, handle) = around(
        &model(),
        RateLimitLayer::builder().limit(Limit::tokens(1_000).per_minute()),
    );
    let error = refused(&service, expecting(900, 101)).await;
    assert_eq!(error.retry_after(), None);
    assert_eq!(error.should_retry(), Some(false));
    let message = error.message();
    for part in ["never fit", "1000 tokens per minute", "1001 tokens of 1000"] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(handle.refused(Reason::TooLarge), 1);
    passes(&service, expecting(900, 100)).await;
    // Also when it would wait behind others.
    let error = refused(&service, expecting(u64::MAX, u64::MAX)).await;
    assert_eq!(error.retry_after(), None);
    // What nobody counted is not too large.
    let guessed = RateLimitLayer::builder()
        .limit(Limit::tokens(1_000).per_minute())
        .default_estimate(Estimate::new(5_000, 5_000));
    let (service, _) = around(&model(), guessed);
    passes(&service, request()).await;
}

#[tokio::test(start_paused = true)]
async fn a_burst_is_apart_from_the_rate() {
    let model = model();
    let limit = Limit::requests(600).per_minute().burst(10);
    let (service, _) = around(&model, RateLimitLayer::builder().limit(limit));
    let start = Instant::now();
    for _ in 0..600 {
        passes(&service, request()).await;
    }
    let times = times(&model, start);
    for ten in times.windows(11) {
        assert!(ten[10] - ten[0] >= SECOND);
    }
    // The rate is that of the limit all the same; ten came at once in the beginning.
    assert!(times[599] <= MINUTE * 102 / 100, "{:?}", times[599]);
}

#[tokio::test(start_paused = true)]
async fn requests_are_spaced() {
    let model = model();
    let builder = RateLimitLayer::builder()
        .limit(Limit::requests(5).per_minute())
        .min_spacing(SECOND * 2);
    let (service, _) = around(&model, builder.clone());
    let start = Instant::now();
    for _ in 0..6 {
        passes(&service, request()).await;
    }
    let seconds: Vec<_> = times(&model, start).iter().map(Duration::as_secs).collect();
    assert_eq!(seconds[..5], [0, 2, 4, 6, 8]);
    assert!(seconds[5] >= 60);

    let (service, _) = around(&model, builder.overflow(Overflow::Reject));
    passes(&service, request()).await;
    sleep(SECOND / 2).await;
    let error = refused(&service, request()).await;
    assert_eq!(error.retry_after(), Some(SECOND * 3 / 2));
    // Alone it is enough of a limit.
    let (service, _) = around(&model, RateLimitLayer::builder().min_spacing(SECOND));
    passes(&service, request()).await;
    passes(&service, request()).await;
}

/// Whoever comes next need not wait for one that was never sent.
#[tokio::test(start_paused = true)]
async fn a_call_that_is_not_sent_keeps_nobody_at_a_distance() {
    let refuses = service_fn(|_: LlmRequest| async {
        Err::<LlmResponse, _>(LlmError::new(ErrorKind::CircuitOpen, "open"))
    });
    let layer = RateLimitLayer::builder().min_spacing(MINUTE).build();
    let layer: RateLimitLayer = layer.expect("sensible");
    let start = Instant::now();
    for _ in 0..10 {
        send(&layer.layer(refuses), request())
            .await
            .expect_err("it is open");
    }
    let model = model();
    let service = layer.layer(model.clone());
    passes(&service, request()).await;
    passes(&service, request()).await;
    assert_eq!(times(&model, start), [Duration::ZERO, MINUTE]);
}

#[tokio::test(start_paused = true)]
async fn a_weight_of_ones_own() {
    let builder = rejecting()
        .limit(Limit::requests(10).per_minute())
        .limit(Limit::custom("pages", 100, |_| 1).per_minute())
        .weigh(|request| {
            Weight::requests(if request.is_stream() { 5 } else { 1 }).custom("pages", 30)
        });
    let (service, handle) = around(&model(), builder);
    passes(&service, request().streamed()).await;
    passes(&service, request()).await;
    let standing = handle.peek(&donjon_core::Key::Global);
    assert_eq!((standing[0].used, standing[1].used), (6, 60));
    refused(&service, request().streamed()).await;
}

#[tokio::test(start_paused = true)]
async fn counts_are_wide() {
    let limit = Limit::custom("nanodollars", u64::MAX / 2, |_| u64::MAX / 4 - (1 << 20)).per_day();
    let (service, _) = around(&model(), rejecting().limit(limit));
    passes(&service, request()).await;
    passes(&service, request()).await;
    refused(&service, request()).await;
}

/// The bound of one sub-window more than the window is what a steady caller pays.
#[tokio::test(start_paused = true)]
async fn a_saturating_caller_gets_at_least_98_percent() {
    for (limit, window) in [
        (Limit::requests(100), MINUTE),
        (Limit::requests(7), MINUTE),
        (Limit::requests(20), SECOND),
        (Limit::requests(1_000), SECOND),
    ] {
        let model = model();
        let amount = limit.amount();
        let (service, _) = around(&model, RateLimitLayer::builder().limit(limit.per(window)));
        let start = Instant::now();
        let end = window * 100;
        while start.elapsed() < end {
            passes(&service, request()).await;
        }
        let got = model
            .calls()
            .iter()
            .filter(|call| call.at - start < end)
            .count() as u64;
        assert!(got * 100 >= amount * 100 * 98, "{got} of {}", amount * 100);
    }
    assert!(SLOT * 64 == MINUTE);
}

#[test]
fn senseless_configurations_name_the_field() {
    let build = |builder: RateLimitBuilder| builder.build().expect_err("senseless");
    let new = RateLimitLayer::builder;
    let limit = || Limit::requests(1).per_minute();
    assert_eq!(build(new()), ConfigError::NoLimit);
    assert_eq!(
        build(new().limit(limit()).max_keys(0)),
        ConfigError::ZeroMaxKeys
    );
    assert_eq!(
        build(new().limit(limit()).max_queue(0)),
        ConfigError::ZeroMaxQueue
    );
    let twice = build(new().limit(limit()).limit(Limit::requests(2).per_minute()));
    assert_eq!(twice, ConfigError::Twice(Limit::requests(2)));
    for (limit, says) in [
        (Limit::requests(0), "limit of requests"),
        (Limit::tokens(1).burst(0), "burst of tokens"),
        (Limit::tokens(1).per(Duration::ZERO), "window of tokens"),
        (Limit::tokens(1).per(Duration::MAX), "window of tokens"),
    ] {
        let error = build(new().limit(limit)).to_string();
        assert!(error.contains(says), "{error}");
    }
}
