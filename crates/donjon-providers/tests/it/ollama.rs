//! Ollama's own API.

use donjon_core::{ErrorKind, FinishReason, LlmRequest, Operation, Usage};
use donjon_providers::{Codec, Ollama, StreamDecoder, ollama::OllamaDecoder};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{End, any_json, ask, call, http, packeted, read_stream, sent, whole};

const LINES: &str = "application/x-ndjson";

/// As the server's documentation shows it.
const STREAM: &str = concat!(
    r#"{"model":"qwen3","created_at":"2025-01-01T00:00:00.5Z","message":{"role":"assistant","content":"","thinking":"Hm é"},"done":false}"#,
    "\n",
    r#"{"model":"qwen3","created_at":"2025-01-01T00:00:01Z","message":{"role":"assistant","content":"It is "},"done":false}"#,
    "\r\n\n",
    r#"{"model":"qwen3","created_at":"2025-01-01T00:00:01Z","message":{"role":"assistant","content":"noon.","tool_calls":[{"function":{"name":"now","arguments":{"zone":"UTC"}}},{"id":"c2","function":{"index":1,"name":"then","arguments":{}}}]},"done":false}"#,
    "\n",
    r#"{"model":"qwen3","created_at":"2025-01-01T00:00:02Z","message":{"role":"assistant","content":""},"done_reason":"stop","done":true,"total_duration":5,"prompt_eval_count":26,"eval_count":7}"#,
    "\n",
);

fn ollama() -> Ollama {
    Ollama::builder().keep_alive("10m").build().expect("valid")
}

