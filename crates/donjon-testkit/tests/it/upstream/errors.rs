//! Failures that are answers: status, body, hints; and errors told in a stream.

use std::time::{Duration, SystemTime};

use donjon_testkit::upstream::{Dialect, Failure, Quota, Script, Upstream};
use serde_json::{Value, json};

use super::{ask, call, path, payloads, streamed, text};

const BOTH: [Dialect; 2] = [Dialect::OpenAi, Dialect::Anthropic];

/// Status, content type and body of the answer to a call.
async fn answer(dialect: Dialect, stream: bool, script: Script) -> (u16, String, String) {
    let upstream = Upstream::builder().script(script).in_memory();
    let response = call(&upstream, path(dialect), &ask(stream)).await;
    let content_type = response.headers()["content-type"]
        .to_str()
        .unwrap()
        .to_owned();
    (
        response.status().as_u16(),
        content_type,
        text(response).await,
    )
}

#[tokio::test]
async fn each_failure_in_the_words_of_its_dialect() {
    // Failure; status, type and code at OpenAI; status and type at Anthropic.
    let table = [
        (
            Failure::rate_limited(),
            (429, "tokens", "rate_limit_exceeded"),
            (429, "rate_limit_error"),
        ),
        (
            Failure::insufficient_quota(),
            (429, "insufficient_quota", "insufficient_quota"),
            (400, "invalid_request_error"),
        ),
        (
            Failure::invalid_api_key(),
            (401, "invalid_request_error", "invalid_api_key"),
            (401, "authentication_error"),
        ),
        (
            Failure::permission_denied(),
            (403, "invalid_request_error", "permission_denied"),
            (403, "permission_error"),
        ),
        (
            Failure::model_not_found(),
            (404, "invalid_request_error", "model_not_found"),
            (404, "not_found_error"),
        ),
        (
            Failure::context_length_exceeded(),
            (400, "invalid_request_error", "context_length_exceeded"),
            (400, "invalid_request_error"),
        ),
        (
            Failure::content_policy(),
            (400, "invalid_request_error", "content_policy_violation"),
            (400, "invalid_request_error"),
        ),
        (
            Failure::content_policy_azure(),
            (400, "", "content_filter"),
            (400, "invalid_request_error"),
        ),
        (
            Failure::invalid_request(),
            (400, "invalid_request_error", ""),
            (400, "invalid_request_error"),
        ),
        (
            Failure::server_error(),
            (500, "server_error", ""),
            (500, "api_error"),
        ),
        (
            Failure::service_unavailable(),
            (503, "server_error", "service_unavailable"),
            (503, "api_error"),
        ),
        (
            Failure::overloaded(),
            (529, "overloaded_error", ""),
            (529, "overloaded_error"),
        ),
        (
            Failure::error_in_200(),
            (200, "server_error", ""),
            (200, "api_error"),
        ),
    ];
    for (failure, (openai, kind, code), (anthropic, anthropic_kind)) in table {
        for stream in [false, true] {
            let (status, content_type, body) =
                answer(Dialect::OpenAi, stream, failure.clone().into()).await;
            let error = &serde_json::from_str::<Value>(&body).unwrap()["error"];
            let word = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
            assert_eq!(
                (status, content_type.as_str()),
                (openai, "application/json"),
                "{body}"
            );
            assert_eq!(
                (word("type").as_str(), word("code").as_str()),
                (kind, code),
                "{body}"
            );
            let (status, _, body) =
                answer(Dialect::Anthropic, stream, failure.clone().into()).await;
            let body: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(status, anthropic, "{body}");
            assert_eq!(
                (&body["type"], &body["error"]["type"]),
                (&json!("error"), &json!(anthropic_kind))
            );
        }
    }
}

#[tokio::test]
async fn pages_come_where_json_is_expected() {
    for (failure, status) in [(Failure::bad_gateway(), 502), (Failure::page_in_200(), 200)] {
        for dialect in BOTH {
            let (seen, content_type, body) = answer(dialect, true, failure.clone().into()).await;
            assert_eq!((seen, content_type.as_str()), (status, "text/html"));
            assert!(body.starts_with("<html>"), "{body}");
        }
    }
    for (failure, status) in [
        (Failure::too_large(), 413),
        (Failure::gateway_timeout(), 504),
    ] {
        let (seen, content_type, _) = answer(Dialect::OpenAi, false, failure.clone().into()).await;
        assert_eq!((seen, content_type.as_str()), (status, "text/html"));
        let (seen, content_type, _) = answer(Dialect::Anthropic, false, failure.into()).await;
        assert_eq!((seen, content_type.as_str()), (status, "application/json"));
    }
    let (status, content_type, body) = answer(
        Dialect::OpenAi,
        false,
        Script::error(418, "{\"teapot\":true}"),
    )
    .await;
    assert_eq!(
        (status, content_type.as_str(), body.as_str()),
        (418, "application/json", "{\"teapot\":true}")
    );
}

