//! Gemini's and Ollama's dialects, and the faults in each of the four.

use std::time::Duration;

use donjon_testkit::upstream::{Dialect, End, Failure, Script, Upstream, Usage};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::{call, client, payloads, text, whatever_came};

const ALL: [Dialect; 4] = [
    Dialect::OpenAi,
    Dialect::Anthropic,
    Dialect::Gemini,
    Dialect::Ollama,
];
const SECOND: Duration = Duration::from_secs(1);

/// Where a question is asked, and its body.
fn question(dialect: Dialect, stream: bool) -> (&'static str, Value) {
    let mut body = super::ask(stream);
    let path = match dialect {
        Dialect::Gemini => {
            body = json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]});
            if stream {
                "/v1beta/models/m-1:streamGenerateContent?alt=sse"
            } else {
                "/v1beta/models/m-1:generateContent"
            }
        }
        Dialect::Ollama => "/api/chat",
        _ => super::path(dialect),
    };
    (path, body)
}

async fn ask(upstream: &Upstream, dialect: Dialect, stream: bool) -> Response<Incoming> {
    let (path, body) = question(dialect, stream);
    call(upstream, path, &body).await
}

async fn answer(dialect: Dialect, stream: bool, script: Script) -> String {
    let upstream = Upstream::builder().script(script).in_memory();
    text(ask(&upstream, dialect, stream).await).await
}

async fn whole(dialect: Dialect, script: Script) -> Value {
    serde_json::from_str(&answer(dialect, false, script).await).unwrap()
}

/// The JSON texts of a stream, one a line.
fn lines(stream: &str) -> Vec<Value> {
    let read = |line| serde_json::from_str(line).unwrap();
    stream.lines().map(read).collect()
}

