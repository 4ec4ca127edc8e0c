//! The laws that hold over the whole stack: one deadline, patience, and ends that tell the truth.

use std::{
    future::pending,
    task::{Context, Poll},
    time::Duration,
};

use donjon::{
    BoxLlmService, CommitLayer, ErrorKind, LlmError, LlmRequest, LlmResponse, Preset, Stack,
    TimeoutClock, failover::Target, timeout::TimeoutLayer, watch,
};
use donjon_testkit::{
    Script, ScriptedLlm,
    probe::{EndLog, HeardEnd},
};
use tokio::time::{Instant, timeout};
use tower::{Layer, Service, ServiceExt, limit::ConcurrencyLimit, service_fn};

const SECOND: Duration = Duration::from_secs(1);

fn stack(targets: impl IntoIterator<Item = BoxLlmService>) -> Stack<BoxLlmService> {
    let named = targets.into_iter().zip(["a", "b", "c"]);
    named
        .fold(Preset::new(), |preset, (service, name)| {
            preset.target(Target::new(name, service))
        })
        .build()
        .expect("good")
}

fn model(script: impl Into<Script>) -> (ScriptedLlm, BoxLlmService) {
    let model = ScriptedLlm::new(script);
    (model.clone(), BoxLlmService::new(model))
}

fn limited(after: Duration) -> Script {
    Script::fail(ErrorKind::RateLimited).retry_after(after)
}

#[tokio::test(start_paused = true)]
async fn a_wait_beyond_the_default_deadline_is_not_begun() {
    let (busy, service) = model(limited(3600 * SECOND));
    let began = Instant::now();
    let error = stack([service]).send(LlmRequest::chat("m", [])).await;
    let error = error.expect_err("an hour is too long");
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    assert_eq!(error.retry_after(), Some(3600 * SECOND));
    assert_eq!((began.elapsed(), busy.count()), (Duration::ZERO, 1));
}

/// A service that never becomes ready.
#[derive(Clone)]
struct Never;

impl Service<LlmRequest> for Never {
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = std::future::Pending<Result<LlmResponse, LlmError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LlmError>> {
        Poll::Pending
    }

    fn call(&mut self, _: LlmRequest) -> Self::Future {
        unreachable!("it was never ready")
    }
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_never_ready_does_not_outlive_the_deadline_and_was_not_sent_to() {
    let never = Preset::new()
        .target(Target::new("never", Never))
        .build()
        .expect("good");
    let mut request = LlmRequest::chat("m", []);
    let ledger = request.call.begin().clone();
    let began = Instant::now();
    let error = never.send(request).await.expect_err("nobody served");
    assert_eq!(error.kind(), ErrorKind::Timeout(TimeoutClock::Total));
    assert_eq!(began.elapsed(), 600 * SECOND, "the default");
    assert_eq!(ledger.sent(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_patience_bounds_the_readiness_of_a_further_attempt_too() {
    let (_, spare) = model("served");
    let limited = ConcurrencyLimit::new(ScriptedLlm::new(ErrorKind::ServerError), 1);
    let main = Preset::new()
        .target(Target::new("a", either(limited.clone())))
        .target(Target::new("b", either(spare)))
        .build()
        .expect("good");
    let call = tokio::spawn(main.send(LlmRequest::chat("m", [])));
    // As soon as the first attempt has failed, somebody else takes the place for good.
    tokio::task::yield_now().await;
    let mut other = limited;
    let _held = other.ready().await.expect("free during backoff");
    let began = Instant::now();
    let response = call.await.expect("no panic").expect("the spare serves");
    assert_eq!(response.head.target.as_deref(), Some("b"));
    assert!(began.elapsed() < 5 * SECOND, "{:?}", began.elapsed());
}

type Either = tower::util::BoxCloneSyncService<LlmRequest, LlmResponse, LlmError>;

/// Erases a service and keeps its readiness, which a [`BoxLlmService`] does not show.
fn either<S>(service: S) -> Either
where
    S: Service<LlmRequest, Response = LlmResponse, Error: Into<LlmError>>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
{
    Either::new(service.map_err(Into::into))
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_leaves_after_a_retry_is_nobodys_failure() {
    // During the backoff, while the second attempt is out, and in the middle of its stream.
    let first = || ScriptedLlm::new(Script::words(10).gap(SECOND));
    let cases = [
        (first().then(limited(2 * SECOND)), SECOND),
        (
            ScriptedLlm::new(Script::hang()).then(ErrorKind::ServerError),
            9 * SECOND,
        ),
        (first().then(ErrorKind::ServerError), 5 * SECOND),
    ];
    for (model, leaves_after) in cases {
        let stack = stack([BoxLlmService::new(model.clone())]);
        let request = LlmRequest::chat("m", []).streamed();
        let log = EndLog::default();
        let call = watch(&request.call, stack.send(request.clone()), log.observer());
        let left = timeout(leaves_after, async {
            let donjon::Body::Stream(mut stream) = call.await.expect("it commits").body else {
                unreachable!("it is a stream");
            };
            while stream.next_chunk().await.is_some() {}
        });
        assert!(left.await.is_err(), "the caller left");
        let target = stack.failover().target("a").expect("known");
        assert_eq!(
            (target.cancelled, target.failed()),
            (1, 0),
            "{leaves_after:?}"
        );
        assert!(matches!(log.ends()[..], [HeardEnd::Cancelled(_)]));
    }
}

#[tokio::test(start_paused = true)]
async fn below_a_timeout_alone_a_failure_is_heard_and_no_cancellation() {
    let log = EndLog::default();
    let below = log.clone();
    let silent = CommitLayer::new().layer(service_fn(|_: LlmRequest| {
        pending::<Result<LlmResponse, LlmError>>()
    }));
    let watched = service_fn(move |request: LlmRequest| {
        let call = request.call.clone();
        watch(&call, silent.clone().oneshot(request), below.observer())
    });
    let timeout = TimeoutLayer::builder()
        .first_token(SECOND)
        .build()
        .expect("good");
    let error = timeout
        .layer(watched)
        .oneshot(LlmRequest::chat("m", []).streamed())
        .await;
    let first_token = ErrorKind::Timeout(TimeoutClock::FirstToken);
    assert_eq!(error.expect_err("silence").kind(), first_token);
    assert!(matches!(log.ends()[..], [HeardEnd::Failure(kind)] if kind == first_token));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_always_ready_ends_at_the_deadline() {
    let (_, service) = model(Script::words(100));
    let request = LlmRequest::chat("m", [])
        .streamed()
        .with_timeout(10 * SECOND);
    let response = stack([service]).send(request).await.expect("it commits");
    let donjon::Body::Stream(mut stream) = response.body else {
        unreachable!("it is a stream");
    };
    let began = Instant::now();
    let mut last = None;
    while let Some(item) = stream.next_chunk().await {
        tokio::time::sleep(SECOND).await;
        last = item.err();
    }
    assert_eq!(
        last.map(|e| e.kind()),
        Some(ErrorKind::Timeout(TimeoutClock::Total))
    );
    assert!(began.elapsed() <= 13 * SECOND, "{:?}", began.elapsed());
}
