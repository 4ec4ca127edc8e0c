//! Answers, from one dialect into the other.

use donjon_core::{
    ChatCompletion, Choice, ChoiceDelta, Chunk, ErrorKind, FinishReason, Fold, Head, Message,
    ToolCall, Usage,
};
use donjon_providers::{anthropic as a, openai as o};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{any_json, json};

#[test]
fn an_answer_of_anthropic_in_openais_words() {
    let body = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "served",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "text", "text": "I "}, {"type": "text", "text": "call"},
            {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}},
            {"type": "tool_use", "id": "c2", "name": "g", "input": {}},
        ],
        "stop_reason": "tool_use", "stop_sequence": null,
        "usage": {"input_tokens": 5, "cache_read_input_tokens": 3, "output_tokens": 7},
    });
    let completion = a::completion_from_json(body.to_string().into()).expect("an answer");
    let told = json(&o::completion_to_json(&completion));
    assert_eq!(
        (&told["id"], &told["model"], &told["object"]),
        (&json!("msg_1"), &json!("served"), &json!("chat.completion"))
    );
    let choice = &told["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(choice["message"]["content"], "I call");
    assert_eq!(choice["message"]["reasoning_content"], "hm");
    assert_eq!(
        choice["message"]["tool_calls"],
        json!([
            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}},
            {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        ])
    );
    assert_eq!(
        (
            &told["usage"]["prompt_tokens"],
            &told["usage"]["completion_tokens"]
        ),
        (&json!(8), &json!(7))
    );
    assert_eq!(told["usage"]["prompt_tokens_details"]["cached_tokens"], 3);
}

#[test]
fn an_answer_of_openai_in_anthropics_words() {
    let mut message = Message::assistant("text");
    message.reasoning = Some("hm".into());
    message.tool_calls = vec![
        ToolCall::function("c1", "f", "{\"a\":1}"),
        ToolCall::function("c2", "g", ""),
    ];
    let mut completion = ChatCompletion::default();
    completion.id = Some("c".into());
    completion.model = Some("served".into());
    completion.choices = vec![Choice::new(0, message, FinishReason::ToolCalls)];
    let mut usage = Usage::new(10, 5);
    usage.cache_read = 4;
    completion.usage = Some(usage);
    let told = json(&a::completion_to_json(&completion));
    let expected = json!({
        "id": "c", "type": "message", "role": "assistant", "model": "served",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": ""},
            {"type": "text", "text": "text"},
            {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}},
            {"type": "tool_use", "id": "c2", "name": "g", "input": {}},
        ],
        "stop_reason": "tool_use", "stop_sequence": null,
        "usage": {"input_tokens": 6, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 4, "output_tokens": 5},
    });
    assert_eq!(told, expected);

    let mut refused = Message::assistant("");
    refused.content = None;
    refused.refusal = Some("no".into());
    let mut completion = ChatCompletion::default();
    completion.choices = vec![Choice::new(0, refused, FinishReason::Stop)];
    let told = json(&a::completion_to_json(&completion));
    assert_eq!(
        (&told["stop_reason"], &told["content"][0]["text"]),
        (&json!("refusal"), &json!("no"))
    );
    assert!(
        told["id"]
            .as_str()
            .is_some_and(|id| id.starts_with("msg_") && id.len() > 20)
    );
}

#[test]
fn what_is_no_answer_of_anthropic() {
    let kind = |body: &'static str| a::completion_from_json(body.into()).expect_err(body).kind();
    assert_eq!(kind("<html>"), ErrorKind::InvalidResponse);
    assert_eq!(kind("{}"), ErrorKind::InvalidResponse);
    assert_eq!(
        kind(r#"{"content":[{"x":1}],"stop_reason":"end_turn"}"#),
        ErrorKind::InvalidResponse
    );
    assert_eq!(kind(r#"{"content":[]}"#), ErrorKind::Incomplete);
    assert_eq!(
        kind(r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#),
        ErrorKind::Overloaded
    );
}

#[test]
fn interleaved_pieces_and_refusals_as_events() {
    let mut writer = a::EventWriter::new(&Head::new("m"));
    let mut out = bytes::BytesMut::new();
    let piece = |tool: u32, name: Option<&str>, arguments: &str| {
        let mut call = ToolCall::piece(tool, arguments);
        if let Some(name) = name {
            call = ToolCall::function("id", name, arguments);
            call.index = Some(tool);
        }
        let mut choice = ChoiceDelta::default();
        choice.tool_calls = vec![call];
        Chunk::new([choice])
    };
    let mut refusal = ChoiceDelta::default();
    refusal.refusal = Some("no".into());
    for chunk in [
        Chunk::role(),
        Chunk::ping(),
        Chunk::new([refusal, ChoiceDelta::text(1, "of another choice")]),
        piece(0, Some("f"), "{"),
        piece(1, Some("g"), "{}"),
        piece(0, None, "}"),
        Chunk::usage(Usage::new(3, 4)),
        Chunk::finish(FinishReason::Stop),
    ] {
        writer.chunk(&chunk, &mut out);
    }
    writer.finish(&mut out);
    let text = String::from_utf8(out.to_vec()).expect("text");
    assert!(!text.contains("another choice"));
    let data: Vec<Value> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|d| json(d.as_bytes()))
        .collect();
    let deltas: Vec<_> = data
        .iter()
        .filter(|event| event["type"] == "content_block_delta")
        .map(|event| {
            (
                event["index"].clone(),
                event["delta"].get("partial_json").cloned(),
            )
        })
        .collect();
    assert_eq!(
        deltas,
        [
            (json!(0), None),
            (json!(1), Some(json!("{"))),
            (json!(2), Some(json!("{}"))),
            (json!(1), Some(json!("}"))),
        ]
    );
    let end = &data[data.len() - 2];
    assert_eq!(end["delta"]["stop_reason"], "refusal");
    assert_eq!(end["usage"]["output_tokens"], 4);

    let mut out = bytes::BytesMut::new();
    writer.error(
        &donjon_core::LlmError::new(ErrorKind::Overloaded, "m"),
        &mut out,
    );
    let expected = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"m\"}}\n\n";
    assert_eq!(out, expected);
}

proptest! {
    #[test]
    fn no_answer_panics(body in any_json(), text in any::<String>()) {
        for json in [text, body.to_string()] {
            for answer in [a::completion_from_json(json.clone().into()), o::completion_from_json(json.into())].into_iter().flatten() {
                let _ = (a::completion_to_json(&answer), o::completion_to_json(&answer));
            }
        }
    }

    #[test]
    fn a_text_answer_survives_both_translations(text in any::<String>(), reasoning in any::<String>()) {
        let mut completion = ChatCompletion::text("m", text.clone());
        completion.choices[0].message.reasoning = Some(reasoning.clone().into());
        let there = a::completion_to_json(&completion);
        let back = a::completion_from_json(there).expect("an answer");
        prop_assert_eq!(back.first_text(), text.as_str());
        prop_assert_eq!(back.choices[0].message.reasoning.as_deref().unwrap_or_default(), reasoning);
        let mut fold = Fold::new();
        fold.push(&Chunk::text(text.clone()));
        let folded = fold.finish();
        prop_assert_eq!(folded.first_text(), text);
    }
}
