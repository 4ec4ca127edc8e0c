//! A reader of Anthropic's streams that takes nothing but what the API promises
//! (<https://docs.anthropic.com/en/docs/build-with-claude/streaming>).

use serde_json::{Value, json};

use crate::support::Answer;

/// The message that the events of a stream add up to, in the form of a whole answer.
///
/// # Panics
///
/// Where the stream is not well formed: anything but one `message_start` first, blocks that are
/// numbered from 0, opened, filled and closed one after the other, one `message_delta` with a stop
/// reason and usage, and one `message_stop` at the end.
pub(crate) fn message_of(answer: &Answer) -> Value {
    let events = answer.events();
    let what = answer.text();
    let mut message = Value::Null;
    let mut blocks = Vec::<Value>::new();
    let mut open = false;
    let mut arguments = String::new();
    let mut stopped = false;
    for event in &events {
        let json = event.json();
        let kind = json["type"].as_str().expect("a type");
        assert_eq!(event.name.as_deref(), Some(kind), "{what}");
        assert!(!stopped, "something after the end: {what}");
        assert_eq!(message.is_null(), kind == "message_start", "{what}");
        match kind {
            "message_start" => {
                message = json["message"].clone();
                assert_eq!(message["type"], "message", "{what}");
                assert_eq!(message["role"], "assistant", "{what}");
                assert_eq!(message["content"], json!([]), "{what}");
                assert!(message["stop_reason"].is_null(), "{what}");
                assert!(message["usage"]["input_tokens"].is_u64(), "{what}");
                assert!(
                    message["id"].is_string() && message["model"].is_string(),
                    "{what}"
                );
            }
            "ping" => {}
            "content_block_start" => {
                assert!(!open, "{what}");
                assert!(message["stop_reason"].is_null(), "{what}");
                assert_eq!(json["index"], blocks.len(), "{what}");
                blocks.push(json["content_block"].clone());
                open = true;
                arguments.clear();
            }
            "content_block_delta" => {
                assert!(open, "{what}");
                assert_eq!(json["index"], blocks.len() - 1, "{what}");
                let block = blocks.last_mut().expect("an open block");
                add(block, &json["delta"], &mut arguments);
            }
            "content_block_stop" => {
                assert!(open, "{what}");
                assert_eq!(json["index"], blocks.len() - 1, "{what}");
                open = false;
                let block = blocks.last_mut().expect("an open block");
                if block["type"] == "tool_use" && !arguments.is_empty() {
                    block["input"] = serde_json::from_str(&arguments).expect("arguments");
                }
            }
            "message_delta" => {
                assert!(!open, "{what}");
                assert!(message["stop_reason"].is_null(), "more than one: {what}");
                assert!(json["delta"]["stop_reason"].is_string(), "{what}");
                assert!(json["usage"]["output_tokens"].is_u64(), "{what}");
                for part in ["delta", "usage"] {
                    let into = match part {
                        "usage" => &mut message["usage"],
                        _ => &mut message,
                    };
                    for (name, value) in json[part].as_object().expect("an object") {
                        into[name] = value.clone();
                    }
                }
            }
            "message_stop" => {
                assert!(message["stop_reason"].is_string(), "{what}");
                stopped = true;
            }
            other => panic!("what is {other}? {what}"),
        }
    }
    assert!(stopped, "cut short: {what}");
    message["content"] = blocks.into();
    message
}

fn add(block: &mut Value, delta: &Value, arguments: &mut String) {
    let kind = block["type"].as_str().expect("a type").to_owned();
    let piece = |name: &str| delta[name].as_str().expect("a piece");
    let mut push = |name: &str| {
        let text = block[name].as_str().expect("text").to_owned() + piece(name);
        block[name] = text.into();
    };
    match (&*kind, delta["type"].as_str().expect("a type")) {
        ("text", "text_delta") => push("text"),
        ("thinking", "thinking_delta") => push("thinking"),
        ("thinking", "signature_delta") => push("signature"),
        ("tool_use", "input_json_delta") => arguments.push_str(piece("partial_json")),
        ("hologram", "hologram_delta") => block["frames"] = delta["frames"].clone(),
        (block, delta) => panic!("{delta} in {block}"),
    }
}
