//! Gemini and Ollama behind the gateway.

use donjon_testkit::upstream::{Failure, Script};
use serde_json::json;

use super::{GEMINI, NO_BREAKER, OLLAMA, ask, needs, routed};
use crate::support::{Gate, MESSAGES, OPENAI, always, chat, messages, steady, text_of, upstream};

const EMBEDDINGS: &str = "/v1/embeddings";

#[tokio::test]
async fn gemini_and_ollama_answer_in_both_dialects() {
    for kind in [GEMINI, OLLAMA] {
        let only = always(Script::answer("one two three")).await;
        let gate = Gate::open(&routed(&[(kind, &only, "")], "", "")).await;
        let whole = ask(&gate, &chat(false)).await.json();
        let text = &whole["choices"][0]["message"]["content"];
        assert_eq!(text, "one two three", "{kind}");
        assert_eq!(whole["usage"]["completion_tokens"], 3, "{kind}");
        let stream = ask(&gate, &chat(true)).await;
        assert_eq!(text_of(&stream.chunks(), 0), "one two three", "{kind}");

        let whole = gate.post(MESSAGES, messages(false)).await.json();
        assert_eq!(
            whole["content"][0]["text"], "one two three",
            "{kind}: {whole}"
        );
        assert_eq!(whole["stop_reason"], "end_turn");
        let stream = gate.post(MESSAGES, messages(true)).await;
        let events = stream.events();
        let said: String = events
            .iter()
            .filter_map(|event| event.json()["delta"]["text"].as_str().map(String::from))
            .collect();
        assert_eq!(said, "one two three", "{kind}");
        let last = events.last().expect("an event");
        assert_eq!(last.name.as_deref(), Some("message_stop"));
        assert_eq!(only.count(), 4);
    }
}

#[tokio::test]
async fn gemini_and_ollama_call_tools_and_fail_over_like_any_other() {
    for kind in [GEMINI, OLLAMA] {
        let script = Script::empty_answer().tool_call("now", r#"{"zone":"UTC"}"#);
        let first = upstream([
            Script::fail(Failure::overloaded()),
            Script::words(4).cut_after(0),
        ])
        .await;
        let second = always(script).await;
        let targets = [(kind, &first, ""), (kind, &second, "")];
        let gate = Gate::open(&routed(&targets, "", NO_BREAKER)).await;
        let answer = ask(&gate, &needs("tools").to_string()).await;
        assert_eq!(answer.header("x-donjon-target"), Some("t1"), "{kind}");
        let body = answer.json();
        let call = &body["choices"][0]["message"]["tool_calls"][0]["function"];
        assert_eq!(call["name"], "now", "{kind}: {body}");
        let streamed = ask(&gate, &chat(true)).await;
        assert_eq!(streamed.header("x-donjon-target"), Some("t1"), "{kind}");
        assert_eq!((first.count(), second.count()), (2, 2));
    }
}

#[tokio::test]
async fn embeddings_come_from_ollama_and_are_balanced_as_chats_are() {
    let (first, second) = (steady().await, steady().await);
    let targets = [(OLLAMA, &first, ""), (OPENAI, &second, "")];
    let gate = Gate::open(&routed(&targets, "strategy = \"round-robin\"", "")).await;
    let body = r#"{"model":"e-1","input":["a","keep"]}"#;
    for _ in 0..4 {
        let answer = gate.post(EMBEDDINGS, body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let got = answer.json();
        assert_eq!(got["data"][1]["embedding"], json!([4.0, 1.0]));
        assert_eq!(got["usage"]["prompt_tokens"], 12);
    }
    assert_eq!((first.count(), second.count()), (2, 2));
    assert_eq!(first.calls()[0].request.path, "/api/embed");
}
