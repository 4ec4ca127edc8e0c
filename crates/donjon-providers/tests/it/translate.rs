//! From one dialect into the other.

use donjon_core::{ErrorKind, Extra, Function, LlmRequest, Tool};
use donjon_providers::{Codec, OpenAi, anthropic as a, openai as o};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{anthropic, any_json, ask, json, openai, sent};

async fn to_anthropic(body: Value) -> Value {
    let request = LlmRequest::from_openai_chat(body.to_string()).expect("valid");
    json(&sent(&anthropic(), &request).await)
}

async fn to_openai(body: Value) -> Value {
    let request = a::request_from_json(body.to_string()).expect("valid");
    json(&sent(&openai(), &request).await)
}

fn refused_by_anthropic(body: Value) -> (ErrorKind, Option<String>) {
    let request = LlmRequest::from_openai_chat(body.to_string()).expect("valid");
    let error = anthropic().encode(&request).expect_err("refused");
    (error.kind(), error.field().map(str::to_owned))
}

#[tokio::test]
async fn a_plain_request_to_anthropic_says_only_what_it_knows() {
    let out = to_anthropic(json!({
        "model": "m", "messages": [{"role": "user", "content": "hi", "name": "ann"}],
        "temperature": 1.5, "top_p": 0.5, "stop": ["END", " \n"], "seed": 1, "n": 1, "logprobs": true, "user": "u-1",
        "reasoning_effort": "high", "metadata": {"k": "v"}, "top_k": 3, "something_new": 1,
        "thinking": {"type": "adaptive"}, "response_format": {"type": "json_object"},
    }))
    .await;
    let expected = json!({
        "model": "m", "max_tokens": 4096, "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "temperature": 1.0, "top_p": 0.5, "stop_sequences": ["END"], "metadata": {"user_id": "u-1"}, "top_k": 3,
        "thinking": {"type": "adaptive"},
    });
    assert_eq!(out, expected);
}

#[tokio::test]
async fn tools_images_and_results_to_anthropic() {
    let out = to_anthropic(json!({
        "model": "m", "max_completion_tokens": 50, "stream": true, "parallel_tool_calls": false, "tool_choice": "required",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "developer", "content": [{"type": "text", "text": "be kind", "cache_control": {"type": "ephemeral"}}]},
            {"role": "user", "content": [
                {"type": "text", "text": "what is this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "https://x.y/z.png"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"}},
                {"type": "text", "text": ""},
            ]},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}},
                {"id": "c2", "type": "function", "function": {"name": "g", "arguments": ""}},
                {"id": "c3", "type": "function", "function": {"name": "h", "arguments": "no JSON"}},
            ]},
            {"role": "tool", "tool_call_id": "c1", "content": "one"},
            {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "two"}]},
            {"role": "tool", "tool_call_id": "c3", "content": ""},
            {"role": "user", "content": "go on"},
            {"role": "assistant", "content": ""},
        ],
        "tools": [
            {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object", "x": 1.10}, "strict": true}},
            {"type": "function", "function": {"name": "g"}, "cache_control": {"type": "ephemeral"}},
        ],
    }))
    .await;
    let expected = json!({
        "model": "m", "max_tokens": 50, "stream": true,
        "system": [
            {"type": "text", "text": "be brief"},
            {"type": "text", "text": "be kind", "cache_control": {"type": "ephemeral"}},
        ],
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "what is this?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                {"type": "image", "source": {"type": "url", "url": "https://x.y/z.png"}},
                {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}, "title": "a.pdf"},
            ]},
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}},
                {"type": "tool_use", "id": "c2", "name": "g", "input": {}},
                {"type": "tool_use", "id": "c3", "name": "h", "input": {"arguments": "no JSON"}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "one"}]},
                {"type": "tool_result", "tool_use_id": "c2", "content": [{"type": "text", "text": "two"}]},
                {"type": "tool_result", "tool_use_id": "c3"},
                {"type": "text", "text": "go on"},
            ]},
        ],
        "tools": [
            {"name": "f", "description": "d", "input_schema": {"type": "object", "x": 1.10}, "strict": true},
            {"name": "g", "input_schema": {"type": "object", "properties": {}}, "cache_control": {"type": "ephemeral"}},
        ],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": true},
    });
    assert_eq!(out, expected);
}

#[tokio::test]
async fn tool_choices_and_schemas_to_anthropic() {
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    for (choice, expected) in [
        (json!("auto"), json!({"type": "auto"})),
        (json!("none"), json!({"type": "none"})),
        (json!("required"), json!({"type": "any"})),
        (
            json!({"type": "function", "function": {"name": "f"}}),
            json!({"type": "tool", "name": "f"}),
        ),
    ] {
        let body = json!({"model": "m", "messages": [], "tools": tools, "tool_choice": choice});
        assert_eq!(to_anthropic(body).await["tool_choice"], expected);
    }
    let body = json!({"model": "m", "messages": [], "tool_choice": "none"});
    assert_eq!(
        to_anthropic(body).await.get("tool_choice"),
        None,
        "without tools the API refuses it"
    );
    let schema = json!({"type": "object", "properties": {"a": {"type": "number"}}});
    let format = json!({"type": "json_schema", "json_schema": {"name": "n", "strict": true, "schema": schema}});
    let out = to_anthropic(json!({"model": "m", "messages": [], "response_format": format})).await;
    assert_eq!(
        out["output_config"],
        json!({"format": {"type": "json_schema", "schema": schema}})
    );
}

