//! An Anthropic client before Anthropic: what is passed on as it came.

use donjon_testkit::upstream::Script;
use serde_json::{Value, json};

use super::conversation;
use crate::{
    client::two_calls,
    message::message_of,
    support::{ANTHROPIC, Gate, MESSAGES, always, config, messages, upstream},
};

/// What only Anthropic knows, with text that a reader and a writer of JSON would not give back.
const ODD: &str = r#"{"z": 1.10,"a":"\u00e9\/", "n":12345678901234567890123, "o":{"b":null}}"#;

#[tokio::test]
async fn what_only_anthropic_knows_goes_up_as_it_came() {
    let only = upstream::<Script>([]).await;
    let gate = Gate::before_one(ANTHROPIC, &only).await;
    let request = |stream: bool| {
        format!(
            r#"{{"model":"claude-sonnet-4-5","max_tokens":2000,"stream":{stream},"x_odd":{ODD},"thinking":{{"type":"enabled","budget_tokens":1024}},"metadata":{{"user_id":"u-1"}},"system":[{{"type":"text","text":"Be brief.","cache_control":{{"type":"ephemeral","ttl":"1h"}}}}],"tools":[{{"type":"web_search_20250305","name":"web_search","max_uses":3}},{{"name":"f","input_schema":{ODD},"cache_control":{{"type":"ephemeral"}}}}],"messages":[{{"role":"user","content":[{{"type":"text","text":"hi","cache_control":{{"type":"ephemeral"}}}}]}},{{"role":"assistant","content":[{{"type":"thinking","thinking":"Hm.","signature":"EqQBCg=="}},{{"type":"redacted_thinking","data":"Zm9v"}},{{"type":"server_tool_use","id":"s1","name":"web_search","input":{ODD}}},{{"type":"text","text":"Hello.","citations":[{ODD}]}}]}},{{"role":"user","content":"go on"}}]}}"#
        )
    };
    for stream in [false, true] {
        let answer = gate.post(MESSAGES, request(stream)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let calls = only.calls();
        let sent = &calls.last().expect("a call").request.body;
        assert_eq!(std::str::from_utf8(sent).expect("text"), request(stream));
    }

    // With another model, that alone is changed.
    let only = upstream::<Script>([]).await;
    let config = config(&[(ANTHROPIC, &only)], 1, "")
        .replace("\"t0\" }", "\"t0\", model = \"claude-opus-4-1\" }");
    let gate = Gate::open(&config).await;
    gate.post(MESSAGES, request(true)).await;
    let sent = &only.calls()[0].request.body;
    let expected = request(true).replace("claude-sonnet-4-5", "claude-opus-4-1");
    assert_eq!(std::str::from_utf8(sent).expect("text"), expected);
}

#[tokio::test]
async fn what_only_anthropic_knows_comes_down_as_it_came() {
    let whole = format!(
        r#"{{"id":"msg_1","type":"message","role":"assistant","model":"claude-x","x_first": {ODD},"content":[{{"type":"thinking","thinking":"Hm.","signature":"EqQBCg=="}},{{"type":"web_search_tool_result","tool_use_id":"s1","content":[{ODD}]}},{{"type":"text","text":"hi","citations":[{ODD}]}}],"stop_reason":"end_turn","stop_sequence":null,"usage":{{"input_tokens":3,"output_tokens":2,"service_tier":"standard","x_odd":{ODD}}}}}"#
    );
    let only = upstream([Script::raw(200, "application/json", whole.clone())]).await;
    let gate = Gate::before_one(ANTHROPIC, &only).await;
    let answer = gate.post(MESSAGES, messages(false)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.text(), whole);

    // A signature and a block of a kind that nobody knows, streamed and whole.
    let script = Script::answer("Hello.")
        .reasoning("Hm. Well. ")
        .unknown_delta();
    let only = always(script).await;
    let gate = Gate::before_one(ANTHROPIC, &only).await;
    let streamed = message_of(&gate.post(MESSAGES, messages(true)).await);
    let whole = gate.post(MESSAGES, messages(false)).await.json();
    assert_eq!(streamed["content"], whole["content"]);
    assert_eq!(streamed["usage"], whole["usage"]);
    let blocks = whole["content"].as_array().expect("blocks");
    let kinds: Vec<_> = blocks
        .iter()
        .filter_map(|block| block["type"].as_str())
        .collect();
    assert_eq!(kinds, ["thinking", "hologram", "text"], "{whole}");
    assert!(
        blocks[0]["signature"]
            .as_str()
            .is_some_and(|s| !s.is_empty()),
        "{whole}"
    );
    assert_eq!(blocks[1]["frames"], 3, "{whole}");
    assert_eq!(whole["usage"]["service_tier"], "standard", "{whole}");
}

#[tokio::test]
async fn tools_between_anthropic_and_anthropic() {
    let only = always(two_calls()).await;
    let gate = Gate::before_one(ANTHROPIC, &only).await;
    for stream in [false, true] {
        let answer = gate.post(MESSAGES, conversation(stream)).await;
        let message = match stream {
            true => message_of(&answer),
            false => answer.json(),
        };
        let blocks = message["content"].as_array().expect("blocks");
        let inputs: Vec<_> = blocks.iter().map(|block| &block["input"]).collect();
        let cities = [json!({"city": "Vincennes"}), json!({"city": "Loches"})];
        assert_eq!(inputs, cities.iter().collect::<Vec<_>>(), "{message}");
        assert_eq!(message["stop_reason"], "tool_use");
    }
    let sent = &only.calls()[0].request.json;
    let expected: Value = serde_json::from_str(&conversation(false)).expect("JSON");
    assert_eq!(*sent, expected);
}