#[test]
fn a_stream_of_lines() {
    let (_, result) = read_stream(ollama(), || packeted(STREAM, LINES, vec![], End::Open));
    let chat = result.expect("whole");
    assert_eq!(chat.first_text(), "It is noon.");
    let choice = &chat.choices[0];
    assert_eq!(choice.message.reasoning.as_deref(), Some("Hm é"));
    assert_eq!(choice.finish_reason, Some(FinishReason::ToolCalls));
    assert_eq!(chat.tool_calls().len(), 2);
    assert_eq!(chat.tool_calls()[0].arguments(), r#"{"zone":"UTC"}"#);
    assert_eq!(chat.tool_calls()[1].id.as_deref(), Some("c2"));
    assert_eq!(chat.usage, Some(Usage::new(26, 7)));
    assert_eq!(chat.created, Some(1_735_689_600));
}

#[test]
fn a_stream_that_fails_or_is_cut() {
    let first = STREAM.lines().next().expect("a line").to_owned() + "\n";
    let failing = first.clone() + "{\"error\":\"an error was encountered\"}\n";
    let (said, result) = read_stream(ollama(), move || {
        packeted(&failing, LINES, vec![], End::Whole)
    });
    assert_eq!(said.len(), 1);
    let error = result.expect_err("told");
    assert_eq!(error.kind(), ErrorKind::ServerError);
    assert_eq!(error.message(), "an error was encountered");
    for (end, kind) in [
        (End::Whole, ErrorKind::Incomplete),
        (End::Broken, ErrorKind::StreamBroken),
    ] {
        // Half a line, malformed, says nothing.
        let cut = first.clone() + "{\"mod";
        let (said, result) = read_stream(ollama(), move || packeted(&cut, LINES, vec![], end));
        assert_eq!((said.len(), result.expect_err("cut").kind()), (1, kind));
    }
    let refused = read_stream(ollama(), || whole(200, r#"{"error":"busy"}"#)).1;
    assert_eq!(refused.expect_err("told").kind(), ErrorKind::ServerError);
}

#[tokio::test]
async fn a_whole_answer() {
    let body = r#"{"model":"m","created_at":"2025-01-01T00:00:00Z","message":{"role":"assistant","content":"Yes."},
        "done":true,"done_reason":"length","total_duration":9,"prompt_eval_count":2,"eval_count":3}"#;
    let response = call(ollama(), http(move || whole(200, body)), ask()).await;
    let (_, completion) = response.expect("an answer").collect().await.expect("whole");
    let chat = completion.as_chat().expect("a chat");
    assert_eq!(chat.first_text(), "Yes.");
    assert_eq!(chat.choices[0].finish_reason, Some(FinishReason::Length));
    assert_eq!(chat.extra.read::<u64>("total_duration"), Some(9));
    for (body, kind) in [
        (r#"{"message":{"content":"a"}}"#, ErrorKind::Incomplete),
        (r#"{"done":true}"#, ErrorKind::InvalidResponse),
        (r#"{"error":"boom"}"#, ErrorKind::ServerError),
        ("<html>", ErrorKind::InvalidResponse),
    ] {
        let error = call(ollama(), http(move || whole(200, body)), ask()).await;
        assert_eq!(error.expect_err(body).kind(), kind, "{body}");
    }
}

#[tokio::test]
async fn requests() {
    let body = json!({"model": "m", "max_tokens": 7, "temperature": 0.5, "stop": ["x"], "seed": 5, "top_k": 3,
        "options": {"num_ctx": 8192, "temperature": 0.1}, "reasoning_effort": "medium", "user": "u",
        "response_format": {"type": "json_object"},
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        "messages": [{"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUI="}}]},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "ok"}]});
    let request = LlmRequest::from_openai_chat(body.to_string()).expect("a request");
    let got: Value = serde_json::from_slice(&sent(&ollama(), &request).await).expect("JSON");
    let expected = json!({"model": "m", "stream": false, "keep_alive": "10m", "think": "medium", "format": "json",
        "options": {"num_predict": 7, "temperature": 0.1, "stop": ["x"], "seed": 5, "top_k": 3, "num_ctx": 8192},
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        "messages": [{"role": "system", "content": "Be brief."},
            {"role": "user", "content": "ab", "images": ["QUI="]},
            {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": {"a": 1}}}]},
            {"role": "tool", "content": "ok", "tool_call_id": "c1", "tool_name": "f"}]});
    assert_eq!(got, expected);
    for (member, value) in [
        ("n", json!(2)),
        ("tool_choice", json!("required")),
        (
            "messages",
            json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://a/b"}}]}]),
        ),
    ] {
        let mut body = body.clone();
        body[member] = value;
        let request = LlmRequest::from_openai_chat(body.to_string()).expect("a request");
        let error = ollama().encode(&request).expect_err(member);
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{member}");
        assert!(error.field().is_some_and(|field| field.starts_with(member)));
    }
}

#[tokio::test]
async fn embeddings() {
    let request = LlmRequest::embed("e", ["a", "b"]);
    let body: Value = serde_json::from_slice(&sent(&ollama(), &request).await).expect("JSON");
    assert_eq!(
        body,
        json!({"model": "e", "input": ["a", "b"], "keep_alive": "10m"})
    );
    let answer = r#"{"model":"e","embeddings":[[0.5,-1],[1,2]],"prompt_eval_count":4}"#;
    let response = call(ollama(), http(move || whole(200, answer)), request.clone()).await;
    let (_, completion) = response.expect("an answer").collect().await.expect("whole");
    assert_eq!(completion.operation(), Operation::Embed);
    let embeddings = completion.as_embed().expect("embeddings");
    assert_eq!(&embeddings.data[1].vector[..], &[1.0, 2.0]);
    assert_eq!(embeddings.usage, Some(Usage::new(4, 0)));
    for body in [
        r#"{"embeddings":[[1]]}"#,
        r#"{"embeddings":[]}"#,
        r#"{"model":"e"}"#,
    ] {
        let error = call(ollama(), http(move || whole(200, body)), request.clone()).await;
        assert_eq!(
            error.expect_err(body).kind(),
            ErrorKind::InvalidResponse,
            "{body}"
        );
    }
}

proptest! {
    #[test]
    fn any_split_gives_the_same_chunks(cuts in proptest::collection::vec(0..STREAM.len(), 0..60)) {
        let (expected, _) = read_stream(ollama(), || packeted(STREAM, LINES, vec![], End::Whole));
        let (got, result) = read_stream(ollama(), move || packeted(STREAM, LINES, cuts.clone(), End::Whole));
        prop_assert_eq!(got, expected);
        prop_assert!(result.is_ok());
    }

    #[test]
    fn nothing_panics(value in any_json(), text in any::<String>(), bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let codec = ollama();
        let asked = donjon_providers::Asked::of(&ask());
        let message = json!({"message": value.clone(), "done": true});
        for body in [value.to_string(), message.to_string(), text] {
            let _ = OllamaDecoder::new().decode(body.clone());
            let _ = codec.decode(body.clone().into(), asked);
            let _ = codec.decode_error(http::StatusCode::BAD_REQUEST, &http::HeaderMap::new(), body.as_bytes());
        }
        let _ = codec.decode(bytes.into(), asked);
        if let Ok(request) = LlmRequest::from_openai_chat(value.to_string()) {
            let _ = codec.encode(&request);
        }
    }
}
