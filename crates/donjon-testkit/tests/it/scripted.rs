//! The scripted model does what its script says, and writes down what it saw.

use std::{task::Poll, time::Duration};

use donjon_core::{
    Body, ErrorKind, FinishReason, LimitHint, LimitUnit, LlmError, LlmRequest, LlmResponse,
    Message, ResponseStream, Usage,
};
use donjon_testkit::{CallEnd, Script, ScriptedLlm};
use futures_util::{FutureExt, StreamExt, poll};
use tokio::time::Instant;
use tower::{Service, ServiceExt};

const SECOND: Duration = Duration::from_secs(1);

fn unary() -> LlmRequest {
    LlmRequest::chat("asked", [Message::user("Hi")])
}

fn streamed() -> LlmRequest {
    unary().streamed()
}

async fn call(llm: &ScriptedLlm, request: LlmRequest) -> Result<LlmResponse, LlmError> {
    llm.clone().oneshot(request).await
}

async fn text(llm: &ScriptedLlm, request: LlmRequest) -> Result<String, ErrorKind> {
    let answer = call(llm, request).await.map_err(|e| e.kind())?;
    let (_, answer) = answer.collect().await.map_err(|e| e.kind())?;
    Ok(answer.as_chat().expect("a chat").first_text().into_owned())
}