#[tokio::test]
async fn every_form_of_hint() {
    let date = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    let limited = || Script::fail(Failure::rate_limited());
    let minutes = Duration::from_secs(360);
    let table: [(Script, &[(&str, &str)]); 7] = [
        (limited().retry_after(2), &[("retry-after", "2")]),
        (
            limited().retry_after_date(date),
            &[("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")],
        ),
        (
            limited().retry_after_ms(1500),
            &[("retry-after-ms", "1500")],
        ),
        (
            limited().header("retry-after", "-3"),
            &[("retry-after", "-3")],
        ),
        (
            Script::words(1).should_retry(false),
            &[("x-should-retry", "false")],
        ),
        (
            limited().x_ratelimit(Quota::Tokens, 30_000, 0, minutes),
            &[
                ("x-ratelimit-limit-tokens", "30000"),
                ("x-ratelimit-remaining-tokens", "0"),
                ("x-ratelimit-reset-tokens", "6m0s"),
            ],
        ),
        (
            Script::words(1).anthropic_ratelimit(Quota::InputTokens, 50, 49, date),
            &[
                ("anthropic-ratelimit-input-tokens-limit", "50"),
                ("anthropic-ratelimit-input-tokens-remaining", "49"),
                (
                    "anthropic-ratelimit-input-tokens-reset",
                    "1994-11-06T08:49:37Z",
                ),
            ],
        ),
    ];
    for (script, hints) in table {
        let upstream = Upstream::builder().script(script).in_memory();
        let response = call(&upstream, "/v1/messages", &ask(false)).await;
        for (name, value) in hints {
            assert_eq!(response.headers()[*name], *value);
        }
    }
    let upstream = Upstream::builder().script(limited()).in_memory();
    let headers = call(&upstream, "/v1/messages", &ask(false))
        .await
        .headers()
        .clone();
    assert!(
        headers
            .keys()
            .all(|name| !name.as_str().contains("retry") && !name.as_str().contains("ratelimit"))
    );
}

#[tokio::test]
async fn an_error_in_the_middle_of_a_stream_ends_it() {
    let script = || Script::words(5).error_event_at(2, Failure::overloaded());
    let openai = streamed(Dialect::OpenAi, script()).await;
    let events = payloads(&openai);
    assert_eq!(events.len(), 4, "role, two tokens, the error: {openai}");
    assert_eq!(events[3]["error"]["message"], "Overloaded");
    assert!(!openai.contains("[DONE]"));
    let anthropic = streamed(Dialect::Anthropic, script()).await;
    let last = anthropic.trim_end().rsplit("\n\n").next().unwrap();
    assert!(last.starts_with("event: error\ndata: {"), "{last}");
    assert!(!anthropic.contains("message_stop"));

    let only = streamed(
        Dialect::OpenAi,
        Script::error_event(Failure::server_error()),
    )
    .await;
    assert_eq!(payloads(&only).len(), 1);
    let (status, ..) = answer(Dialect::OpenAi, false, script()).await;
    assert_eq!(status, 529, "a unary call gets the error itself");
}

#[tokio::test]
async fn a_malformed_event_does_not_end_the_stream() {
    for dialect in BOTH {
        let stream = streamed(dialect, Script::words(3).bad_event_at(1)).await;
        let data = stream
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .filter(|data| *data != "[DONE]");
        let bad = data
            .filter(|data| serde_json::from_str::<Value>(data).is_err())
            .count();
        assert_eq!(bad, 1, "{stream}");
        assert!(stream.contains("w2 "), "{stream}");
        let (status, _, body) = answer(dialect, false, Script::words(3).bad_event_at(1)).await;
        assert_eq!(
            (status, serde_json::from_str::<Value>(&body).is_err()),
            (200, true)
        );
    }
}

#[tokio::test]
async fn streams_without_their_end() {
    let without_done = streamed(Dialect::OpenAi, Script::words(1).no_done().forced_usage()).await;
    assert!(
        !without_done.contains("[DONE]") && without_done.contains("\"stop\""),
        "{without_done}"
    );
    let without_finish = streamed(Dialect::OpenAi, Script::words(1).no_finish_reason()).await;
    assert!(
        without_finish.ends_with("data: [DONE]\n\n") && !without_finish.contains("\"stop\""),
        "{without_finish}"
    );
    let neither = streamed(
        Dialect::Anthropic,
        Script::words(1).no_finish_reason().no_done(),
    )
    .await;
    assert!(
        neither.contains("content_block_stop") && !neither.contains("message_delta"),
        "{neither}"
    );
    assert!(!neither.contains("message_stop"), "{neither}");
}
