//! Streams: what is healed before the first token, and what reaches the caller as it came.

use std::time::Duration;

use donjon_testkit::upstream::{Failure, Script};
use serde_json::Value;

use crate::support::{
    Answer, CHAT, Caller, Gate, OPENAI, always, chat, config, seen, steady, text_of, upstream,
};

/// One id, one role chunk and one finish reason, whoever served.
pub(crate) fn assert_one_answer(answer: &Answer) -> Vec<Value> {
    let chunks = answer.chunks();
    let what = answer.text();
    assert!(
        chunks.iter().all(|chunk| chunk["id"] == chunks[0]["id"]),
        "{what}"
    );
    assert!(
        chunks
            .iter()
            .all(|chunk| chunk["model"] == chunks[0]["model"]),
        "{what}"
    );
    let first = |chunk: &Value, member: &str| chunk["choices"][0][member].clone();
    let roles = chunks
        .iter()
        .filter(|chunk| !first(chunk, "delta")["role"].is_null());
    assert_eq!(roles.count(), 1, "{what}");
    let ends = chunks
        .iter()
        .filter(|chunk| !first(chunk, "finish_reason").is_null());
    assert_eq!(ends.count(), 1, "{what}");
    assert_eq!(what.matches("[DONE]").count(), 1, "{what}");
    chunks
}

#[tokio::test]
async fn what_goes_wrong_before_the_first_token_is_not_seen() {
    let faults = [
        ("503", Script::from(Failure::service_unavailable())),
        ("reset before the head", Script::reset()),
        ("closed before the head", Script::close()),
        ("cut after the role", Script::words(5).cut_after(0)),
        (
            "cut inside of the first token",
            Script::words(5).cut_inside_event(0),
        ),
        ("reset after the role", Script::words(5).reset_after(0)),
        (
            "an error event first",
            Script::error_event(Failure::overloaded()),
        ),
        (
            "an error event after the role",
            Script::words(5).error_event_at(0, Failure::server_error()),
        ),
        (
            "ends after the role",
            Script::empty_answer().no_finish_reason(),
        ),
        ("a page", Script::from(Failure::page_in_200())),
    ];
    for (what, fault) in faults {
        let first = always(fault).await;
        let second = always(Script::answer("A great tower.").model("spare-1")).await;
        let gate = Gate::before(&[&first, &second]).await;
        let answer = gate.post(CHAT, chat(true)).await;
        assert_eq!(answer.status, 200, "{what}: {}", answer.text());
        let chunks = assert_one_answer(&answer);
        assert_eq!(text_of(&chunks, 0), "A great tower.", "{what}");
        assert_eq!(chunks[0]["model"], "spare-1", "{what}");
        assert_eq!(answer.header("x-donjon-target"), Some("t1"), "{what}");
        assert_eq!(answer.header("x-donjon-model"), Some("spare-1"), "{what}");
        assert_eq!(answer.header("x-donjon-attempts"), Some("2"), "{what}");
        assert_eq!((first.count(), second.count()), (1, 1), "{what}");
    }
}

#[tokio::test]
async fn silence_fails_over_at_the_first_token_limit_without_asking_again() {
    for script in [
        Script::hang(),
        Script::headers_then_hang(),
        Script::words(5).role_then_silence(),
        Script::words(5).pings(usize::MAX, Duration::from_millis(5)),
        Script::words(5).empty_deltas_at(0, usize::MAX, Duration::from_millis(5)),
    ] {
        let silent = always(script.clone()).await;
        let second = steady().await;
        let targets = [(OPENAI, &silent), (OPENAI, &second)];
        let more = "[timeout]\nfirst_token = \"250ms\"";
        let gate = Gate::open(&config(&targets, 3, more)).await;
        let answer = gate.post(CHAT, chat(true)).await;
        assert_eq!(answer.status, 200, "{script:?}: {}", answer.text());
        let chunks = assert_one_answer(&answer);
        assert_eq!(text_of(&chunks, 0), "served");
        assert_eq!((silent.count(), second.count()), (1, 1), "{script:?}");
        // The silent one is not left talking to nobody.
        seen(&silent, |seen| seen.cancelled() == 1).await;
    }
}

