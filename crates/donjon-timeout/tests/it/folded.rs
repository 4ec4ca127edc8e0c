//! Whole answers that are fetched as streams.

use std::sync::Arc;

use donjon_core::{Delivery, ErrorKind, LlmRequest, TimeoutClock, Usage};
use donjon_testkit::{Script, ScriptedLlm};
use donjon_timeout::Timeouts;
use tokio::time::Instant;

use crate::{SECOND, around, model, ran_out, request, send, streamed};

fn over_stream() -> Timeouts {
    Timeouts::none()
        .first_token(SECOND * 10)
        .idle(SECOND * 15)
        .unary_over_stream(true)
}

#[tokio::test(start_paused = true)]
async fn the_answer_comes_whole_with_its_head_and_usage() {
    let script = Script::answer("Hello from the keep.")
        .model("served-1")
        .usage(Usage::new(7, 4))
        .gap(SECOND);
    let model = model(script).provider("somebody");
    let answer = send(&around(&model, over_stream()), request()).await;
    let answer = answer.expect("answered");
    assert!(!answer.is_stream());
    assert_eq!(&*answer.head.model, "served-1");
    assert_eq!(answer.head.provider.as_deref(), Some("somebody"));
    let completion = answer.completion().and_then(|c| c.as_chat().cloned());
    let chat = completion.expect("a chat");
    assert_eq!(chat.first_text(), "Hello from the keep.");
    assert_eq!(chat.usage, Some(Usage::new(7, 4)));
    assert!(chat.is_finished());
    let seen = &model.calls()[0].request;
    assert_eq!(seen.delivery, Delivery::Stream { usage: true });
}

#[tokio::test(start_paused = true)]
async fn the_clocks_of_streams_guard_it() {
    for (script, clock, after) in [
        (
            Script::words(3).role_then_silence(),
            TimeoutClock::FirstToken,
            10,
        ),
        (
            Script::words(3).stall_after(1, None),
            TimeoutClock::Idle,
            15,
        ),
    ] {
        let model = model(script);
        let began = Instant::now();
        let error = send(&around(&model, over_stream()), request()).await;
        assert_eq!(error.expect_err("silence").kind(), ran_out(clock));
        assert_eq!((began.elapsed(), model.in_progress()), (SECOND * after, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn the_response_clock_and_the_deadline_are_over_the_whole() {
    let slow = || model(Script::words(100).gap(SECOND));
    for (limits, clock) in [
        (over_stream().response(SECOND * 30), TimeoutClock::Response),
        (over_stream().total(SECOND * 30), TimeoutClock::Total),
    ] {
        let began = Instant::now();
        let error = send(&around(&slow(), limits), request()).await;
        assert_eq!(error.expect_err("too slow").kind(), ran_out(clock));
        assert_eq!(began.elapsed(), SECOND * 30);
    }
    // A stream that the caller asked for has no response clock.
    let limits = over_stream().response(SECOND * 30);
    let answer = send(&around(&slow(), limits), streamed()).await;
    assert!(answer.expect("it commits").collect().await.is_ok());
}

/// Nothing was shown yet, so what goes wrong in the stream is the call's error.
#[tokio::test(start_paused = true)]
async fn an_error_in_the_stream_is_the_calls() {
    for (script, kind) in [
        (
            Script::words(3).fail_after(1, ErrorKind::StreamBroken),
            ErrorKind::StreamBroken,
        ),
        (Script::words(3).cut_after(1), ErrorKind::Incomplete),
    ] {
        let error = send(&around(&model(script), over_stream()), request()).await;
        assert_eq!(error.expect_err("it broke").kind(), kind);
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_streamed_is_asked_for_as_it_is() {
    let model = ScriptedLlm::new(ErrorKind::Unsupported);
    let embed = LlmRequest::embed("m", ["text"]);
    assert!(send(&around(&model, over_stream()), embed).await.is_err());
    assert_eq!(model.calls()[0].request.delivery, Delivery::Unary);
}

#[tokio::test(start_paused = true)]
async fn the_prompt_is_not_copied_for_it() {
    let model = model("Hello!");
    let call = request();
    let prompt = Arc::clone(call.shared_prompt());
    let answer = send(&around(&model, over_stream()), call).await;
    answer.expect("answered");
    assert!(Arc::ptr_eq(
        &prompt,
        model.calls()[0].request.shared_prompt()
    ));
}
