//! What comes in goes out, in both directions, and cloning costs nothing.

use std::sync::Arc;

use donjon_core::{
    ChatCompletion, Chunk, Delivery, Dialect, ErrorKind, FinishReason, Fold, LlmRequest, Message,
    Usage,
};
use serde_json::{Value, json};

fn value(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("valid JSON")
}

fn request_body() -> Value {
    json!({
        "model": "gpt-4o",
        "messages": [
            {"role": "system", "content": "Be brief.", "cache_control": {"type": "ephemeral"}},
            {"role": "user", "content": [
                {"type": "text", "text": "What is this?", "x": 1},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low", "y": [1.10]}},
                {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
            ]},
            {"role": "assistant", "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}", "z": true}},
            ]},
            {"role": "tool", "tool_call_id": "c1", "content": "1"},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": true}}],
        "tool_choice": "auto",
        "max_completion_tokens": 10,
        "temperature": 0.5,
        "stop": ["a", "b"],
        "n": 2,
        "logit_bias": {"50256": -100},
        "something_new": {"deep": [1, 2.50, "\u{1F600}"]},
    })
}

#[test]
fn unknown_members_of_a_request_survive() {
    let body = request_body();
    let request = LlmRequest::from_openai_chat(body.to_string()).expect("valid");
    assert_eq!(value(&request.to_openai_chat().expect("a chat")), body);

    // Edited, it is written from its fields, and still nothing is lost.
    let mut edited = request.clone();
    edited.edit_chat().expect("a chat").temperature = Some(0.25);
    let mut expected = body;
    expected["temperature"] = json!(0.25);
    assert_eq!(value(&edited.to_openai_chat().expect("a chat")), expected);
    assert_eq!(
        request.as_chat().expect("a chat").temperature,
        Some(0.5),
        "a prompt that others share is copied before it is edited"
    );
}

#[test]
fn numbers_keep_their_digits() {
    let body = r#"{"model":"m","messages":[],"x":1.10,"big":123456789012345678901234567890}"#;
    let mut request = LlmRequest::from_openai_chat(body).expect("valid");
    for _ in 0..2 {
        let out = request.to_openai_chat().expect("a chat");
        let out = std::str::from_utf8(&out).expect("text");
        assert!(out.contains("1.10") && out.contains("123456789012345678901234567890"));
        request.edit_chat();
    }
}

#[test]
fn the_model_and_the_delivery_are_the_calls_own() {
    let body = r#"{"model":"a","messages":[],"stream":true,
        "stream_options":{"include_usage":false,"include_obfuscation":false}}"#;
    let mut request = LlmRequest::from_openai_chat(body).expect("valid");
    assert_eq!(request.delivery, Delivery::Stream { usage: false });
    request.delivery = Delivery::Stream { usage: true };
    let out = value(&request.with_model("b").to_openai_chat().expect("a chat"));
    assert_eq!(out["model"], "b");
    assert_eq!(out["stream"], true);
    assert_eq!(out["stream_options"]["include_usage"], true);
    assert_eq!(out["stream_options"]["include_obfuscation"], false);
}

