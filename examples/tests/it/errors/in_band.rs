//! Failures after the first token, which can only be told in the stream.

use donjon_testkit::upstream::{Failure, Script};
use serde_json::Value;

use super::{WAYS, ask};
use crate::support::{CHAT, Gate, MESSAGES, OPENAI, always, chat, config, steady};

/// What may happen to a stream after its first token.
fn broken() -> Vec<(&'static str, Script)> {
    let words = || Script::words(9);
    vec![
        ("cut between events", words().cut_after(3)),
        ("cut inside of an event", words().cut_inside_event(3)),
        ("cut inside of a chunk", words().cut_inside_chunk(3)),
        ("reset", words().reset_after(3)),
        (
            "an error event",
            words().error_event_at(3, Failure::overloaded()),
        ),
        (
            "no finish reason",
            Script::words(3).no_finish_reason().no_done(),
        ),
        ("silence", words().stall_after(3, None)),
    ]
}

#[tokio::test]
async fn after_the_first_token_a_failure_is_told_in_the_stream() {
    for (path, kind) in WAYS {
        for (what, script) in broken() {
            let first = always(script).await;
            let second = steady().await;
            let targets = [(kind, &first), (kind, &second)];
            let gate = Gate::open(&config(&targets, 3, "[timeout]\nidle = \"200ms\"")).await;
            let answer = gate.post(path, ask(path, true)).await;
            let what = format!("{path} {kind} {what}: {}", answer.text());
            let mut events = answer.events();
            let last = events.pop().expect("an event");
            let error = last.json()["error"].clone();
            assert!(
                error["message"].is_string() && error["type"].is_string(),
                "{what}"
            );
            if path == MESSAGES {
                assert_eq!(last.name.as_deref(), Some("error"), "{what}");
                assert_eq!(last.json()["type"], "error", "{what}");
                let names: Vec<_> = events.iter().filter_map(|e| e.name.as_deref()).collect();
                assert!(!names.contains(&"error"), "{what}");
                assert!(!names.contains(&"message_stop"), "{what}");
            } else {
                assert_eq!(last.name, None, "{what}");
                assert!(error["code"].is_string(), "{what}");
                assert!(!answer.text().contains("[DONE]"), "{what}");
                assert!(!answer.text().contains(r#""finish_reason":""#), "{what}");
            }
            let shown: String = events
                .iter()
                .map(|event| match event.json() {
                    Value::Object(json) => {
                        let text = match path {
                            MESSAGES => json.get("delta").map(|delta| delta["text"].clone()),
                            _ => json
                                .get("choices")
                                .map(|c| c[0]["delta"]["content"].clone()),
                        };
                        let text = text.as_ref().and_then(Value::as_str);
                        text.unwrap_or_default().to_owned()
                    }
                    other => panic!("{other}"),
                })
                .collect();
            assert_eq!(shown, "w0 w1 w2 ", "{what}");
            // Nobody is asked again for what was shown already.
            assert_eq!((first.count(), second.count()), (1, 0), "{what}");
        }
    }
}

#[tokio::test]
async fn the_error_in_the_stream_says_what_happened() {
    let cases = [
        (Script::words(5).stall_after(2, None), "idle_timeout"),
        (
            Script::words(5).error_event_at(2, Failure::rate_limited()),
            "rate_limit_exceeded",
        ),
        (Script::words(5).no_finish_reason(), "incomplete_response"),
        (Script::words(5).cut_after(2), "stream_broken"),
    ];
    for (script, code) in cases {
        let only = always(script).await;
        let config = config(&[(OPENAI, &only)], 1, "[timeout]\nidle = \"200ms\"");
        let gate = Gate::open(&config).await;
        let answer = gate.post(CHAT, chat(true)).await;
        let last = answer.events().pop().expect("an event").json();
        assert_eq!(last["error"]["code"], code, "{last}");
    }
}