#[tokio::test]
async fn usage_is_shown_to_who_asked_and_hidden_from_who_did_not() {
    let ask = |options: &str| {
        let body = chat(true);
        let open = body.strip_suffix('}').expect("an object");
        format!("{open}{options}}}")
    };
    let shown = r#","stream_options":{"include_usage":true}"#;
    for (options, asked) in [
        ("", false),
        (r#","stream_options":{"include_usage":false}"#, false),
        (shown, true),
    ] {
        let only = always(Script::words(3)).await;
        let gate = Gate::before(&[&only]).await;
        let answer = gate.post(CHAT, ask(options)).await;
        let mut chunks = assert_one_answer(&answer);
        // The gateway wants to know in any case.
        assert!(only.calls()[0].request.wants_usage());
        if asked {
            let last = chunks.pop().expect("chunks");
            assert_eq!(last["choices"].as_array().map(Vec::len), Some(0), "{last}");
            assert_eq!(last["usage"]["prompt_tokens"], 12, "{last}");
            assert_eq!(last["usage"]["completion_tokens"], 3, "{last}");
        }
        for chunk in &chunks {
            assert!(chunk["usage"].is_null(), "{options}: {chunk}");
            assert_eq!(
                chunk["choices"].as_array().map(Vec::len),
                Some(1),
                "{chunk}"
            );
        }
        assert_eq!(text_of(&chunks, 0), "w0 w1 w2 ");
    }

    // Told together with the finish reason, it is hidden and the finish reason stays.
    let only = always(Script::words(3).usage_with_finish()).await;
    let gate = Gate::before(&[&only]).await;
    let answer = gate.post(CHAT, chat(true)).await;
    let chunks = assert_one_answer(&answer);
    assert!(
        chunks.iter().all(|chunk| chunk["usage"].is_null()),
        "{}",
        answer.text()
    );
    let answer = gate.post(CHAT, ask(shown)).await;
    let chunks = assert_one_answer(&answer);
    let told = chunks.iter().filter(|chunk| !chunk["usage"].is_null());
    assert_eq!(told.count(), 1, "{}", answer.text());
}

#[tokio::test]
async fn two_choices_each_have_their_end() {
    let only = always(Script::words(3).choices(2)).await;
    let gate = Gate::before(&[&only]).await;
    let body = chat(true).replace("\"model\"", "\"n\":2,\"model\"");
    let answer = gate.post(CHAT, body).await;
    let chunks = answer.chunks();
    for index in [0, 1] {
        assert_eq!(text_of(&chunks, index), "w0 w1 w2 ");
    }
    let ends = chunks
        .iter()
        .flat_map(|chunk| chunk["choices"].as_array())
        .flatten();
    assert_eq!(
        ends.filter(|choice| choice["finish_reason"] == "stop")
            .count(),
        2
    );
    // Half of them is not the whole: the second choice ends without a finish reason.
    let cut = always(Script::words(3).choices(2).no_finish_reason()).await;
    let gate = Gate::before(&[&cut]).await;
    let body = chat(true).replace("\"model\"", "\"n\":2,\"model\"");
    let answer = gate.post(CHAT, body).await;
    assert!(!answer.text().contains("[DONE]"), "{}", answer.text());
    assert!(
        answer.text().contains(r#"data: {"error":{"#),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn a_chunk_goes_out_when_it_comes() {
    let only = upstream([Script::words(3).stall_after(2, None)]).await;
    let gate = Gate::before(&[&only]).await;
    let mut caller = Caller::connect(&gate).await;
    let mut answer = caller.post(CHAT, chat(true)).await;
    assert_eq!(answer.status(), 200);
    // The upstream says nothing after this, so it was not held back for more.
    answer.until("w1 ").await;
    assert_eq!(only.in_progress(), 1);
}

/// Odd members, with text that a reader and a writer of JSON would not give back as it came.
const ODD: &str =
    r#"{"z": 1.10,"a":"\u00e9\/", "n":12345678901234567890123, "e": 1E+2 ,"o":{"b":null,"a":[ ]}}"#;

#[tokio::test]
async fn unknown_members_of_a_request_go_up_as_they_came() {
    let only = steady().await;
    let gate = Gate::before(&[&only]).await;
    for stream in [false, true] {
        let body = format!(
            r#"{{"x_odd":{ODD},"model":"gpt-4o","messages":[{{"role":"user","x_odd":{ODD},"content":[{{"type":"text","text":"hi","x_odd":{ODD}}},{{"type":"x_hologram","frames":{ODD}}}]}}],"tools":[{{"type":"function","x_odd":{ODD},"function":{{"name":"f","parameters":{ODD},"x_odd":{ODD}}}}}],"response_format":{ODD},"metadata":{ODD},"temperature":0.70,"stream":{stream}}}"#
        );
        let answer = gate.post(CHAT, body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let calls = only.calls();
        let sent = calls.last().expect("a call").request.body.clone();
        let sent = std::str::from_utf8(&sent).expect("text");
        assert_eq!(sent.matches(ODD).count(), 9, "{sent}");
        for part in [
            format!(r#""x_odd":{ODD}"#),
            format!(r#"{{"type":"x_hologram","frames":{ODD}}}"#),
            format!(r#""response_format":{ODD}"#),
            format!(r#""metadata":{ODD}"#),
        ] {
            assert!(sent.contains(&part), "{part} is not in {sent}");
        }
    }
}

#[tokio::test]
async fn unknown_members_of_an_answer_come_down_as_they_came() {
    let whole = format!(
        r#"{{"x_first": {ODD},"id":"c-1","object":"chat.completion","created":1700000000,"model":"gpt-4o-2024","choices":[{{"index":0,"x_odd":{ODD},"message":{{"role":"assistant","content":"hi","x_odd":{ODD}}},"logprobs":{ODD},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2,"x_odd":{ODD}}},"x_last":{ODD}}}"#
    );
    let only = upstream([Script::raw(200, "application/json", whole.clone())]).await;
    let gate = Gate::before(&[&only]).await;
    let answer = gate.post(CHAT, chat(false)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.text().matches(ODD).count(), 6, "{}", answer.text());
    assert_eq!(answer.text(), whole);

    let chunk = |delta: &str, finish: &str| {
        format!(
            r#"{{"x_first": {ODD},"id":"c-1","object":"chat.completion.chunk","created":1700000000,"model":"gpt-4o-2024","choices":[{{"index":0,"x_odd":{ODD},"delta":{delta},"finish_reason":{finish}}}]}}"#
        )
    };
    let chunks = [
        chunk(r#"{"role":"assistant","content":""}"#, "null"),
        chunk(&format!(r#"{{"content":"hi","x_odd":{ODD}}}"#), "null"),
        chunk("{}", r#""stop""#),
    ];
    let events: String = chunks
        .iter()
        .map(|chunk| format!("data: {chunk}\n\n"))
        .collect();
    let script = Script::raw(
        200,
        "text/event-stream",
        format!("{events}data: [DONE]\n\n"),
    );
    let only = upstream([script]).await;
    let gate = Gate::before(&[&only]).await;
    let answer = gate.post(CHAT, chat(true)).await;
    let mut expected = events;
    expected.push_str("data: [DONE]\n\n");
    assert_eq!(answer.text(), expected);
}
