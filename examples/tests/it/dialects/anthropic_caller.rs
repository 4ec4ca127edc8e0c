//! An Anthropic client before OpenAI.

use donjon_testkit::upstream::{Script, Usage};
use serde_json::{Value, json};

use super::conversation;
use crate::{
    message::message_of,
    support::{ANTHROPIC, Gate, MESSAGES, OPENAI, always, messages},
};

#[tokio::test]
async fn an_anthropic_client_before_openai() {
    let usage = Usage::new(20, 7).cached(5, 0);
    let only = always(Script::words(4).usage(usage).model("gpt-x")).await;
    let gate = Gate::before_one(OPENAI, &only).await;
    let expected = json!([{"type": "text", "text": "w0 w1 w2 w3 "}]);
    for stream in [false, true] {
        let answer = gate.post(MESSAGES, conversation(stream)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let message = match stream {
            true => message_of(&answer),
            false => answer.json(),
        };
        assert_eq!(message["type"], "message", "{message}");
        assert_eq!(message["role"], "assistant", "{message}");
        assert_eq!(message["model"], "gpt-x", "{message}");
        assert!(message["id"].is_string(), "{message}");
        assert_eq!(message["content"], expected, "{message}");
        assert_eq!(message["stop_reason"], "end_turn", "{message}");
        // Anthropic counts what was read from the cache apart.
        let usage = &message["usage"];
        assert_eq!(usage["output_tokens"], 7, "{message}");
        assert_eq!(usage["input_tokens"], 15, "{message}");
        assert_eq!(usage["cache_read_input_tokens"], 5, "{message}");
    }
    for call in only.calls() {
        let sent = &call.request.json;
        assert_eq!(
            call.request.header("authorization"),
            Some("Bearer sk-upstream")
        );
        let limit = [&sent["max_tokens"], &sent["max_completion_tokens"]];
        assert!(limit.contains(&&json!(77)), "{sent}");
        assert_eq!(sent["temperature"], 0.5);
        assert_eq!(sent["stop"], json!(["END"]), "{sent}");
        assert_eq!(sent["tool_choice"], "required", "{sent}");
        let function = &sent["tools"][0]["function"];
        assert_eq!(sent["tools"][0]["type"], "function", "{sent}");
        assert_eq!(function["name"], "weather", "{sent}");
        assert_eq!(function["parameters"]["type"], "object", "{sent}");
        let turns = sent["messages"].as_array().expect("messages");
        let roles: Vec<_> = turns
            .iter()
            .filter_map(|turn| turn["role"].as_str())
            .collect();
        assert_eq!(
            roles,
            ["system", "user", "assistant", "tool", "user"],
            "{sent}"
        );
        let call = &turns[2]["tool_calls"][0];
        assert_eq!(call["id"], "c1", "{sent}");
        assert_eq!(
            call["function"]["arguments"], r#"{"city":"Loches"}"#,
            "{sent}"
        );
        assert_eq!(turns[3]["tool_call_id"], "c1", "{sent}");
        assert_eq!(turns[3]["content"], "It pours.", "{sent}");
        // What only Anthropic knows would be refused elsewhere.
        assert!(!sent.to_string().contains("cache_control"), "{sent}");
    }
    assert_eq!(only.count(), 2);
}

#[tokio::test]
async fn tools_and_thinking_for_an_anthropic_client_before_openai() {
    let script = Script::words(2)
        .reasoning("Let me see. ")
        .tool_call("weather", r#"{"city":"Vincennes"}"#)
        .tool_call("now", "");
    let only = always(script).await;
    let gate = Gate::before_one(OPENAI, &only).await;
    for stream in [false, true] {
        let answer = gate.post(MESSAGES, conversation(stream)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let message = match stream {
            true => message_of(&answer),
            false => answer.json(),
        };
        let blocks = message["content"].as_array().expect("blocks");
        let kinds: Vec<_> = blocks
            .iter()
            .filter_map(|block| block["type"].as_str())
            .collect();
        assert_eq!(
            kinds,
            ["thinking", "text", "tool_use", "tool_use"],
            "{message}"
        );
        assert_eq!(blocks[0]["thinking"], "Let me see. ", "{message}");
        assert_eq!(blocks[1]["text"], "w0 w1 ", "{message}");
        assert_eq!(blocks[2]["name"], "weather", "{message}");
        assert_eq!(blocks[2]["id"], "call_0", "{message}");
        assert_eq!(
            blocks[2]["input"],
            json!({"city": "Vincennes"}),
            "{message}"
        );
        assert_eq!(blocks[3]["name"], "now", "{message}");
        assert_eq!(blocks[3]["input"], json!({}), "{message}");
        assert_eq!(message["stop_reason"], "tool_use", "{message}");
    }
}

#[tokio::test]
async fn why_an_answer_ended_in_anthropics_words() {
    for (script, kind, reason) in [
        (Script::words(2).finish("length"), OPENAI, "max_tokens"),
        (Script::empty_answer(), OPENAI, "end_turn"),
        (Script::words(2).content_filter(), OPENAI, "refusal"),
        (Script::words(2).finish("length"), ANTHROPIC, "max_tokens"),
        (Script::empty_answer(), ANTHROPIC, "end_turn"),
        (
            Script::words(2).finish("pause_turn"),
            ANTHROPIC,
            "pause_turn",
        ),
    ] {
        let only = always(script).await;
        let gate = Gate::before_one(kind, &only).await;
        let answer = gate.post(MESSAGES, messages(true)).await;
        assert_eq!(message_of(&answer)["stop_reason"], reason, "{kind}");
        let answer = gate.post(MESSAGES, messages(false)).await;
        assert_eq!(answer.json()["stop_reason"], reason, "{kind}");
    }
}

#[tokio::test]
async fn images_and_schemas_in_openais_words() {
    let only = always(Script::answer("{}")).await;
    let gate = Gate::before_one(OPENAI, &only).await;
    let mut body: Value = serde_json::from_str(&messages(false)).expect("JSON");
    let base64 = json!({"type": "base64", "media_type": "image/png", "data": "aGk="});
    body["messages"][0]["content"] = json!([
        {"type": "text", "text": "What is this?"},
        {"type": "image", "source": base64},
        {"type": "image", "source": {"type": "url", "url": "https://h.example/a.png"}},
    ]);
    let schema = json!({"type": "object", "properties": {}, "additionalProperties": false});
    body["output_config"] = json!({"format": {"type": "json_schema", "schema": schema}});
    let answer = gate.post(MESSAGES, body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let sent = &only.calls()[0].request.json;
    let parts = &sent["messages"][0]["content"];
    assert_eq!(
        parts[0],
        json!({"type": "text", "text": "What is this?"}),
        "{sent}"
    );
    assert_eq!(
        parts[1]["image_url"]["url"], "data:image/png;base64,aGk=",
        "{sent}"
    );
    assert_eq!(
        parts[2]["image_url"]["url"], "https://h.example/a.png",
        "{sent}"
    );
    assert_eq!(
        sent["response_format"]["json_schema"]["schema"], schema,
        "{sent}"
    );
}
