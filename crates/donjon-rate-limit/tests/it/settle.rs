//! What is charged in the end.

use donjon_core::{ErrorKind, Head, LlmError, LlmRequest, LlmResponse, Origin, Usage};
use donjon_rate_limit::{Limit, Overflow, RateLimitBuilder, RateLimitLayer};
use donjon_testkit::{Script, ScriptedLlm, probe::poll_once};
use tokio::time::sleep;
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::{MINUTE, SECOND, SLOT, around, expecting, passes, refused, send, used};

fn limits() -> RateLimitBuilder {
    RateLimitLayer::builder()
        .limit(Limit::requests(100).per_minute())
        .limit(Limit::tokens(10_000).per_minute())
        .overflow(Overflow::Reject)
}

#[tokio::test(start_paused = true)]
async fn what_was_not_used_is_given_back_at_the_end() {
    for streamed in [false, true] {
        let words = Script::words(5).gap(SECOND).usage(Usage::new(30, 20));
        let (service, handle) = around(&ScriptedLlm::new(words), limits());
        let mut request = expecting(40, 960);
        if streamed {
            request = request.streamed();
        }
        let answer = send(&service, request).await.expect("an answer");
        if streamed {
            assert_eq!(
                (used(&handle, 0), used(&handle, 1)),
                (1, 1_000),
                "it goes on"
            );
        }
        answer.collect().await.expect("whole");
        assert_eq!((used(&handle, 0), used(&handle, 1)), (1, 50));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_used_beyond_the_estimate_is_owed() {
    let model = ScriptedLlm::new(Script::answer("hi").usage(Usage::new(9_000, 3_000)));
    let (service, handle) = around(&model, limits());
    passes(&service, expecting(10, 10)).await;
    let tokens = &handle.peek(&donjon_core::Key::Global)[1];
    assert_eq!(
        (tokens.used, tokens.debt(), tokens.remaining()),
        (12_000, 2_000, 0)
    );
    let error = refused(&service, expecting(10, 10)).await;
    let after = error.retry_after().expect("it says when");
    assert!(after >= MINUTE && after <= MINUTE + SLOT);
    sleep(after).await;
    passes(&service, expecting(10, 10)).await;
}

#[tokio::test(start_paused = true)]
async fn an_error_before_the_first_token_costs_no_tokens() {
    for (kind, requests) in [
        (ErrorKind::Connect, 0),
        // Those the provider has counted.
        (ErrorKind::ServerError, 1),
        (ErrorKind::InvalidRequest, 1),
        (ErrorKind::CircuitOpen, 0),
    ] {
        let (service, handle) = around(&ScriptedLlm::new(Script::fail(kind)), limits());
        send(&service, expecting(100, 900))
            .await
            .expect_err("it fails");
        let all = (used(&handle, 0), used(&handle, 1));
        assert_eq!(all, (requests, 0), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_from_a_cache_costs_nothing() {
    for origin in [Origin::Cache, Origin::Coalesced] {
        let cache = service_fn(move |_: LlmRequest| async move {
            let mut head = Head::new("m");
            head.origin = origin;
            let mut answer = donjon_core::ChatCompletion::text("m", "hi");
            answer.usage = Some(Usage::new(100, 100));
            Ok::<_, LlmError>(LlmResponse::complete(head, answer))
        });
        let layer = limits().build().expect("sensible");
        let service = layer.layer(cache);
        passes(&service, expecting(100, 900)).await;
        assert_eq!((used(&layer.handle(), 0), used(&layer.handle(), 1)), (0, 0));
    }
}

/// It is dropped before it is sent, before an answer, and in the middle of one.
#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_costs_what_it_used() {
    // Nothing was sent: the service below never became ready for it.
    let shut = ScriptedLlm::default().with_capacity(1);
    let (service, handle) = around(&shut, limits().overflow(Overflow::Wait));
    let held = send(&service, expecting(100, 900).streamed())
        .await
        .expect("a stream");
    let mut waits = service.clone();
    let mut waits = Box::pin(waits.ready());
    assert!(poll_once(&mut waits).is_pending());
    assert_eq!(used(&handle, 1), 1_000);
    drop((waits, held));

    let model = ScriptedLlm::new(Script::hang());
    let (service, handle) = around(&model, limits());
    let mut call = service.clone();
    let mut call = Box::pin(call.ready().await.expect("ready").call(expecting(100, 900)));
    assert!(poll_once(&mut call).is_pending());
    drop(call);
    // It was sent, so its prompt was read.
    assert_eq!((used(&handle, 0), used(&handle, 1)), (1, 100));

    let words = Script::words(10).gap(SECOND).no_usage();
    let (service, handle) = around(&ScriptedLlm::new(words), limits());
    let answer = send(&service, expecting(100, 900).streamed()).await;
    let mut answer = answer.expect("a stream");
    let donjon_core::Body::Stream(stream) = &mut answer.body else {
        panic!("a stream");
    };
    for _ in 0..5 {
        futures_util::StreamExt::next(stream).await;
    }
    drop(answer);
    let tokens = used(&handle, 1);
    assert!(tokens > 100 && tokens < 110, "{tokens}");
}

/// A refund goes to the sub-window that was charged, and to none once that has expired.
#[tokio::test(start_paused = true)]
async fn a_refund_does_not_make_room_twice() {
    let slow = Script::answer("hi")
        .usage(Usage::new(100, 0))
        .head_after(MINUTE * 3);
    let (service, handle) = around(&ScriptedLlm::default().then(slow), limits());
    let late = tokio::spawn({
        let service = service.clone();
        async move { send(&service, expecting(5_000, 5_000)).await.map(drop) }
    });
    sleep(MINUTE * 2).await;
    assert_eq!(used(&handle, 1), 0, "it has expired");
    let hold = send(&service, expecting(5_000, 4_000).streamed()).await;
    late.await.expect("no panic").expect("an answer");
    sleep(SECOND / 10).await;
    let standing = &handle.peek(&donjon_core::Key::Global)[1];
    assert!(standing.remaining() <= 10_000);
    drop(hold);
}

#[tokio::test(start_paused = true)]
async fn what_a_timeout_waited_for_in_vain_may_have_been_used() {
    let kind = ErrorKind::Timeout(donjon_core::TimeoutClock::FirstToken);
    let (service, handle) = around(&ScriptedLlm::new(Script::fail(kind)), limits());
    send(&service, expecting(100, 900))
        .await
        .expect_err("it fails");
    assert_eq!((used(&handle, 0), used(&handle, 1)), (1, 100));
}

/// What a provider counts it counts whatever it answers.
#[tokio::test(start_paused = true)]
async fn the_limit_of_requests_holds_while_the_provider_fails() {
    let model = ScriptedLlm::new(Script::fail(ErrorKind::ServerError));
    let limits = RateLimitLayer::builder()
        .limit(Limit::requests(10).per_minute())
        .limit(Limit::custom("images", 100, |_| 1).per_day())
        .overflow(Overflow::Reject);
    let (service, handle) = around(&model, limits);
    for _ in 0..100 {
        send(&service, LlmRequest::chat("m", []))
            .await
            .expect_err("it fails, or is refused");
    }
    assert_eq!(model.count(), 10);
    assert_eq!((used(&handle, 0), used(&handle, 1)), (10, 10));
}

#[tokio::test(start_paused = true)]
async fn a_whole_answer_that_does_not_say_what_it_used_is_taken_by_its_length() {
    let limits = RateLimitLayer::builder()
        .limit(Limit::output_tokens(5_000).per_minute())
        .overflow(Overflow::Reject);
    let text = "word ".repeat(1_000);
    let model = ScriptedLlm::new(Script::answer(text.as_str()).no_usage());
    let (service, handle) = around(&model, limits);
    passes(&service, expecting(100, 2_000)).await;
    assert_eq!(
        used(&handle, 0),
        1_250,
        "a quarter of a token for each byte"
    );
}

/// What nobody counted cannot be too large, and leaves no debt.
#[tokio::test(start_paused = true)]
async fn an_uncounted_call_that_leaves_owes_no_more_than_it_was_charged() {
    let limits = RateLimitLayer::builder()
        .limit(Limit::tokens(100).per_minute())
        .overflow(Overflow::Reject);
    let (service, handle) = around(&ScriptedLlm::new(Script::hang()), limits);
    let mut service = service.clone();
    service.ready().await.expect("ready");
    let mut call = Box::pin(service.call(LlmRequest::chat("m", [])));
    assert!(poll_once(&mut call).is_pending());
    assert_eq!(used(&handle, 0), 100);
    drop(call);
    assert_eq!(used(&handle, 0), 100);
}