#[test]
fn a_bad_request_says_what_is_wrong() {
    for (body, says) in [
        (r#"{"messages":[]}"#, "`model`"),
        (r#"{"model":1,"messages":[]}"#, "`model`"),
        (r#"{"model":"m"}"#, "`messages`"),
        (r#"{"model":"m","messages":[],"stream":"yes"}"#, "`stream`"),
        (r#"{"model":"m","messages":[{"content":"x"}]}"#, "`role`"),
        (r#"{"model":"m","messages":3}"#, "sequence"),
        ("{", "EOF"),
        ("[]", "object"),
    ] {
        let error = LlmRequest::from_openai_chat(body).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(error.message().contains(says), "{body}: {error}");
    }
    let null = r#"{"model":"m","messages":[],"stream":null,"stream_options":null,"n":null}"#;
    assert!(LlmRequest::from_openai_chat(null).is_ok(), "null is absent");
}

#[test]
fn cloning_and_remapping_cost_the_same_for_any_prompt() {
    let large = LlmRequest::chat("m", [Message::user("x".repeat(1 << 20))]);
    let other: Arc<str> = "n".into();
    let counted = allocation_counter::measure(|| {
        let clone = large.clone();
        let remapped = clone.clone().with_model(other.clone());
        assert!(Arc::ptr_eq(remapped.shared_prompt(), large.shared_prompt()));
    });
    assert_eq!(counted.count_total, 0);
}

#[test]
fn unknown_members_of_an_answer_survive() {
    let body = json!({
        "id": "c", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{
            "index": 0, "finish_reason": "stop", "content_filter_results": {"hate": {"filtered": false}},
            "message": {"role": "assistant", "content": "hi", "annotations": [], "reasoning_content": "hm"},
        }],
        "system_fingerprint": "fp", "service_tier": "default",
    });
    let answer: ChatCompletion = serde_json::from_value(body.clone()).expect("valid");
    assert_eq!(serde_json::to_value(&answer).expect("JSON"), body);
}

#[test]
fn a_chunk_goes_out_as_it_came_and_edited_keeps_the_rest() {
    let json = r#"{"id":"a","object":"chat.completion.chunk","created":5,"model":"m",
        "obfuscation":"zz","choices":[{"index":0,"delta":{"content":"hi","extra":1}}]}"#;
    let mut chunk = Chunk::from_openai(json).expect("valid");
    assert_eq!(
        chunk.wire(Dialect::OpenAi).expect("as it came"),
        json.as_bytes()
    );
    assert_eq!(chunk.wire(Dialect::Anthropic), None);
    chunk.edit().id = Some("b".into());
    assert_eq!(chunk.wire(Dialect::OpenAi), None);
    let out = serde_json::to_value(&chunk).expect("JSON");
    assert_eq!(
        (&out["id"], &out["obfuscation"]),
        (&json!("b"), &json!("zz"))
    );
    assert_eq!(
        out["choices"][0]["delta"],
        json!({"content": "hi", "extra": 1})
    );
}

#[test]
fn odd_chunks_are_read() {
    let read = |json: &'static str| Chunk::from_openai(json).expect("valid");
    assert!(
        read(r#"{"choices":null,"usage":{"prompt_tokens":1}}"#)
            .choices
            .is_empty()
    );
    assert!(read(r#"{"choices":[]}"#).choices.is_empty());
    assert_eq!(read(r#"{"created":1.5,"choices":[{}]}"#).created, Some(1));
    let empty = read(r#"{"choices":[{"delta":null,"finish_reason":""}]}"#);
    assert!(!empty.finishes() && !empty.shows(true));
    let usage = read(
        r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4,
        "prompt_tokens_details":{"cached_tokens":3},
        "completion_tokens_details":{"reasoning_tokens":2}}}"#,
    );
    let mut expected = Usage::new(9, 4);
    (expected.cache_read, expected.reasoning) = (3, 2);
    assert_eq!(usage.usage, Some(expected));
    assert!(Chunk::from_openai("{").is_err());
}

#[test]
fn folding_joins_what_a_stream_takes_apart() {
    let mut fold = Fold::new();
    for json in [
        r#"{"id":"a","model":"m","created":1,"service_tier":"t","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#,
        r#"{"id":"a","choices":[{"index":0,"delta":{"reasoning_content":"h"}},{"index":1,"delta":{"content":"other"}}]}"#,
        r#"{"id":"a","choices":[{"index":0,"delta":{"content":"he","reasoning_content":"m"},"logprobs":{"content":[{"token":"he"}]}}]}"#,
        r#"{"id":"a","choices":[{"index":0,"delta":{"content":"llo"},"logprobs":{"content":[{"token":"llo"}]}}]}"#,
        r#"{"id":"a","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"f","arguments":""}}]}}]}"#,
        r#"{"id":"a","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\""}},{"index":1,"id":"c2","function":{"name":"g","arguments":"{}"}}]}}]}"#,
        r#"{"id":"a","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":":1}"}}]}}]}"#,
        r#"{"id":"a","choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"},{"index":1,"delta":{},"finish_reason":"stop"}]}"#,
        r#"{"id":"a","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#,
    ] {
        fold.push(&Chunk::from_openai(json).expect("valid"));
    }
    let answer = fold.finish();
    assert_eq!(answer.first_text(), "hello");
    let [first, second] = &answer.choices[..] else {
        panic!("two choices");
    };
    assert_eq!(first.message.reasoning.as_deref(), Some("hm"));
    assert_eq!(first.finish_reason, Some(FinishReason::ToolCalls));
    assert_eq!(second.message.text(), "other");
    let calls: Vec<_> = first
        .message
        .tool_calls
        .iter()
        .map(|c| (c.name(), c.arguments()))
        .collect();
    assert_eq!(calls, [(Some("f"), "{\"a\":1}"), (Some("g"), "{}")]);
    let logprobs = first.logprobs.as_ref().expect("joined").get();
    assert_eq!(
        value(logprobs.as_bytes())["content"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );
    assert_eq!(answer.usage, Some(Usage::new(1, 2)));
    assert!(answer.extra.get("service_tier").is_some());
}

#[test]
fn edited_chunks_keep_what_stands_beside_their_deltas() {
    let json = r#"{"id":"a","choices":[{"index":0,"delta":{"content":"x"},"native_finish_reason":"eos"}],
        "usage":{"prompt_tokens":1,"completion_tokens":2,"cost":0.5}}"#;
    let mut chunk = Chunk::from_openai(json).expect("valid");
    chunk.edit().id = Some("b".into());
    let out = serde_json::to_value(&chunk).expect("JSON");
    assert_eq!(out["choices"][0]["native_finish_reason"], "eos");
    assert_eq!(out["usage"]["cost"], 0.5);
    let mut fold = Fold::new();
    fold.push(&chunk);
    let answer = serde_json::to_value(fold.finish()).expect("JSON");
    assert_eq!(answer["choices"][0]["native_finish_reason"], "eos");
}

#[test]
fn odd_figures_do_not_cost_the_answer() {
    for usage in [
        "12",
        "\"\"",
        "{\"prompt_tokens\":-1}",
        "{\"prompt_tokens\":12.0}",
        "[]",
    ] {
        let json = format!(
            r#"{{"created":1.5,"choices":[{{"index":0,"delta":{{}},"message":{{"role":"assistant"}},
            "finish_reason":"stop"}}],"usage":{usage}}}"#
        );
        assert!(
            Chunk::from_openai(json.clone())
                .expect("readable")
                .finishes(),
            "{usage}"
        );
        let answer: ChatCompletion = serde_json::from_str(&json).expect("readable");
        assert_eq!(answer.created, Some(1));
    }
    let float = r#"{"choices":[],"usage":{"prompt_tokens":12.0}}"#;
    let float = Chunk::from_openai(float).expect("readable");
    assert_eq!(float.usage, Some(Usage::new(12, 0)));
}

#[test]
fn tool_calls_are_told_apart_by_their_ids() {
    let fold = |chunks: &[&'static str]| {
        let mut fold = Fold::new();
        for calls in chunks {
            let json = format!(r#"{{"choices":[{{"index":0,"delta":{{"tool_calls":{calls}}}}}]}}"#);
            fold.push(&Chunk::from_openai(json).expect("valid"));
        }
        let answer = fold.finish();
        let calls = answer.tool_calls().iter();
        calls
            .map(|call| call.arguments().to_owned())
            .collect::<Vec<_>>()
    };
    let one = r#"[{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}]"#;
    let two = r#"[{"index":0,"id":"b","function":{"name":"f","arguments":"{}"}}]"#;
    assert_eq!(fold(&[one, two]), ["{}", "{}"]);
    let last = r#"[{"index":4294967295,"id":"a","function":{"arguments":"{"}}]"#;
    let more = r#"[{"function":{"arguments":"}"}}]"#;
    let next = r#"[{"id":"c","function":{"arguments":"[]"}}]"#;
    assert_eq!(fold(&[last, more, next]), ["{}", "[]"]);
}

#[test]
fn a_prompt_is_not_printed_unasked() {
    let request = LlmRequest::chat("m", [Message::user("my secret")]);
    assert!(!format!("{request:?}").contains("my secret"));
}

#[test]
fn many_members_take_linear_time() {
    let mut body = String::from(r#"{"model":"m","messages":[]"#);
    for n in 0..100_000 {
        body.push_str(&format!(r#","k{n}":1"#));
    }
    body.push_str(r#","k7":2}"#);
    let request = LlmRequest::from_openai_chat(body).expect("valid");
    let extra = &request.as_chat().expect("a chat").extra;
    assert_eq!(extra.len(), 100_000);
    assert_eq!(extra.read::<u32>("k7"), Some(2), "the last one counts");
}