#[test]
fn what_anthropic_cannot_do_is_left_to_another_target() {
    let with = |name: &str, value: Value| {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
        body[name] = value;
        refused_by_anthropic(body)
    };
    let unsupported = |field: &str| (ErrorKind::Unsupported, Some(field.to_owned()));
    assert_eq!(with("n", json!(2)), unsupported("n"));
    let audio = json!([{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]);
    assert_eq!(
        with("messages", audio),
        unsupported("messages[0].content[0]")
    );
    let function = json!([{"role": "user", "content": "x"}, {"role": "function", "content": "x"}]);
    assert_eq!(with("messages", function), unsupported("messages[1].role"));
    assert_eq!(
        with("tools", json!([{"type": "custom", "custom": {}}])),
        unsupported("tools")
    );
    assert_eq!(
        with("response_format", json!({"type": "grammar"})),
        unsupported("response_format")
    );
    let error = anthropic()
        .encode(&LlmRequest::embed("m", ["x"]))
        .expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let orphan = json!([{"role": "tool", "content": "x"}]);
    let (kind, field) = with("messages", orphan);
    assert_eq!(
        (kind, field.as_deref()),
        (ErrorKind::InvalidRequest, Some("messages[0].tool_call_id"))
    );
}

#[tokio::test]
async fn an_anthropic_request_to_openai() {
    let out = to_openai(json!({
        "model": "m", "max_tokens": 9, "stream": true, "temperature": 0.5, "top_k": 5, "stop_sequences": ["END"],
        "thinking": {"type": "enabled", "budget_tokens": 1024}, "metadata": {"user_id": "u"},
        "system": [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "be kind"}],
        "messages": [
            {"role": "user", "content": [
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                {"type": "image", "source": {"type": "url", "url": "https://x.y/z.png"}},
                {"type": "document", "title": "a.pdf", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}},
                {"type": "text", "text": "what?", "cache_control": {"type": "ephemeral"}},
            ]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "text", "text": "I "}, {"type": "text", "text": "call"},
                {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1.10}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "c1", "is_error": true, "content": [
                    {"type": "text", "text": "one"},
                    {"type": "image", "source": {"type": "url", "url": "https://x.y/r.png"}},
                ]},
                {"type": "tool_result", "tool_use_id": "c2", "content": "two"},
                {"type": "tool_result", "tool_use_id": "c3"},
                {"type": "text", "text": "go on"},
            ]},
            {"role": "assistant", "content": "so"},
        ],
        "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}}],
        "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": true},
        "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}},
    }))
    .await;
    let expected = json!({
        "model": "m", "stream": true, "stream_options": {"include_usage": true},
        "max_completion_tokens": 9, "temperature": 0.5, "stop": ["END"], "user": "u",
        "messages": [
            {"role": "system", "content": "be brief\n\nbe kind"},
            {"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                {"type": "image_url", "image_url": {"url": "https://x.y/z.png"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"}},
                {"type": "text", "text": "what?"},
            ]},
            {"role": "assistant", "content": "I call", "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1.1}"}},
            ]},
            {"role": "tool", "tool_call_id": "c1", "content": "one"},
            {"role": "tool", "tool_call_id": "c2", "content": "two"},
            {"role": "tool", "tool_call_id": "c3", "content": ""},
            {"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": "https://x.y/r.png"}},
                {"type": "text", "text": "go on"},
            ]},
            {"role": "assistant", "content": "so"},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": false,
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "strict": true, "schema": {"type": "object"}}},
    });
    assert_eq!(out, expected);
}

#[tokio::test]
async fn a_compatible_server_is_told_the_limit_by_its_older_name() {
    let body =
        json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
    let request = a::request_from_json(body.to_string()).expect("valid");
    let codec = OpenAi::ollama().build().expect("valid");
    assert_eq!(json(&sent(&codec, &request).await), body);
}

#[test]
fn what_only_anthropic_has_is_left_to_a_target_of_its_kind() {
    let refused = |name: &str, value: Value| {
        let mut body = json!({"model": "m", "max_tokens": 1, "messages": []});
        body[name] = value;
        let request = a::request_from_json(body.to_string()).expect("valid");
        openai().encode(&request).expect_err("refused").kind()
    };
    let tools = json!([{"type": "web_search_20250305", "name": "web_search", "max_uses": 5}]);
    assert_eq!(refused("tools", tools), ErrorKind::Unsupported);
    let blocks = json!([{"role": "user", "content": [{"type": "search_result", "source": "s"}, {"type": "text", "text": "x"}]}]);
    assert_eq!(refused("messages", blocks), ErrorKind::Unsupported);
}

