//! What a caller is told when something failed, and what the gateway did about it before.

mod in_band;
mod refused;

use std::time::Duration;

use donjon_testkit::upstream::{Failure, Script, Upstream};

use crate::support::{
    ANTHROPIC, Answer, CHAT, Gate, MESSAGES, OPENAI, always, chat, config, messages, seen, steady,
    upstream,
};

/// What both kinds of upstream are asked through, and by both kinds of callers.
const WAYS: [(&str, &str); 4] = [
    (CHAT, OPENAI),
    (CHAT, ANTHROPIC),
    (MESSAGES, OPENAI),
    (MESSAGES, ANTHROPIC),
];

fn ask(path: &str, stream: bool) -> String {
    match path {
        MESSAGES => messages(stream),
        _ => chat(stream),
    }
}

fn headers<const N: usize>(answer: &Answer, names: [&str; N]) -> [Option<String>; N] {
    names.map(|name| answer.header(name).map(str::to_owned))
}

#[tokio::test]
async fn an_exhausted_stack_says_so_and_why_in_the_callers_dialect() {
    for (path, kind) in WAYS {
        for stream in [false, true] {
            let first = always(Failure::service_unavailable()).await;
            let second = always(Failure::server_error()).await;
            let targets = [(kind, &first), (kind, &second)];
            let gate = Gate::open(&config(&targets, 2, "")).await;
            let answer = gate.post(path, ask(path, stream)).await;
            let what = format!("{path} {kind} {stream}: {}", answer.text());
            assert_eq!(answer.status, 503, "{what}");
            assert_eq!(answer.header("x-should-retry"), Some("false"), "{what}");
            // Two attempts a target, three a call: as many as the header says.
            assert_eq!((first.count(), second.count()), (2, 1), "{what}");
            assert_eq!(answer.header("x-donjon-attempts"), Some("3"), "{what}");
            let json = answer.json();
            let message = json["error"]["message"].as_str().unwrap_or_default();
            assert!(message.contains("t0") && message.contains("t1"), "{what}");
            if path == MESSAGES {
                assert_eq!(json["type"], "error", "{what}");
                assert_eq!(json["error"]["type"], "api_error", "{what}");
            } else {
                assert_eq!(json["error"]["code"], "all_targets_failed", "{what}");
                assert_eq!(json["error"]["type"], "server_error", "{what}");
            }
        }
    }
}

#[tokio::test]
async fn hints_of_an_exhausted_stack_are_passed_on() {
    let limited = || Script::from(Failure::rate_limited());
    // The waits cannot end before the deadline, so none is begun.
    let more = "[timeout]\ntotal = \"1500ms\"";
    let cases = [
        (limited().retry_after(7), "7", "7000"),
        (limited().retry_after_ms(2500), "3", "2500"),
    ];
    for (script, seconds, millis) in cases {
        for path in [CHAT, MESSAGES] {
            let only = always(script.clone()).await;
            let gate = Gate::open(&config(&[(OPENAI, &only)], 3, more)).await;
            let answer = gate.post(path, ask(path, false)).await;
            assert_eq!(answer.status, 429, "{}", answer.text());
            let told = headers(&answer, ["retry-after", "retry-after-ms", "x-should-retry"]);
            let expected = [seconds, millis, "false"].map(|value| Some(value.to_owned()));
            assert_eq!(told, expected);
            assert_eq!(answer.json()["error"]["type"], "rate_limit_error");
            assert_eq!(only.count(), 1);
        }
    }

    // Of several, the earliest.
    let (first, second) = (
        always(limited().retry_after(9)).await,
        always(limited().retry_after(4)).await,
    );
    let targets = [(OPENAI, &first), (OPENAI, &second)];
    let gate = Gate::open(&config(&targets, 3, more)).await;
    let answer = gate.post(CHAT, chat(true)).await;
    assert_eq!(answer.status, 429, "{}", answer.text());
    assert_eq!(answer.header("retry-after"), Some("4"));
    assert_eq!(answer.header("x-donjon-attempts"), Some("2"));
    assert_eq!((first.count(), second.count()), (1, 1));
}

