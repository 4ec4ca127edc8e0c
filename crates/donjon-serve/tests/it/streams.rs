//! Streamed answers.

use donjon_core::{
    ChatCompletion, Chunk, Delivery, ErrorKind, FinishReason, LlmError, LlmRequest, LlmResponse,
    Message, ToolCall, Usage,
};
use donjon_serve::Serve;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::support::{
    CHAT, HELLO_STREAM, Read, ask, events, head, hello_chunks, llm, post, read, read_stream,
    stream_from, stream_of, wire,
};

const WITH_USAGE: &str = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true},
    "messages":[{"role":"user","content":"hello"}]}"#;

fn values(answer: &Read) -> Vec<Value> {
    let events = answer.events();
    let (done, events) = events.split_last().unwrap();
    assert_eq!(done, "[DONE]");
    let values = events.iter().map(|event| serde_json::from_str(event));
    values.collect::<Result<_, _>>().unwrap()
}

#[tokio::test]
async fn chunks_of_our_own_making_become_openai_events() {
    let answer = read_stream(HELLO_STREAM, || {
        let mut chunks = hello_chunks();
        chunks.insert(1, Ok(Chunk::ping()));
        chunks
    })
    .await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(answer.header("cache-control"), Some("no-cache"));
    assert_eq!(answer.header("x-donjon-model"), Some("m-2024"));
    assert_eq!(answer.header("x-donjon-attempts"), Some("0"));
    let events = values(&answer);
    assert_eq!(events.len(), 4, "{events:?}");
    let id = &events[0]["id"];
    assert!(id.as_str().unwrap().starts_with("chatcmpl-"));
    for event in &events {
        assert_eq!(event["id"], *id);
        assert_eq!(event["object"], "chat.completion.chunk");
        assert_eq!(event["model"], "m-2024");
        assert_eq!(event["created"], events[0]["created"]);
    }
    assert_eq!(
        events[0]["choices"][0]["delta"],
        json!({"role": "assistant"})
    );
    assert_eq!(events[1]["choices"][0]["delta"], json!({"content": "hel"}));
    assert_eq!(events[3]["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn what_came_from_openai_goes_out_as_it_came() {
    const FIRST: &str = r#"{"id":"a","choices":[{"index":0,"delta":{"content":"x"}, "odd":1.50}],"usage":null,"new":{}}"#;
    const LAST: &str = r#"{"id":"a","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
    let answer = read_stream(HELLO_STREAM, || vec![Ok(wire(FIRST)), Ok(wire(LAST))]).await;
    assert_eq!(answer.events(), [FIRST, LAST, "[DONE]"]);
}

#[tokio::test]
async fn several_lines_of_json_are_one_event() {
    let answer = read_stream(HELLO_STREAM, || {
        let text =
            "{\n\"choices\":\r\n[{\"delta\":{\"content\":\"x\"},\"finish_reason\":\"stop\"}]\n}";
        vec![Ok(wire(text))]
    })
    .await;
    assert_eq!(answer.events().len(), 2, "{answer:?}");
    assert!(!answer.body.contains(&b'\r'));
    let event: Value = serde_json::from_str(&answer.events()[0]).unwrap();
    assert_eq!(event["choices"][0]["delta"]["content"], "x");
}

const FINISH_WITH_USAGE: &str = r#"{"id":"a","object":"chat.completion.chunk","created":1,"model":"q","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7},"service_tier":"x"}"#;
const BARE_USAGE: &str =
    r#"{"id":"a","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}"#;

fn with_usage() -> Vec<Result<Chunk, LlmError>> {
    vec![
        Ok(Chunk::text("x")),
        Ok(wire(FINISH_WITH_USAGE)),
        Ok(wire(BARE_USAGE)),
    ]
}

#[tokio::test]
async fn usage_is_hidden_from_who_did_not_ask() {
    let answer = read_stream(HELLO_STREAM, with_usage).await;
    let events = values(&answer);
    assert_eq!(events.len(), 2);
    assert_eq!(
        events[1],
        json!({
            "id": "a", "object": "chat.completion.chunk", "created": 1, "model": "q",
            "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
            "service_tier": "x",
        })
    );
}

#[tokio::test]
async fn usage_is_shown_to_who_asked() {
    let answer = read_stream(WITH_USAGE, with_usage).await;
    let events = answer.events();
    assert_eq!(events[1..], [FINISH_WITH_USAGE, BARE_USAGE, "[DONE]"]);
}

#[tokio::test]
async fn usage_of_another_dialect_comes_once_and_last() {
    let answer = read_stream(WITH_USAGE, || {
        let mut first = Chunk::role();
        first.edit().usage = Some(Usage::new(3, 0));
        let mut last = Chunk::finish(FinishReason::Stop);
        last.edit().usage = Some(Usage::new(3, 4));
        vec![Ok(first), Ok(Chunk::text("x")), Ok(last)]
    })
    .await;
    let events = values(&answer);
    let usage: Vec<_> = events.iter().map(|event| event.get("usage")).collect();
    assert_eq!(usage[..3], [None; 3]);
    assert_eq!(usage[3].unwrap()["total_tokens"], 7);
    assert_eq!(events[3]["choices"], json!([]));
    assert_eq!(events.len(), 4);
}

#[tokio::test]
async fn the_service_is_told_whether_the_caller_asked_for_usage() {
    for (body, usage) in [(HELLO_STREAM, false), (WITH_USAGE, true)] {
        let serve = Serve::new(llm(move |request: LlmRequest| {
            assert_eq!(request.delivery, Delivery::Stream { usage });
            Ok(stream_of(hello_chunks()))
        }));
        assert_eq!(read(&serve, post(CHAT, body)).await.status, 200);
    }
}

#[tokio::test]
async fn a_failure_after_the_commit_point_is_in_band_and_nothing_is_done() {
    let answer = read_stream(HELLO_STREAM, || {
        let mut chunks = hello_chunks();
        chunks.truncate(2);
        chunks.push(Err(LlmError::new(ErrorKind::StreamBroken, "reset")));
        chunks.push(Ok(Chunk::text("never")));
        chunks
    })
    .await;
    assert_eq!(answer.status, 200);
    let events = answer.events();
    assert_eq!(events.len(), 3, "{events:?}");
    assert_eq!(
        serde_json::from_str::<Value>(&events[2]).unwrap(),
        json!({"error": {
            "message": "reset", "type": "server_error", "param": null, "code": "stream_broken",
        }})
    );
}

#[tokio::test]
async fn a_stream_that_is_cut_is_never_done() {
    let answer = read_stream(HELLO_STREAM, || {
        hello_chunks().into_iter().take(3).collect()
    })
    .await;
    let events = answer.events();
    assert_eq!(events.len(), 4);
    assert!(events[3].contains("incomplete_response"), "{events:?}");
}

#[tokio::test]
async fn a_whole_answer_is_streamed_to_who_asked_for_a_stream() {
    let serve = Serve::new(llm(|_| {
        let mut answer = ChatCompletion::text("m-2024", "hi");
        answer.usage = Some(Usage::new(1, 2));
        let mut message = Message::assistant("hi");
        message.tool_calls = vec![ToolCall::function("t", "raise_bridge", "{}")];
        answer.choices[0].message = message;
        Ok(LlmResponse::complete(head(), answer))
    }));
    let events = values(&read(&serve, post(CHAT, WITH_USAGE)).await);
    assert_eq!(events.len(), 2);
    let choice = &events[0]["choices"][0];
    assert_eq!(choice["delta"]["role"], "assistant");
    assert_eq!(choice["delta"]["content"], "hi");
    assert_eq!(choice["delta"]["tool_calls"][0]["index"], 0);
    assert_eq!(choice["finish_reason"], "stop");
    assert_eq!(events[1]["usage"]["total_tokens"], 3);
}

#[tokio::test]
async fn chunks_go_when_they_come_and_share_a_frame_when_they_come_together() {
    let (chunks, rest) = mpsc::unbounded_channel();
    let rest = std::sync::Arc::new(std::sync::Mutex::new(Some(rest)));
    let serve = Serve::new(llm(move |_| {
        let rest = rest.lock().unwrap().take().unwrap();
        Ok(stream_from(rest))
    }));
    let mut body = ask(&serve, post(CHAT, HELLO_STREAM)).await.into_body();
    for chunk in [Chunk::role(), Chunk::text("a"), Chunk::text("b")] {
        chunks.send(chunk).unwrap();
    }
    let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(events(&frame).len(), 3);
    let mut next = now(&mut body);
    assert!(next.is_none(), "nothing has come");
    chunks.send(Chunk::text("c")).unwrap();
    next = now(&mut body);
    assert_eq!(events(&next.unwrap()).len(), 1);
    chunks.send(Chunk::finish(FinishReason::Stop)).unwrap();
    drop(chunks);
    let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(events(&frame).len(), 2, "the end rides with the last chunk");
    assert!(http_body::Body::is_end_stream(&body));
    assert!(body.frame().await.is_none());
}

/// The next frame, if there is one now.
fn now(body: &mut donjon_serve::ServeBody) -> Option<bytes::Bytes> {
    use futures_util::FutureExt;
    let frame = body.frame().now_or_never()?.unwrap().unwrap();
    Some(frame.into_data().unwrap())
}

#[tokio::test]
async fn a_frame_is_bounded() {
    let answer = || {
        let long = "x".repeat(1024);
        let mut chunks: Vec<_> = (0..64).map(|_| Ok(Chunk::text(&*long))).collect();
        chunks.push(Ok(Chunk::finish(FinishReason::Stop)));
        chunks
    };
    let serve = Serve::new(llm(move |_| Ok(stream_of(answer()))));
    let mut body = ask(&serve, post(CHAT, HELLO_STREAM)).await.into_body();
    let (mut frames, mut all) = (0, Vec::new());
    while let Some(frame) = body.frame().await {
        let data = frame.unwrap().into_data().unwrap();
        assert!(data.len() < 18 * 1024, "{}", data.len());
        frames += 1;
        all.extend_from_slice(&data);
    }
    assert!((4..=6).contains(&frames), "{frames}");
    assert_eq!(events(&all).len(), 66);
}

#[tokio::test]
async fn a_stream_of_pings_lets_others_have_their_turn() {
    let serve = Serve::new(llm(|_| {
        let pings = futures_util::stream::repeat_with(|| Ok(Chunk::ping()));
        let stream = donjon_core::ResponseStream::new(1, pings);
        Ok(LlmResponse::stream(head(), stream))
    }));
    let mut body = ask(&serve, post(CHAT, HELLO_STREAM)).await.into_body();
    assert!(now(&mut body).is_none());
}