#[tokio::test]
async fn an_anthropic_request_that_a_layer_edited_still_goes_to_anthropic() {
    let body = json!({
        "model": "m", "max_tokens": 9, "top_k": 5, "thinking": {"type": "enabled", "budget_tokens": 1024},
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "text", "text": "a"},
                {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}},
            ]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "one"}]}]},
        ],
        "tools": [
            {"type": "web_search_20250305", "name": "web_search", "max_uses": 5},
            {"name": "f", "input_schema": {"type": "object"}},
        ],
    });
    let mut request = a::request_from_json(body.to_string()).expect("valid");
    request.edit_chat().expect("a chat").temperature = Some(0.5);
    let mut expected = body;
    expected["temperature"] = json!(0.5);
    assert_eq!(json(&sent(&anthropic(), &request).await), expected);
}

#[test]
fn a_bad_anthropic_request_names_the_field() {
    for (body, field) in [
        (r#"{"max_tokens":1,"messages":[]}"#, Some("model")),
        (r#"{"model":1,"messages":[]}"#, Some("model")),
        (r#"{"model":"m"}"#, Some("messages")),
        (
            r#"{"model":"m","messages":[{"role":"user"}]}"#,
            Some("messages[0].content"),
        ),
        (
            r#"{"model":"m","messages":[{"role":"robot","content":"x"}]}"#,
            Some("messages[0].role"),
        ),
        (
            r#"{"model":"m","messages":[{"role":"user","content":3}]}"#,
            Some("messages[0].content"),
        ),
        (
            r#"{"model":"m","messages":[{"role":"user","content":[{"text":"x"}]}]}"#,
            Some("messages[0].content"),
        ),
        (
            r#"{"model":"m","messages":[],"max_tokens":"many"}"#,
            Some("max_tokens"),
        ),
        (
            r#"{"model":"m","messages":[],"tools":[{"description":"x"}]}"#,
            Some("tools[0]"),
        ),
        (
            r#"{"model":"m","messages":[],"tool_choice":{"type":"tool"}}"#,
            Some("tool_choice.name"),
        ),
        (r#"{"model":"m","messages":["#, None),
        ("[]", None),
    ] {
        let error = a::request_from_json(body).expect_err(body);
        assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{body}");
        assert_eq!(error.field(), field, "{body}: {error}");
    }
}

#[tokio::test]
async fn signed_reasoning_comes_back_to_anthropic_through_a_client_of_openai() {
    let body = r#"{"id":"m","content":[{"type":"thinking","thinking":"hm","signature":"s"},{"type":"redacted_thinking","data":"d"},
        {"type":"tool_use","id":"c1","name":"f","input":{}}],"stop_reason":"tool_use"}"#;
    let completion = a::completion_from_json(body.into()).expect("an answer");
    let message = &json(&o::completion_to_json(&completion))["choices"][0]["message"];
    let body = json!({"model": "m", "something_new": 1, "messages": [
        {"role": "user", "content": "q"}, message, {"role": "tool", "tool_call_id": "c1", "content": "r"},
    ]});
    let out = to_anthropic(body.clone()).await;
    assert_eq!(
        out["messages"][1]["content"],
        json!([
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "redacted_thinking", "data": "d"},
            {"type": "tool_use", "id": "c1", "name": "f", "input": {}},
        ])
    );
    // OpenAI would refuse it; a compatible server may be a gateway to Anthropic.
    let request = LlmRequest::from_openai_chat(body.to_string()).expect("valid");
    let out = json(&sent(&openai(), &request).await);
    assert_eq!(out["something_new"], 1);
    let message = out["messages"][1].as_object().expect("a message");
    let names: Vec<_> = message.keys().collect();
    assert_eq!(names, ["role", "tool_calls"]);
    let compatible = OpenAi::compatible("http://x.y/v1").build().expect("valid");
    assert_eq!(json(&sent(&compatible, &request).await), body);
}

#[test]
fn a_request_made_in_rust_goes_out_in_both() {
    let mut request = ask();
    let mut function = Function::new("f");
    function.description = Some("d".into());
    request.edit_chat().expect("a chat").tools = [Tool::function(function)].into();
    for codec in [&openai() as &dyn Encode, &anthropic()] {
        assert_eq!(codec.body(&request)["model"], "asked");
    }
    assert!(Extra::new().is_empty());
}

trait Encode {
    fn body(&self, request: &LlmRequest) -> Value;
}

impl<C: Codec> Encode for C {
    fn body(&self, request: &LlmRequest) -> Value {
        use futures_util::FutureExt;
        json(&sent(self, request).now_or_never().expect("in memory"))
    }
}

proptest! {
    #[test]
    fn no_request_panics(body in any_json(), messages in any_json(), text in any::<String>()) {
        let mut filled = json!({"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": messages.clone()}, messages]});
        if let (Value::Object(filled), Value::Object(body)) = (&mut filled, &body) {
            filled.extend(body.clone());
        }
        for json in [text, body.to_string(), filled.to_string()] {
            for request in [a::request_from_json(json.clone()), LlmRequest::from_openai_chat(json)].into_iter().flatten() {
                let mut edited = request.clone();
                edited.edit_chat();
                for request in [request, edited] {
                    let _ = (openai().encode(&request), anthropic().encode(&request));
                }
            }
        }
    }
}