#[tokio::test]
async fn who_served_is_in_the_headers() {
    let names = [
        "x-donjon-target",
        "x-donjon-model",
        "x-donjon-attempts",
        "x-donjon-origin",
    ];
    for (path, kind) in WAYS {
        for stream in [false, true] {
            let down = always(Failure::service_unavailable()).await;
            let spare = steady().await;
            let config = config(&[(kind, &down), (kind, &spare)], 2, "")
                .replace("\"t1\" }", "\"t1\", model = \"keep-7\" }");
            let gate = Gate::open(&config).await;
            let answer = gate.post(path, ask(path, stream)).await;
            assert_eq!(answer.status, 200, "{path} {kind}: {}", answer.text());
            let told = headers(&answer, names);
            let expected = ["t1", "keep-7", "3", "upstream"].map(|value| Some(value.to_owned()));
            assert_eq!(told, expected, "{path} {kind} {stream}");
            assert_eq!((down.count(), spare.count()), (2, 1));
            // Each was asked for its own model.
            let asked =
                |upstream: &Upstream| upstream.calls()[0].request.model().map(str::to_owned);
            assert_ne!(asked(&down).as_deref(), Some("keep-7"));
            assert_eq!(asked(&spare).as_deref(), Some("keep-7"));
            // The body names the model that served as well.
            assert!(answer.text().contains("\"keep-7\""), "{}", answer.text());
        }
    }
}

#[tokio::test]
async fn what_concerns_the_prompt_goes_where_the_table_says() {
    for (path, kind) in WAYS {
        // Too long for one model may fit another.
        let first = always(Failure::context_length_exceeded()).await;
        let second = steady().await;
        let targets = [(kind, &first), (kind, &second)];
        let gate = Gate::open(&config(&targets, 3, "")).await;
        let answer = gate.post(path, ask(path, false)).await;
        assert_eq!(answer.status, 200, "{path} {kind}: {}", answer.text());
        assert_eq!((first.count(), second.count()), (1, 1));

        // What one provider's policy refuses is not shopped around.
        let first = always(Failure::content_policy()).await;
        let second = steady().await;
        let targets = [(kind, &first), (kind, &second)];
        let gate = Gate::open(&config(&targets, 3, "")).await;
        let answer = gate.post(path, ask(path, true)).await;
        assert_eq!(answer.status, 400, "{path} {kind}: {}", answer.text());
        assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
        if path == CHAT {
            assert_eq!(answer.json()["error"]["code"], "content_policy_violation");
        }
        assert_eq!((first.count(), second.count()), (1, 0));
    }
}

#[tokio::test]
async fn an_answer_that_is_none_is_a_failure() {
    for (path, kind) in WAYS {
        for (what, script) in [
            ("an error in a 200", Script::from(Failure::error_in_200())),
            ("a page in a 200", Script::from(Failure::page_in_200())),
            ("a page of a proxy", Script::from(Failure::bad_gateway())),
            ("garbage", Script::garbage()),
            ("a malformed body", Script::words(3).bad_event_at(1)),
            ("half a body", Script::words(3).cut_after(1)),
        ] {
            let only = upstream([script]).await;
            let gate = Gate::open(&config(&[(kind, &only)], 2, "")).await;
            let answer = gate.post(path, ask(path, false)).await;
            let what = format!("{path} {kind} {what}: {}", answer.text());
            assert_eq!(answer.status, 200, "{what}");
            assert!(answer.text().contains("served"), "{what}");
            assert_eq!(only.count(), 2, "{what}");
        }
    }
}

#[tokio::test]
async fn clocks_that_run_out_are_a_504_by_name() {
    let hang = always(Script::hang()).await;
    for (stream, more, code) in [
        (false, "response = \"100ms\"", "response_timeout"),
        (true, "first_token = \"100ms\"", "first_token_timeout"),
        (false, "total = \"100ms\"", "deadline_exceeded"),
        (true, "total = \"100ms\"", "deadline_exceeded"),
    ] {
        let before = hang.count();
        let config = config(&[(OPENAI, &hang)], 3, &format!("[timeout]\n{more}"));
        let gate = Gate::open(&config).await;
        let answer = gate.post(CHAT, chat(stream)).await;
        assert_eq!(answer.status, 504, "{more}: {}", answer.text());
        assert_eq!(answer.json()["error"]["code"], code, "{more}");
        // A silent target is not asked again.
        assert_eq!(hang.count() - before, 1, "{more}");
    }
    // And whoever was waited for was let go.
    seen(&hang, |seen| seen.in_progress == 0).await;
    assert_eq!(hang.cancelled(), 4);
}

#[tokio::test]
async fn a_slow_whole_answer_is_not_held_to_the_clock_of_a_first_token() {
    let slow = always(Script::answer("late").headers_after(Duration::from_millis(150))).await;
    let config = config(&[(OPENAI, &slow)], 1, "[timeout]\nfirst_token = \"50ms\"");
    let gate = Gate::open(&config).await;
    let answer = gate.post(CHAT, chat(false)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = gate.post(CHAT, chat(true)).await;
    assert_eq!(answer.status, 504, "{}", answer.text());
    assert_eq!(slow.count(), 2);
}
