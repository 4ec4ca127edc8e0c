//! Limits by model and target, and limits that make no sense.

use std::time::Duration;

use donjon_core::{AttemptCause, Snapshot, TimeoutClock};
use donjon_testkit::Script;
use donjon_timeout::{ConfigError, DeadlineLayer, TimeoutLayer, Timeouts};
use tokio::time::Instant;
use tower::Layer;

use crate::{SECOND, model, ran_out, send, streamed};

#[tokio::test(start_paused = true)]
async fn a_target_wins_over_a_model_and_a_model_over_all() {
    let layer = TimeoutLayer::builder()
        .for_model("slow", |all| all.first_token(SECOND * 300))
        .for_target("lame", |all| all.first_token(SECOND * 20))
        .first_token(SECOND * 10)
        .build()
        .expect("sensible");
    for (name, target, expected) in [
        ("m", "any", 10),
        ("slow", "any", 300),
        ("slow", "lame", 20),
        ("m", "lame", 20),
    ] {
        let service = layer.layer(model(Script::hang()));
        let mut call = streamed().with_model(name);
        let name = call.model().clone();
        let attempt = call.call.open_attempt(AttemptCause::First);
        attempt.set_target(target.into());
        let began = Instant::now();
        let error = send(&service, call).await.expect_err("silence");
        assert_eq!(error.kind(), ran_out(TimeoutClock::FirstToken));
        assert_eq!(began.elapsed(), SECOND * expected, "{name} at {target}");
    }
    // What was not changed is as for all.
    assert_eq!(layer.timeouts_of_target("lame").idle, Some(SECOND * 60));
    assert_eq!(
        layer.timeouts_of_model("slow").first_token,
        Some(SECOND * 300)
    );
    assert_eq!(layer.timeouts_of_model("m"), layer.timeouts());
}

#[test]
fn a_limit_of_zero_is_refused_and_named() {
    let zero = Duration::ZERO;
    let none = Timeouts::none;
    for (timeouts, clock) in [
        (none().connect(zero), TimeoutClock::Connect),
        (none().first_token(zero), TimeoutClock::FirstToken),
        (none().idle(zero), TimeoutClock::Idle),
        (none().response(zero), TimeoutClock::Response),
        (none().total(zero), TimeoutClock::Total),
    ] {
        let refused = TimeoutLayer::new(timeouts).expect_err("senseless");
        assert_eq!(refused, ConfigError::Zero { clock, of: None });
        let builder = TimeoutLayer::builder();
        let refused = builder.for_model("gpt", move |_| timeouts).build();
        let message = refused.expect_err("senseless").to_string();
        assert!(message.contains("`gpt`"), "{message}");
    }
    assert!(DeadlineLayer::new(zero).is_err());
    let all_off = TimeoutLayer::new(none()).expect("no limits make sense");
    assert_eq!(all_off.timeouts().connect, None);
}

#[test]
fn the_defaults_are_these() {
    let default = *TimeoutLayer::default().timeouts();
    let said = Timeouts::none()
        .connect(SECOND * 5)
        .first_token(SECOND * 60)
        .idle(SECOND * 60)
        .total(SECOND * 600);
    assert_eq!(default, said);
}

#[tokio::test(start_paused = true)]
async fn the_figures_are_by_clock() {
    let layer = TimeoutLayer::default();
    let service = layer.layer(model(Script::hang()));
    send(&service, streamed()).await.expect_err("silence");
    let handle = layer.handle();
    assert_eq!(handle.layer(), "timeout");
    let figures = handle.figures();
    let of = |clock: &str| {
        let figure = figures.iter().find(|f| f.labels[0].1 == clock);
        figure.map(|figure| figure.value)
    };
    assert_eq!((of("first_token"), of("total")), (Some(1.0), Some(0.0)));
    assert_eq!(figures.len(), 5);
}
