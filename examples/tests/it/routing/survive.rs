//! Streams that break go on, and calls that are slow are asked for twice, as the route says.

use donjon_testkit::upstream::{Failure, Script};
use serde_json::Value;

use super::{NO_BREAKER, routed};
use crate::support::{
    ANTHROPIC, Answer, CHAT, Gate, MESSAGES, OPENAI, always, chat, messages, seen, steady,
};

const RESUME: &str = "[routes.resume]\nmost = 2";

fn words(n: usize) -> String {
    (0..n).map(|n| format!("w{n} ")).collect()
}

/// The text of a whole stream in the words of OpenAI, which begins once and ends once.
fn text_of(answer: &Answer) -> String {
    let chunks = answer.chunks();
    let choices: Vec<_> = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"].get(0))
        .collect();
    let count = |key: fn(&Value) -> bool| choices.iter().filter(|choice| key(choice)).count();
    assert_eq!(count(|choice| choice["delta"]["role"].is_string()), 1);
    assert_eq!(count(|choice| choice["finish_reason"].is_string()), 1);
    let texts = choices
        .iter()
        .filter_map(|c| c["delta"]["content"].as_str());
    texts.collect()
}

#[tokio::test]
async fn a_stream_that_is_cut_goes_on_at_the_next_target_in_both_dialects() {
    for (kind, keys) in [
        (OPENAI, ""),
        (ANTHROPIC, ""),
        (ANTHROPIC, "continues = true"),
    ] {
        let broken = always(Script::words(60).cut_after(40)).await;
        let rest = (40..60).map(|n| format!("w{n} "));
        let next = match keys.is_empty() {
            true => always(Script::words(60)).await,
            false => always(Script::tokens(rest)).await,
        };
        let targets = [(OPENAI, &broken, ""), (kind, &next, keys)];
        let gate = Gate::open(&routed(&targets, RESUME, NO_BREAKER)).await;
        let answer = gate.post(CHAT, chat(true)).await;
        assert_eq!(text_of(&answer), words(60));
        assert_eq!((broken.count(), next.count()), (1, 1));
        if !keys.is_empty() {
            // It was given the answer as far as it was shown, without the space at the end.
            let asked = &next.calls()[0].request.json["messages"];
            let last = asked.as_array().and_then(|all| all.last()).expect("some");
            assert_eq!(last["role"], "assistant");
            assert!(last.to_string().contains(words(40).trim_end()), "{last}");
        }
        let answer = gate.post(MESSAGES, messages(true)).await;
        let events = answer.events();
        let named = |name: &str| {
            let named = events.iter().filter(|e| e.name.as_deref() == Some(name));
            named.count()
        };
        assert_eq!((named("message_start"), named("message_stop")), (1, 1));
        assert_eq!((named("message_delta"), named("error")), (1, 0));
        let texts = events.iter().filter(|e| e.data.starts_with('{'));
        let texts = texts.map(|e| e.json()["delta"]["text"].as_str().map(String::from));
        assert_eq!(texts.flatten().collect::<String>(), words(60));
    }
}

#[tokio::test]
async fn a_stream_that_nobody_continues_tells_the_first_failure() {
    let broken = always(Script::words(60).cut_after(40)).await;
    let other = always(Script::answer("Something else altogether.")).await;
    let down = always(Failure::server_error()).await;
    for next in [&other, &down] {
        let targets = [(OPENAI, &broken, ""), (OPENAI, next, "")];
        let gate = Gate::open(&routed(&targets, RESUME, NO_BREAKER)).await;
        let answer = gate.post(CHAT, chat(true)).await;
        assert!(answer.text().contains("w39 "), "{}", answer.text());
        assert!(!answer.text().contains("Something"), "{}", answer.text());
        assert!(!answer.text().contains("[DONE]"), "{}", answer.text());
        let events = answer.events();
        let last = events.last().expect("an error").json();
        let message = last["error"]["message"].as_str().expect("in words");
        assert!(message.contains("not resumed"), "{message}");
    }
    assert_eq!((other.count(), down.count()), (1, 1));
}

#[tokio::test]
async fn a_call_that_is_slow_is_asked_for_at_another_target() {
    let slow = always(Script::hang()).await;
    let quick = steady().await;
    let targets = [(OPENAI, &slow, ""), (OPENAI, &quick, "")];
    let hedge = "[routes.hedge]\ndelay = \"20ms\"\nbudget = 1.0";
    let gate = Gate::open(&routed(&targets, hedge, NO_BREAKER)).await;
    for streamed in [false, true] {
        let answer = gate.post(CHAT, chat(streamed)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.text().contains("served"));
        assert_eq!(answer.header("x-donjon-target"), Some("t1"));
    }
    // Whoever lost is let go of.
    seen(&slow, |seen| seen.cancelled() == 2).await;
    assert_eq!((slow.count(), quick.count()), (2, 2));
    let report = gate.get("/health").await.json();
    let layers = report["layers"].as_array().expect("layers");
    assert!(layers.iter().any(|layer| layer["layer"] == "hedge"));
}
