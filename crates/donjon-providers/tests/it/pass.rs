//! What nobody here has heard of survives where both sides speak the same dialect.

use bytes::Bytes;
use donjon_core::{Chunk, Dialect, LlmRequest};
use donjon_providers::{anthropic as a, openai as o};
use serde_json::json;

use crate::support::{End, anthropic, ask, call, events, http, items, json, openai, sent, whole};

const OPENAI_REQUEST: &str = r#"{ "model":"asked", "new":{"deep":[1.10,123456789012345678901234567890]},
  "messages":[{"role":"user","content":[{"type":"text","text":"hi","cache_control":{"type":"ephemeral"}}],"x":"\u00e9"}],
  "stream_options":{"include_usage":false,"include_obfuscation":false}, "stream":true }"#;

#[tokio::test]
async fn an_openai_request_to_openai() {
    let request = LlmRequest::from_openai_chat(OPENAI_REQUEST).expect("valid");
    let out = sent(&openai(), &request.with_model("served")).await;
    let text = std::str::from_utf8(&out).expect("text");
    for kept in [
        r#""new":{"deep":[1.10,123456789012345678901234567890]}"#,
        r#""messages":[{"role":"user","content":[{"type":"text","text":"hi","cache_control":{"type":"ephemeral"}}],"x":"\u00e9"}]"#,
    ] {
        assert!(text.contains(kept), "{kept} in {text}");
    }
    let out = json(&out);
    assert_eq!(out["model"], "served");
    assert_eq!(
        out["stream_options"],
        json!({"include_usage": true, "include_obfuscation": false})
    );
}

const ANTHROPIC_REQUEST: &str = r#"{ "max_tokens" : 9, "model" :"asked","thinking":{"type":"enabled","budget_tokens":1024},
  "system":[{"type":"text","text":"be brief","cache_control":{"type":"ephemeral","ttl":"1h"}}],
  "messages":[{"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"sig=="},{"type":"new","x":1.10}]},
   {"role":"user","content":"caf\u00e9"}],"top_k":5,"something_new":null,"metadata":{"user_id":"u","y":2}}"#;

#[tokio::test]
async fn an_anthropic_request_to_anthropic() {
    let request = a::request_from_json(ANTHROPIC_REQUEST).expect("valid");
    assert_eq!(&**request.model(), "asked");
    let out = sent(&anthropic(), &request.clone().with_model("served")).await;
    let expected = ANTHROPIC_REQUEST.replace("\"asked\"", "\"served\"");
    assert_eq!(out, expected, "byte for byte");

    let out = sent(&anthropic(), &request.streamed()).await;
    assert_eq!(out, ANTHROPIC_REQUEST.replacen('{', "{\"stream\":true,", 1));
}

#[tokio::test]
async fn answers_go_to_a_caller_of_the_same_dialect_as_they_came() {
    let body = r#"{"id":"c","object":"chat.completion","created":1,"model":"m","x":1.10,"choices":[{"index":0,
        "message":{"role":"assistant","content":"hi","annotations":[]},"finish_reason":"stop","content_filter_results":{}}]}"#;
    let response = call(openai(), http(move || whole(200, body)), ask())
        .await
        .expect("an answer");
    let (_, completion) = response.collect().await.expect("whole");
    assert_eq!(
        o::completion_to_json(completion.as_chat().expect("a chat")),
        body
    );

    let body = r#"{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"hi",
        "citations":[{"type":"char_location","cited_text":"x"}]},{"type":"new_block","y":[]}],"stop_reason":"pause_turn",
        "stop_sequence":null,"usage":{"input_tokens":1,"output_tokens":2,"server_tool_use":{"web_search_requests":1}},"container":null}"#;
    let response = call(anthropic(), http(move || whole(200, body)), ask())
        .await
        .expect("an answer");
    let (_, completion) = response.collect().await.expect("whole");
    let chat = completion.as_chat().expect("a chat");
    assert_eq!(chat.first_text(), "hi");
    assert_eq!(a::completion_to_json(chat), body);
}

#[tokio::test]
async fn chunks_go_to_a_caller_of_the_same_dialect_as_they_came() {
    let json = r#"{"id":"c","choices":[{"index":0,"delta":{"content":"hi","new":1.10},"finish_reason":"stop"}],"obfuscation":"z"}"#;
    let text = format!("data: {json}\n\ndata: [DONE]\n\n");
    let answer = http(move || events(text.clone(), End::Whole));
    let response = call(openai(), answer, ask().streamed())
        .await
        .expect("a stream");
    let items = items(response).await;
    let chunk = items[0].as_ref().expect("a chunk");
    assert_eq!(o::chunk_to_json(chunk), json);
}

#[test]
fn usage_is_hidden_from_who_did_not_ask_for_it() {
    let read = |json: &'static str| Chunk::from_openai(json).expect("valid");
    let bare = read(r#"{"choices":[],"usage":{"prompt_tokens":1}}"#);
    assert!(o::without_usage(bare).is_none());
    let last = read(
        r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":1},"x_groq":{"id":"r"}}"#,
    );
    let shown = json(&o::chunk_to_json(&o::without_usage(last).expect("a chunk")));
    assert_eq!(shown.get("usage"), None);
    assert_eq!(shown["x_groq"]["id"], "r");
    assert_eq!(shown["choices"][0]["finish_reason"], "stop");
    let plain = read(r#"{"choices":[{"index":0,"delta":{"content":"x"}}]}"#);
    let shown = o::without_usage(plain).expect("a chunk");
    assert!(
        shown.wire(Dialect::OpenAi).is_some(),
        "what holds none is not touched"
    );
}

#[tokio::test]
async fn reasoning_of_others_is_not_passed_to_anthropic_without_its_signature() {
    let body = r#"{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"q"},
        {"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":""},{"type":"text","text":"a"}]},
        {"role":"user","content":"q"}]}"#;
    let request = a::request_from_json(Bytes::from_static(body.as_bytes())).expect("valid");
    let out = json(&sent(&anthropic(), &request).await);
    assert_eq!(
        out["messages"][1]["content"],
        json!([{"type": "text", "text": "a"}])
    );
}
