//! The deadline over everything below.

use donjon_core::{BoxLlmService, TimeoutClock};
use donjon_testkit::{
    Script,
    probe::{EndLog, HeardEnd},
};
use donjon_timeout::{DeadlineLayer, TimeoutLayer, Timeouts};
use tokio::time::Instant;
use tower::{Layer, ServiceExt};

use crate::{SECOND, model, ran_out, request, send};

#[tokio::test(start_paused = true)]
async fn it_begins_the_call_and_is_enforced_innermost() {
    let log = EndLog::new();
    let leaf = model(Script::hang()).observed_by(&log);
    let inner = TimeoutLayer::new(Timeouts::none()).expect("sensible");
    let service = DeadlineLayer::new(SECOND * 7).expect("sensible");
    let service = service.layer(inner.layer(leaf.clone()));
    let began = Instant::now();
    let error = send(&service, request()).await.expect_err("silence");
    assert_eq!(error.kind(), ran_out(TimeoutClock::Total));
    assert_eq!(began.elapsed(), SECOND * 7);
    let total = HeardEnd::Failure(ran_out(TimeoutClock::Total));
    assert_eq!(log.ends(), [total]);

    // A template is not begun by it, and each call has its own time.
    let template = request();
    for _ in 0..3 {
        tokio::time::advance(SECOND * 5).await;
        let began = Instant::now();
        send(&service, template.clone()).await.expect_err("silence");
        assert_eq!(began.elapsed(), SECOND * 7);
    }
}

/// R9: readying a service below is a wait like any other.
#[tokio::test(start_paused = true)]
async fn it_covers_the_readiness_of_services_below() {
    let leaf = model("Hello!").with_capacity(1);
    let mut other = leaf.clone();
    other.ready().await.expect("ready");
    // Erased, the service is readied in its call; nobody gives the permit back.
    let layer = TimeoutLayer::new(Timeouts::none().total(SECOND * 10)).expect("sensible");
    let service = layer.layer(BoxLlmService::new(leaf.clone()));
    let began = Instant::now();
    let error = send(&service, request()).await.expect_err("no time left");
    assert_eq!(error.kind(), ran_out(TimeoutClock::Total));
    assert_eq!((began.elapsed(), leaf.count()), (SECOND * 10, 0));

    // The response clock covers it too.
    let layer = TimeoutLayer::new(Timeouts::none().response(SECOND * 3)).expect("sensible");
    let service = layer.layer(BoxLlmService::new(leaf));
    let began = Instant::now();
    let error = send(&service, request()).await.expect_err("no time left");
    assert_eq!(error.kind(), ran_out(TimeoutClock::Response));
    assert_eq!(began.elapsed(), SECOND * 3);
}

#[tokio::test(start_paused = true)]
async fn without_limits_inside_it_only_sets() {
    let leaf = model("Hello!");
    let service = DeadlineLayer::new(SECOND).expect("sensible");
    send(&service.layer(leaf.clone()), request())
        .await
        .expect("answered");
    let seen = &leaf.calls()[0];
    let deadline = seen.request.call.deadline().expect("it was set");
    assert_eq!(deadline, seen.at + SECOND);
}
