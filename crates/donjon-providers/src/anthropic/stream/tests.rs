//! What the events of a stream come to.

use donjon_core::{ErrorKind, FinishReason};
use proptest::prelude::*;

use super::*;

fn chunk(decoder: &mut AnthropicDecoder, data: &str) -> Chunk {
    match decoder.decode(data.into()) {
        Ok(Step::Chunk(chunk)) => {
            assert_eq!(
                chunk.wire(Dialect::Anthropic).expect("as it came"),
                data.as_bytes()
            );
            chunk
        }
        other => panic!("{data}: {other:?}"),
    }
}

#[test]
fn tool_calls_are_numbered_apart_from_blocks() {
    let mut decoder = AnthropicDecoder::new();
    let mut call = |data: &str| {
        chunk(&mut decoder, data)
            .choices
            .first()
            .map(|c| c.tool_calls[0].clone())
    };
    let begin = |index: u32, id: &str| {
        format!(
            r#"{{"type":"content_block_start","index":{index},"content_block":{{"type":"tool_use","id":"{id}","name":"f","input":{{}}}}}}"#
        )
    };
    let first = call(&begin(3, "a")).expect("a call");
    assert_eq!(
        (
            first.index,
            first.id.as_deref(),
            first.name(),
            first.arguments()
        ),
        (Some(0), Some("a"), Some("f"), "")
    );
    assert!(call(r#"{"type":"content_block_delta","index":3,"delta":{"type":"input_json_delta","partial_json":""}}"#).is_none());
    let none = call(r#"{"type":"content_block_stop","index":3}"#).expect("the arguments");
    assert_eq!((none.index, none.arguments()), (Some(0), "{}"));
    assert_eq!(call(&begin(5, "b")).expect("a call").index, Some(1));
    let piece = call(
        r#"{"type":"content_block_delta","index":5,"delta":{"type":"input_json_delta","partial_json":"{\"x\""}}"#,
    );
    assert_eq!(piece.expect("a piece").arguments(), "{\"x\"");
    assert!(call(r#"{"type":"content_block_stop","index":5}"#).is_none());
}

#[test]
fn usage_adds_up_over_events() {
    let mut decoder = AnthropicDecoder::new();
    let start = chunk(
        &mut decoder,
        r#"{"type":"message_start","message":{"id":"i","model":"m","usage":{"input_tokens":5,"cache_read_input_tokens":2,"output_tokens":1}}}"#,
    );
    assert_eq!(start.usage.map(|u| (u.input, u.output)), Some((7, 1)));
    assert!(!start.shows(true));
    let end = chunk(
        &mut decoder,
        r#"{"type":"message_delta","delta":{"stop_reason":"refusal"},"usage":{"output_tokens":9}}"#,
    );
    assert_eq!(
        end.usage.map(|u| (u.input, u.cache_read, u.output)),
        Some((7, 2, 9))
    );
    assert_eq!(
        end.choices[0].finish_reason,
        Some(FinishReason::ContentFilter)
    );
    assert_eq!(end.id.as_deref(), Some("i"));
    assert!(matches!(
        decoder.decode(r#"{"type":"message_stop"}"#.into()),
        Ok(Step::Done)
    ));
}

#[test]
fn unknown_events_are_shown_and_known_ones_that_show_nothing_are_not() {
    let mut decoder = AnthropicDecoder::new();
    for known in [
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"x"}}"#,
        r#"{"type":"content_block_start","index":1,"content_block":{"type":"redacted_thinking","data":"x"}}"#,
        r#"{"type":"content_block_stop","index":0}"#,
    ] {
        assert!(!chunk(&mut decoder, known).shows(true), "{known}");
    }
    for unknown in [
        r#"{"type":"something_new","index":"no number"}"#,
        r#"{"type":"content_block_start","index":2,"content_block":{"type":"server_tool_use","id":"x"}}"#,
        r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{"}}"#,
        r#"{"type":"content_block_start","index":4,"content_block":{"type":"new","id":{"deep":1},"text":3}}"#,
        r#"{"type":"content_block_delta","index":4,"delta":{"type":"new_delta","text":3}}"#,
        r#"{"type":"content_block_delta","index":4,"delta":{"type":"input_json_delta","partial_json":"{"}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"citations_delta","citation":{}}}"#,
    ] {
        assert!(chunk(&mut decoder, unknown).unknown, "{unknown}");
    }
    for bad in [
        "{",
        "[]",
        "3",
        r#"{"type":"content_block_delta","index":0}"#,
        r#"{"type":"message_start"}"#,
    ] {
        assert!(
            matches!(decoder.decode(bad.into()), Ok(Step::Malformed)),
            "{bad}"
        );
    }
    assert!(matches!(
        decoder.decode(r#"{"type": "ping"}"#.into()),
        Ok(Step::Nothing)
    ));
}

#[test]
fn errors_in_a_stream() {
    let error = r#"{"type":"error","error":{"details":null,"type":"overloaded_error","message":"Overloaded"}}"#;
    let error = AnthropicDecoder::new()
        .decode(error.into())
        .expect_err("an error");
    assert_eq!(
        (error.kind(), error.message()),
        (ErrorKind::Overloaded, "Overloaded")
    );
}

proptest! {
    #[test]
    fn no_event_panics(data in any::<String>(), inner in any::<String>(), index in any::<u64>()) {
        let mut decoder = AnthropicDecoder::new();
        let _ = decoder.decode(data);
        let quoted = serde_json::to_string(&inner).expect("JSON");
        for kind in ["message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "error"] {
            for member in ["delta", "content_block", "message", "usage", "error"] {
                for value in [
                    quoted.clone(),
                    format!(r#"{{"type":{quoted},"text":{quoted},"usage":{{"input_tokens":{index}}}}}"#),
                ] {
                    let _ = decoder.decode(format!(r#"{{"type":"{kind}","index":{index},"{member}":{value}}}"#));
                }
            }
        }
    }
}