fn stream(response: LlmResponse) -> ResponseStream {
    match response.body {
        Body::Stream(stream) => stream,
        Body::Complete(_) => panic!("a stream was asked for"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_whole_answer_and_a_streamed_one_say_the_same() {
    let script = Script::answer("a bc d")
        .reasoning("so so")
        .tool_call("find", r#"{"what":"keep"}"#)
        .model("served");
    let llm = ScriptedLlm::new(script);
    let (head, whole) = call(&llm, unary())
        .await
        .expect("an answer")
        .collect()
        .await
        .expect("whole");
    let (_, folded) = call(&llm, streamed())
        .await
        .expect("an answer")
        .collect()
        .await
        .expect("whole");
    let json = |c: &donjon_core::Completion| {
        let mut chat = c.as_chat().expect("a chat").clone();
        chat.id = None;
        serde_json::to_value(chat).expect("it is JSON")
    };
    assert_eq!(json(&whole), json(&folded));
    assert_eq!(&*head.model, "served");
    let chat = whole.as_chat().expect("a chat");
    assert_eq!(chat.first_text(), "a bc d");
    assert_eq!(chat.tool_calls()[0].arguments(), r#"{"what":"keep"}"#);
    assert_eq!(chat.choices[0].message.reasoning.as_deref(), Some("so so"));
    assert_eq!(chat.choices[0].finish_reason, Some(FinishReason::ToolCalls));
    assert_eq!(
        llm.ends(),
        [Some(CallEnd::Answered), Some(CallEnd::Answered)]
    );
    assert_eq!(llm.in_progress(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_played_before_the_rest() {
    let llm = ScriptedLlm::new("rest")
        .then("first")
        .then(ErrorKind::Overloaded);
    assert_eq!(text(&llm, unary()).await, Ok("first".into()));
    assert_eq!(text(&llm, unary()).await, Err(ErrorKind::Overloaded));
    assert_eq!(text(&llm, unary()).await, Ok("rest".into()));
    llm.set_otherwise("changed");
    assert_eq!(text(&llm, streamed()).await, Ok("changed".into()));

    let by_model = ScriptedLlm::from_fn(|request| match &**request.model() {
        "asked" => Script::answer("yes"),
        _ => ErrorKind::ModelNotFound.into(),
    });
    assert_eq!(text(&by_model, unary()).await, Ok("yes".into()));
    let other = unary().with_model("other");
    assert_eq!(text(&by_model, other).await, Err(ErrorKind::ModelNotFound));
}

#[tokio::test(start_paused = true)]
async fn every_wait_is_kept() {
    let script = Script::words(3)
        .head_after(SECOND)
        .first_token_after(2 * SECOND)
        .gap(3 * SECOND)
        .stall_after(2, 5 * SECOND);
    let llm = ScriptedLlm::new(script);
    let start = Instant::now();
    let mut answer = stream(call(&llm, streamed()).await.expect("an answer"));
    let mut at = vec![start.elapsed().as_secs()];
    while let Some(chunk) = answer.next().await {
        chunk.expect("no error");
        at.push(start.elapsed().as_secs());
    }
    // Head, role, three tokens, finish, usage.
    assert_eq!(at, [1, 1, 3, 6, 14, 14, 14]);
    let start = Instant::now();
    text(&llm, unary()).await.expect("an answer");
    assert_eq!(start.elapsed(), 14 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn silence_lasts_until_the_caller_leaves() {
    for (script, before_head) in [
        (Script::hang(), true),
        (Script::words(2).role_then_silence(), false),
    ] {
        let llm = ScriptedLlm::new(script);
        let waiting = async { text(&llm, streamed()).await };
        assert!(tokio::time::timeout(1000 * SECOND, waiting).await.is_err());
        let end = match before_head {
            true => CallEnd::CancelledBeforeHead,
            false => CallEnd::CancelledMidStream { chunks: 1 },
        };
        assert_eq!(llm.ends(), [Some(end)]);
        assert_eq!((llm.in_progress(), llm.cancelled()), (0, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn streams_break_where_they_are_told_to() {
    let cases = [
        (Script::words(3).cut_after(1), ErrorKind::Incomplete),
        (Script::words(3).no_finish_reason(), ErrorKind::Incomplete),
        (
            Script::words(3).fail_after(1, ErrorKind::StreamBroken),
            ErrorKind::StreamBroken,
        ),
        (
            Script::words(3).malformed_after(1),
            ErrorKind::InvalidResponse,
        ),
    ];
    for (script, kind) in cases {
        let llm = ScriptedLlm::new(script.clone());
        let mut answer = stream(call(&llm, streamed()).await.expect("the head"));
        let mut last = None;
        while let Some(chunk) = answer.next().await {
            last = Some(chunk);
        }
        let error = last.expect("an item").expect_err("the last one");
        assert_eq!(error.kind(), kind);
        assert_eq!(llm.ends(), [Some(CallEnd::Failed(kind))]);
        let whole = text(&ScriptedLlm::new(script), unary()).await;
        let expected = match kind {
            ErrorKind::Incomplete => ErrorKind::Transport,
            same => same,
        };
        assert_eq!(whole, Err(expected));
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_carries_what_the_server_said() {
    let mut limit = LimitHint::new(LimitUnit::Requests);
    limit.remaining = Some(0);
    let llm = ScriptedLlm::new(
        Script::fail(ErrorKind::RateLimited)
            .status(429)
            .retry_after(2 * SECOND)
            .should_retry(false)
            .limit(limit),
    )
    .provider("openai");
    let error = call(&llm, unary()).await.expect_err("it refuses");
    assert_eq!(error.status(), Some(429));
    assert_eq!(error.retry_after(), Some(2 * SECOND));
    assert_eq!(error.should_retry(), Some(false));
    assert_eq!(error.provider().map(|name| name.as_str()), Some("openai"));
    let hints = error.hints().expect("hints");
    assert_eq!(hints.of(LimitUnit::Requests), Some(&limit));
    llm.set_otherwise(Script::default().limit(limit));
    let answer = call(&llm, unary()).await.expect("an answer");
    assert!(answer.head.hints.is_some());
}

#[tokio::test(start_paused = true)]
async fn keep_alives_empty_deltas_and_unknown_events_pass_by() {
    let script = Script::words(1)
        .pings_at(0, 2, SECOND)
        .empty_deltas_at(0, 3, SECOND)
        .unknown_at(1)
        .usage(Usage::new(3, 4));
    let llm = ScriptedLlm::new(script);
    let start = Instant::now();
    let answer = stream(call(&llm, streamed()).await.expect("the head"));
    let chunks: Vec<_> = answer.map(|chunk| chunk.expect("no error")).collect().await;
    assert_eq!(start.elapsed(), 5 * SECOND);
    assert_eq!(chunks.iter().filter(|c| c.is_ping()).count(), 2);
    assert_eq!(chunks.iter().filter(|c| c.unknown).count(), 1);
    // Role, pings, empty deltas, token, unknown, finish, usage.
    assert_eq!((chunks.len(), llm.calls()[0].chunks), (10, 10));
    assert_eq!(chunks[9].usage, Some(Usage::new(3, 4)));
}

#[tokio::test(start_paused = true)]
async fn as_many_choices_as_were_asked_for() {
    let mut request = streamed();
    request.edit_chat().expect("a chat").n = Some(2);
    let llm = ScriptedLlm::new("one two");
    let (_, answer) = call(&llm, request)
        .await
        .expect("an answer")
        .collect()
        .await
        .expect("whole");
    let choices = &answer.as_chat().expect("a chat").choices;
    assert_eq!(choices.len(), 2);
    assert_eq!(choices[1].message.text(), "one two");
    // The answer has one choice too few.
    llm.set_otherwise(Script::answer("one").choices(1));
    let mut request = unary();
    request.edit_chat().expect("a chat").n = Some(2);
    assert_eq!(text(&llm, request).await, Ok("one".into()));
}

#[tokio::test(start_paused = true)]
async fn at_the_commit_point_what_fails_before_it_is_an_error() {
    let script = Script::words(2).fail_after(0, ErrorKind::ServerError);
    let at_head = ScriptedLlm::new(script.clone());
    assert!(call(&at_head, streamed()).await.is_ok());
    let committing = ScriptedLlm::new(script).commits();
    let error = call(&committing, streamed())
        .await
        .expect_err("nothing came");
    assert_eq!(error.kind(), ErrorKind::ServerError);

    committing.set_otherwise(Script::empty_answer().content_filter());
    let error = call(&committing, streamed()).await.expect_err("withheld");
    assert_eq!(error.kind(), ErrorKind::ContentPolicy);
}

#[tokio::test(start_paused = true)]
async fn the_ledger_is_stamped() {
    let script = Script::words(1)
        .head_after(SECOND)
        .first_token_after(SECOND);
    let llm = ScriptedLlm::new(script);
    for (llm, committed_at) in [
        (llm.clone(), None),
        (llm.clone().commits(), Some(2 * SECOND)),
    ] {
        let mut request = streamed();
        let ledger = request.call.begin().clone();
        let future = llm.clone().ready().await.expect("ready").call(request);
        assert_eq!(ledger.sent(), 0, "it is sent when it is polled");
        future.await.expect("an answer");
        let attempt = ledger.attempts().next().expect("one");
        assert_eq!(
            (attempt.sent_at, attempt.first_byte_at, attempt.committed_at),
            (Some(Duration::ZERO), Some(SECOND), committed_at)
        );
        assert_eq!(ledger.opened(), 1);
    }

    llm.set_otherwise(Script::fail(ErrorKind::QueueFull).head_after(SECOND));
    let mut request = unary();
    let ledger = request.call.begin().clone();
    let _ = call(&llm.commits(), request).await;
    assert_eq!(ledger.sent(), 0, "a call that never left uses up nothing");
}

#[tokio::test(start_paused = true)]
async fn permits_are_held_until_the_end() {
    let llm = ScriptedLlm::new(Script::words(2)).with_capacity(1);
    let mut readied = llm.clone();
    readied.ready().await.expect("free");
    assert_eq!(llm.held(), 1);
    let mut other = llm.clone();
    let mut waiting = Box::pin(other.ready());
    assert!(poll!(&mut waiting).is_pending());
    let answer = readied.call(streamed()).await.expect("the head");
    assert!(poll!(&mut waiting).is_pending(), "the stream goes on");
    let mut answer = stream(answer);
    while let Some(chunk) = answer.next().await {
        chunk.expect("no error");
    }
    assert!(
        waiting.as_mut().now_or_never().is_some(),
        "the end was told"
    );
    drop(waiting);
    drop(other);
    drop(answer);
    assert_eq!((llm.held(), llm.peak()), (0, 1));
}

#[tokio::test]
async fn a_call_that_was_not_readied_is_noticed() {
    let mut llm = ScriptedLlm::default().record_unreadied();
    llm.ready().await.expect("ready");
    llm.call(unary()).await.expect("an answer");
    assert_eq!(llm.unreadied(), 0);
    llm.call(unary()).await.expect("an answer");
    llm.ready().await.expect("ready");
    llm.clone().call(unary()).await.expect("an answer");
    assert_eq!(llm.unreadied(), 2);
}

#[tokio::test]
#[should_panic(expected = "without being readied")]
async fn a_call_that_was_not_readied_panics() {
    let _ = ScriptedLlm::default().call(unary()).await;
}

#[tokio::test]
async fn a_panic_ends_the_call() {
    for script in [Script::panics("boom"), Script::words(2).panic_after(1)] {
        let llm = ScriptedLlm::new(script).with_capacity(1);
        let task = tokio::spawn({
            let llm = llm.clone();
            async move { text(&llm, streamed()).await }
        });
        assert!(task.await.expect_err("it panics").is_panic());
        assert_eq!(llm.ends(), [Some(CallEnd::Panicked)]);
        assert_eq!((llm.in_progress(), llm.held()), (0, 0));
    }
}

#[tokio::test]
async fn each_await_point_can_be_seen() {
    let llm = ScriptedLlm::new(Script::words(1).yields(2));
    let mut future = Box::pin(call(&llm, streamed()));
    assert!(poll!(&mut future).is_pending());
    assert!(poll!(&mut future).is_pending());
    let Poll::Ready(Ok(answer)) = poll!(&mut future) else {
        panic!("the head is there");
    };
    let mut answer = stream(answer);
    let mut pending = 0;
    loop {
        match poll!(answer.next()) {
            Poll::Pending => pending += 1,
            Poll::Ready(Some(_)) => {}
            Poll::Ready(None) => break,
        }
    }
    // Before each of role, token, finish and usage.
    assert_eq!(pending, 8);
}

#[tokio::test]
async fn embeddings_come_whole() {
    let llm = ScriptedLlm::default();
    let answer = call(&llm, LlmRequest::embed("e", ["a", "b"]))
        .await
        .expect("an answer");
    let embeddings = answer.completion().and_then(|c| c.as_embed());
    assert_eq!(embeddings.expect("embeddings").data.len(), 2);
}

#[tokio::test]
async fn a_stream_dropped_after_its_finish_reason_was_answered() {
    let llm = ScriptedLlm::new(Script::words(1));
    let mut answer = stream(call(&llm, streamed()).await.expect("the head"));
    for _ in 0..3 {
        answer.next().await.expect("an item").expect("no error");
    }
    drop(answer);
    assert_eq!(llm.ends(), [Some(CallEnd::Answered)]);
}