#[tokio::test]
async fn a_gemini_stream_byte_for_byte() {
    let script = Script::tokens(["Hel", "lo"])
        .reasoning("hm")
        .tool_call("now", r#"{"zone":"UTC"}"#)
        .usage(Usage::new(9, 7).reasoned(2).cached(4, 0));
    let upstream = Upstream::builder().script(script).in_memory();
    let response = ask(&upstream, Dialect::Gemini, true).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let event = |part: Value, told: u64, finish: Option<&str>| {
        let mut candidate = json!({"content": {"parts": [part], "role": "model"}, "index": 0});
        if let Some(reason) = finish {
            candidate["finishReason"] = reason.into();
        }
        let usage = json!({"promptTokenCount": 9, "candidatesTokenCount": told, "thoughtsTokenCount": 2,
            "cachedContentTokenCount": 4, "totalTokenCount": 11 + told});
        let event = json!({"candidates": [candidate], "modelVersion": "m-1", "responseId": "gemini-0",
            "usageMetadata": usage});
        format!("data: {event}\n\n")
    };
    let call = json!({"functionCall": {"name": "now", "args": {"zone": "UTC"}}});
    let expected = event(json!({"text": "hm", "thought": true}), 1, None)
        + &event(json!({"text": "Hel"}), 2, None)
        + &event(json!({"text": "lo"}), 3, None)
        + &event(call, 4, None)
        + &event(json!({"text": ""}), 5, Some("STOP"));
    assert_eq!(text(response).await, expected);
    let call = &upstream.calls()[0];
    assert_eq!(call.request.model(), Some("m-1"));
    assert_eq!(
        (call.request.dialect, call.request.streamed(), call.sent),
        (Dialect::Gemini, true, 4)
    );
}

#[tokio::test]
async fn an_ollama_stream_line_for_line() {
    let script = Script::tokens(["Hel", "lo"])
        .reasoning("hm")
        .tool_call("now", r#"{"zone":"UTC"}"#)
        .usage(Usage::new(9, 7));
    let upstream = Upstream::builder().script(script).in_memory();
    let response = ask(&upstream, Dialect::Ollama, true).await;
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    let line = |mut message: Value| {
        message["role"] = "assistant".into();
        json!({"model": "m-1", "created_at": "2023-11-14T22:13:20.5Z", "message": message, "done": false})
    };
    let mut last = line(json!({"content": ""}));
    last["done"] = true.into();
    last["done_reason"] = "stop".into();
    for (name, count) in [
        ("total_duration", 5_000_000),
        ("load_duration", 1_000_000),
        ("prompt_eval_count", 9),
        ("eval_count", 7),
    ] {
        last[name] = count.into();
    }
    let call = json!({"function": {"name": "now", "arguments": {"zone": "UTC"}}});
    assert_eq!(
        lines(&text(response).await),
        [
            line(json!({"content": "", "thinking": "hm"})),
            line(json!({"content": "Hel"})),
            line(json!({"content": "lo"})),
            line(json!({"content": "", "tool_calls": [call]})),
            last
        ]
    );
    // It streams unless it is told not to.
    let mut body = question(Dialect::Ollama, true).1;
    body.as_object_mut().unwrap().remove("stream");
    let stream = text(super::call(&upstream, "/api/chat", &body).await).await;
    assert_eq!(lines(&stream).last().unwrap()["done"], true);
}

#[tokio::test]
async fn whole_answers() {
    let script = || {
        Script::answer("It is noon.")
            .reasoning("Look up.")
            .tool_call("now", r#"{"zone":"UTC"}"#)
            .unknown_delta()
            .finish("length")
    };
    let gemini = whole(Dialect::Gemini, script()).await;
    assert_eq!(
        gemini["candidates"],
        json!([{"index": 0, "finishReason": "MAX_TOKENS", "content": {"role": "model", "parts": [
            {"text": "Look up.", "thought": true},
            {"text": "It is noon."},
            {"hologram": {"frames": 3}},
            {"functionCall": {"name": "now", "args": {"zone": "UTC"}}},
        ]}}])
    );
    let ollama = whole(Dialect::Ollama, script()).await;
    assert_eq!(
        ollama["message"],
        json!({"role": "assistant", "content": "It is noon.", "thinking": "Look up.", "hologram": {"frames": 3},
            "tool_calls": [{"function": {"name": "now", "arguments": {"zone": "UTC"}}}]})
    );
    assert_eq!(
        (&ollama["done"], &ollama["done_reason"]),
        (&json!(true), &json!("length"))
    );
    let two = whole(Dialect::Gemini, Script::words(1).choices(2)).await;
    assert_eq!(two["candidates"][1]["index"], 1);
    let filtered = Script::empty_answer().content_filter().no_usage();
    let filtered = whole(Dialect::Gemini, filtered).await;
    assert_eq!(filtered["candidates"][0]["finishReason"], "SAFETY");
    assert!(filtered["usageMetadata"].is_null());
}

#[tokio::test]
async fn embeddings_in_both_dialects() {
    let upstream = Upstream::builder().in_memory();
    let body = json!({"model": "e", "input": ["a", "keep"]});
    let answer = text(call(&upstream, "/api/embed", &body).await).await;
    let ollama: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(ollama["embeddings"], json!([[1, 0], [4, 1]]));
    let answer = text(call(&upstream, "/v1/embeddings", &body).await).await;
    let openai: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(openai["data"][1]["embedding"], json!([4, 1]));
    let calls = upstream.calls();
    assert!(calls.iter().all(|call| call.request.embeds()));
    assert!(!calls[0].request.streamed(), "embeddings never are");
}

#[tokio::test]
async fn what_is_missing_is_refused_and_a_wrong_key_too() {
    let upstream = Upstream::builder().api_key("k").in_memory();
    let status = async |path: &str, header: &str, body: &Value| {
        let request = Request::post(path)
            .header("host", "upstream")
            .header(
                header,
                if header == "authorization" {
                    "Bearer k"
                } else {
                    "k"
                },
            )
            .body(Full::from(body.to_string()))
            .unwrap();
        let sent = client(upstream.connect()).await.send_request(request).await;
        sent.unwrap().status().as_u16()
    };
    let (gemini, body) = question(Dialect::Gemini, true);
    assert_eq!(status(gemini, "x-goog-api-key", &body).await, 200);
    assert_eq!(
        status(gemini, "x-other", &body).await,
        400,
        "as Google says it"
    );
    let listed = gemini.trim_end_matches("?alt=sse");
    assert_eq!(status(listed, "x-goog-api-key", &body).await, 400);
    assert_eq!(status(gemini, "x-goog-api-key", &json!({})).await, 400);
    let (ollama, body) = question(Dialect::Ollama, false);
    assert_eq!(status(ollama, "authorization", &body).await, 200);
    assert_eq!(status(ollama, "x-other", &body).await, 401);
    let nameless = json!({"messages": []});
    assert_eq!(status(ollama, "authorization", &nameless).await, 400);
    let no_input = json!({"model": "e"});
    assert_eq!(status("/api/embed", "authorization", &no_input).await, 400);
}

#[tokio::test]
async fn models_are_listed_until_that_is_refused() {
    let upstream = Upstream::builder().models(["a", "b"]).in_memory();
    let list = async |path: &str| {
        let request = Request::get(path).header("host", "upstream");
        let request = request.body(Full::default()).unwrap();
        let sent = client(upstream.connect()).await.send_request(request).await;
        let response = sent.unwrap();
        let status = response.status().as_u16();
        (
            status,
            serde_json::from_str::<Value>(&text(response).await).unwrap(),
        )
    };
    let paths = ["/v1/models", "/v1beta/models", "/api/tags"];
    let mut names = Vec::new();
    for path in paths {
        let (status, body) = list(path).await;
        assert_eq!(status, 200);
        let of = |name: &Value| name.as_str().map(String::from);
        names.push(of(&body["data"][1]["id"]).or_else(|| of(&body["models"][1]["name"])));
    }
    assert_eq!(names, ["b", "models/b", "b"].map(|name| Some(name.into())));
    upstream.refuse_listings(Failure::service_unavailable());
    for path in paths {
        assert_eq!(list(path).await.0, 503);
    }
    upstream.refuse_listings(None);
    assert_eq!(list("/v1/models").await.0, 200);
    assert_eq!((upstream.seen().listings, upstream.count()), (7, 0));
}

#[tokio::test]
async fn failures_in_the_words_of_gemini_and_ollama() {
    for (failure, gemini, word, ollama) in [
        (Failure::rate_limited(), 429, "RESOURCE_EXHAUSTED", 429),
        (
            Failure::insufficient_quota(),
            429,
            "RESOURCE_EXHAUSTED",
            429,
        ),
        (Failure::invalid_api_key(), 400, "INVALID_ARGUMENT", 401),
        (Failure::permission_denied(), 403, "PERMISSION_DENIED", 403),
        (Failure::model_not_found(), 404, "NOT_FOUND", 404),
        (
            Failure::context_length_exceeded(),
            400,
            "INVALID_ARGUMENT",
            400,
        ),
        (Failure::server_error(), 500, "INTERNAL", 500),
        (Failure::service_unavailable(), 503, "UNAVAILABLE", 503),
        (Failure::overloaded(), 503, "UNAVAILABLE", 503),
        (
            Failure::overloaded().with_status(502),
            502,
            "UNAVAILABLE",
            502,
        ),
        (Failure::error_in_200(), 200, "INTERNAL", 200),
    ] {
        let upstream = Upstream::builder().otherwise(failure).in_memory();
        let response = ask(&upstream, Dialect::Gemini, true).await;
        assert_eq!(response.status(), gemini);
        let body: Value = serde_json::from_str(&text(response).await).unwrap();
        assert_eq!(body["error"]["status"], word, "{body}");
        let response = ask(&upstream, Dialect::Ollama, true).await;
        assert_eq!(response.status(), ollama);
        let body: Value = serde_json::from_str(&text(response).await).unwrap();
        assert!(body["error"].is_string(), "{body}");
    }
    // A prompt that Gemini blocks is no failure in HTTP.
    let blocked = |stream| answer(Dialect::Gemini, stream, Failure::content_policy().into());
    let whole: Value = serde_json::from_str(&blocked(false).await).unwrap();
    assert_eq!(whole["promptFeedback"]["blockReason"], "PROHIBITED_CONTENT");
    assert_eq!(payloads(&blocked(true).await), [whole]);
}

#[tokio::test]
async fn a_cut_shows_exactly_the_tokens_before_it() {
    for dialect in ALL {
        for (script, torn) in [
            (Script::words(5).cut_after(2), false),
            (Script::words(5).cut_inside_event(2), true),
            (Script::words(5).cut_inside_chunk(2), true),
            (Script::words(5).reset_after(2), false),
        ] {
            let upstream = Upstream::builder().script(script.clone()).in_memory();
            let (came, error) = whatever_came(ask(&upstream, dialect, true).await).await;
            assert!(error.is_some(), "{dialect:?} {script:?}: {came}");
            assert_eq!(came.matches("w1 ").count(), 1, "{came}");
            assert_eq!(came.ends_with('\n'), !torn, "{dialect:?}: {came}");
            let call = &upstream.calls()[0];
            assert_eq!((call.sent, call.end()), (2, Some(End::Broken)));
        }
        let upstream = Upstream::builder().script(Script::words(50).cut_after(3));
        let upstream = upstream.in_memory();
        let response = ask(&upstream, dialect, false).await;
        let promised: usize = response.headers()["content-length"]
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        let (came, error) = whatever_came(response).await;
        assert!(error.is_some());
        assert_eq!(came.len(), promised / 2);
    }
}

#[tokio::test]
async fn malformed_and_failing_events() {
    for dialect in ALL {
        let script = Script::words(3).bad_event_at(1);
        let stream = answer(dialect, true, script).await;
        let malformed = stream.lines().filter(|line| {
            let data = line.strip_prefix("data: ").unwrap_or(line);
            data.starts_with('{') && serde_json::from_str::<Value>(data).is_err()
        });
        assert_eq!(malformed.count(), 1, "{dialect:?}: {stream}");
        assert!(stream.contains("w2 "), "it goes on: {stream}");

        let script = Script::words(3).error_event_at(2, Failure::overloaded());
        let stream = answer(dialect, true, script.clone()).await;
        let last = stream.lines().rfind(|line| !line.is_empty()).unwrap();
        let last = last.strip_prefix("data: ").unwrap_or(last);
        let told: Value = serde_json::from_str(last).unwrap();
        assert!(!told["error"].is_null(), "{dialect:?}: {stream}");
        assert!(stream.contains("w1 ") && !stream.contains("w2 "));
        let whole: Value = whole(dialect, script).await;
        assert!(!whole["error"].is_null(), "{whole}");

        let endless = answer(dialect, true, Script::words(2).no_finish_reason().no_done()).await;
        for word in ["\"stop\"", "STOP", "\"done\":true", "end_turn", "[DONE]"] {
            assert!(!endless.contains(word), "{endless}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_pace_is_that_of_the_script() {
    for dialect in ALL {
        let script = Script::words(4)
            .first_token_after(5 * SECOND)
            .gap(SECOND)
            .stall_after(2, 30 * SECOND)
            .pings_at(2, 2, SECOND);
        let start = Instant::now();
        let stream = answer(dialect, true, script).await;
        assert_eq!(start.elapsed(), 40 * SECOND, "{dialect:?}");
        assert!(stream.contains("w3 "));

        for stalled in [
            Script::words(3).stall_after(1, None),
            Script::headers_then_hang(),
        ] {
            let upstream = Upstream::builder().script(stalled).in_memory();
            let mut body = ask(&upstream, dialect, true).await.into_body();
            let silent = async { while body.frame().await.is_some() {} };
            timeout(3600 * SECOND, silent).await.expect_err("it stalls");
        }
    }
}

#[tokio::test]
async fn packets_and_line_ends_change_no_line() {
    let said = |script| async { lines(&answer(Dialect::Ollama, true, script).await) };
    let plain = said(Script::answer("one two")).await;
    for script in [
        Script::answer("one two").packets(3),
        Script::answer("one two").crlf(),
        Script::answer("one two")
            .lone_cr()
            .byte_order_mark()
            .several_data_lines()
            .no_space(),
    ] {
        assert_eq!(said(script).await, plain);
    }
}
