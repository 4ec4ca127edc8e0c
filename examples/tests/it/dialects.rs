//! Callers of one dialect before providers of the other, and of the same.

mod anthropic_caller;
mod openai_caller;
mod passed_on;

use donjon_testkit::upstream::{Failure, Script};
use serde_json::json;

use crate::{
    message::message_of,
    support::{ANTHROPIC, CHAT, Gate, MESSAGES, OPENAI, always, chat, config, messages, text_of},
};

/// A request with everything that both dialects know.
fn conversation(stream: bool) -> String {
    json!({
        "model": "claude-sonnet-4-5",
        "max_tokens": 77,
        "stream": stream,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "temperature": 0.5,
        "stop_sequences": ["END"],
        "tools": [{
            "name": "weather",
            "description": "Tells the weather.",
            "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
            "cache_control": {"type": "ephemeral"},
        }],
        "tool_choice": {"type": "any"},
        "messages": [
            {"role": "user", "content": "Does it rain?"},
            {"role": "assistant", "content": [
                {"type": "text", "text": "Let me look."},
                {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Loches"}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "It pours."},
                {"type": "text", "text": "And there?", "cache_control": {"type": "ephemeral"}},
            ]},
        ],
    })
    .to_string()
}

/// Failover from one dialect to the other, in the middle of an attempt: one message, from one
/// provider.
#[tokio::test]
async fn failover_across_dialects_is_not_seen() {
    for (first_kind, second_kind) in [(OPENAI, ANTHROPIC), (ANTHROPIC, OPENAI)] {
        let first = always(Script::words(5).cut_after(0)).await;
        let second = always(Script::words(5).model("spare-1")).await;
        let targets = [(first_kind, &first), (second_kind, &second)];
        let gate = Gate::open(&config(&targets, 1, "")).await;

        let answer = gate.post(MESSAGES, messages(true)).await;
        let message = message_of(&answer);
        assert_eq!(message["model"], "spare-1", "{message}");
        assert_eq!(
            message["content"][0]["text"], "w0 w1 w2 w3 w4 ",
            "{message}"
        );
        assert_eq!(answer.header("x-donjon-target"), Some("t1"));

        let answer = gate.post(CHAT, chat(true)).await;
        let chunks = answer.chunks();
        assert_eq!(text_of(&chunks, 0), "w0 w1 w2 w3 w4 ");
        assert!(
            chunks.iter().all(|chunk| chunk["model"] == "spare-1"),
            "{}",
            answer.text()
        );
        assert!(chunks.iter().all(|chunk| chunk["id"] == chunks[0]["id"]));
        assert_eq!((first.count(), second.count()), (2, 2));
    }
}

#[tokio::test]
async fn errors_of_one_dialect_in_the_words_of_the_other() {
    for (failure, status, theirs, ours) in [
        (
            Failure::invalid_api_key(),
            401,
            "authentication_error",
            "invalid_api_key",
        ),
        (
            Failure::permission_denied(),
            403,
            "permission_error",
            "permission_denied",
        ),
        (
            Failure::model_not_found(),
            404,
            "not_found_error",
            "model_not_found",
        ),
        (
            Failure::context_length_exceeded(),
            400,
            "invalid_request_error",
            "context_length_exceeded",
        ),
        (
            Failure::rate_limited(),
            429,
            "rate_limit_error",
            "rate_limit_exceeded",
        ),
        (Failure::overloaded(), 503, "overloaded_error", "overloaded"),
        (
            Failure::content_policy(),
            400,
            "invalid_request_error",
            "content_policy_violation",
        ),
    ] {
        for kind in [OPENAI, ANTHROPIC] {
            let only = always(failure.clone()).await;
            let gate = Gate::before_one(kind, &only).await;
            for stream in [false, true] {
                let answer = gate.post(MESSAGES, messages(stream)).await;
                assert_eq!(answer.status, status, "{kind}: {}", answer.text());
                let json = answer.json();
                assert_eq!(json["type"], "error", "{json}");
                assert_eq!(json["error"]["type"], theirs, "{json}");
                let answer = gate.post(CHAT, chat(stream)).await;
                assert_eq!(answer.status, status, "{kind}: {}", answer.text());
                // By the code clients tell a long prompt from a wrong one, whoever said so.
                assert_eq!(
                    answer.json()["error"]["code"],
                    ours,
                    "{kind}: {}",
                    answer.text()
                );
            }
        }
    }
}
