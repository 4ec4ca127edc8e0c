//! The same services to callers who speak Anthropic's words.

use donjon_core::{
    ChatCompletion, Chunk, ErrorKind, FinishReason, LlmError, LlmRequest, LlmResponse, Role, Usage,
};
use donjon_serve::Serve;
use serde_json::{Value, json};

use crate::support::{MESSAGES, Read, head, hello_chunks, llm, nobody, post, read, stream_of};

const ASK: &str = r#"{"model":"m","max_tokens":9,"system":"be brief","metadata":{"user_id":"cook"},
    "messages":[{"role":"user","content":"hello"}]}"#;
const ASK_STREAM: &str = r#"{"model":"m","max_tokens":9,"stream":true,
    "messages":[{"role":"user","content":"hello"}]}"#;

async fn stream(
    chunks: impl Fn() -> Vec<Result<Chunk, LlmError>> + Clone + Send + Sync + 'static,
) -> Read {
    let serve = Serve::new(llm(move |_| Ok(stream_of(chunks()))));
    read(&serve, post(MESSAGES, ASK_STREAM)).await
}

/// Its events, name and data.
fn named(answer: &Read) -> Vec<(String, Value)> {
    let events = answer.events().into_iter().map(|event| {
        let (name, data) = event.split_once(' ').unwrap();
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["type"], name);
        (name.to_owned(), data)
    });
    events.collect()
}

fn names(events: &[(String, Value)]) -> Vec<&str> {
    events.iter().map(|(name, _)| &**name).collect()
}

#[tokio::test]
async fn a_whole_answer() {
    let serve = Serve::new(llm(|request: LlmRequest| {
        assert_eq!(request.identity().user.as_deref(), Some("cook"));
        let chat = request.as_chat().unwrap();
        assert_eq!(chat.messages[0].role, Role::System);
        assert_eq!(chat.messages[1].text(), "hello");
        let mut answer = ChatCompletion::text("x", "hi");
        answer.model = None;
        answer.usage = Some(Usage::new(3, 4));
        Ok(LlmResponse::complete(head(), answer))
    }));
    let answer = read(&serve, post(MESSAGES, ASK)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-donjon-model"), Some("m-2024"));
    let answer = answer.json();
    assert!(answer["id"].as_str().unwrap().starts_with("msg_"));
    assert_eq!(answer["type"], "message");
    assert_eq!(answer["model"], "m-2024");
    assert_eq!(answer["content"], json!([{"type": "text", "text": "hi"}]));
    assert_eq!(answer["stop_reason"], "end_turn");
    assert_eq!(answer["usage"]["input_tokens"], 3);
    assert_eq!(answer["usage"]["output_tokens"], 4);
}

#[tokio::test]
async fn a_stream_has_one_start_and_one_stop() {
    let answer = stream(|| {
        let mut chunks = hello_chunks();
        chunks.insert(1, Ok(Chunk::ping()));
        // Another role, as after a failover.
        chunks.insert(2, Ok(Chunk::role()));
        chunks.push(Ok(Chunk::usage(Usage::new(3, 4))));
        chunks
    })
    .await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    let events = named(&answer);
    assert_eq!(
        names(&events),
        [
            "message_start",
            "content_block_start",
            "content_block_delta",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
    );
    assert_eq!(events[0].1["message"]["model"], "m-2024");
    assert_eq!(events[3].1["delta"]["text"], "lo");
    assert_eq!(events[5].1["delta"]["stop_reason"], "end_turn");
    assert_eq!(events[5].1["usage"]["output_tokens"], 4);
}

#[tokio::test]
async fn a_failure_in_a_stream_is_an_error_event_and_nothing_stops() {
    let answer = stream(|| {
        vec![
            Ok(Chunk::text("hel")),
            Err(LlmError::new(ErrorKind::Overloaded, "busy")),
        ]
    })
    .await;
    let events = named(&answer);
    assert_eq!(
        names(&events),
        [
            "message_start",
            "content_block_start",
            "content_block_delta",
            "error"
        ]
    );
    assert_eq!(
        events[3].1,
        json!({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}})
    );

    let answer = stream(|| vec![Ok(Chunk::text("cut"))]).await;
    let events = named(&answer);
    assert_eq!(names(&events).last(), Some(&"error"));
}

#[tokio::test]
async fn a_whole_answer_to_who_asked_for_a_stream() {
    let serve = Serve::new(llm(|_| {
        let mut answer = ChatCompletion::text("m", "hi");
        answer.choices[0].finish_reason = Some(FinishReason::Length);
        Ok(LlmResponse::complete(head(), answer))
    }));
    let events = named(&read(&serve, post(MESSAGES, ASK_STREAM)).await);
    assert_eq!(events[2].1["delta"]["text"], "hi");
    assert_eq!(events[4].1["delta"]["stop_reason"], "max_tokens");
}

#[tokio::test]
async fn a_malformed_request_names_the_field() {
    let serve = Serve::new(nobody());
    for (body, field) in [
        (
            r#"{"model":"m","max_tokens":1,"messages":[{"role":"user"}]}"#,
            "messages[0].content",
        ),
        (
            r#"{"model":"m","max_tokens":1,"messages":[{"role":"robot","content":""}]}"#,
            "messages[0].role",
        ),
        (r#"{"max_tokens":1,"messages":[]}"#, "model"),
        (
            r#"{"model":"m","max_tokens":"many","messages":[]}"#,
            "max_tokens",
        ),
        (r#"{"model""#, "JSON"),
    ] {
        let answer = read(&serve, post(MESSAGES, body)).await;
        assert_eq!(answer.status, 400, "{body}");
        let answer = answer.json();
        assert_eq!(answer["type"], "error");
        assert_eq!(answer["error"]["type"], "invalid_request_error");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(field), "{message}");
    }
}
