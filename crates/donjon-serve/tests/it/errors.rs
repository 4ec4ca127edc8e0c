//! Failures before the commit point: their status, their form, and what the caller is told to do.

use std::time::Duration;

use bytes::Bytes;
use donjon_core::{ErrorKind, FailedAttempt, LlmError, LlmRequest};
use donjon_serve::Serve;
use http_body_util::StreamBody;
use serde_json::json;
use tower::ServiceExt;

use crate::support::{
    CHAT, HELLO, HELLO_STREAM, MESSAGES, Read, llm, nobody, post, read, read_out,
};

const MESSAGE: &str =
    r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hello"}]}"#;

async fn fail(path: &str, body: &'static str, error: LlmError) -> Read {
    let serve = Serve::new(llm(move |mut request: LlmRequest| {
        for _ in 0..3 {
            request
                .call
                .open_attempt(donjon_core::AttemptCause::Retry)
                .stamp_sent();
        }
        Err(error.clone())
    }));
    read(&serve, post(path, body)).await
}

#[tokio::test]
async fn status_and_form_follow_the_table() {
    for (kind, status, openai) in [
        (ErrorKind::InvalidRequest, 400, "invalid_request_error"),
        (ErrorKind::ContextLength, 400, "invalid_request_error"),
        (ErrorKind::Authentication, 401, "authentication_error"),
        (ErrorKind::PermissionDenied, 403, "permission_error"),
        (ErrorKind::ModelNotFound, 404, "invalid_request_error"),
        (ErrorKind::RateLimited, 429, "rate_limit_error"),
        (ErrorKind::QuotaExhausted, 429, "insufficient_quota"),
        (ErrorKind::OverBudget, 429, "rate_limit_error"),
        (ErrorKind::Internal, 500, "server_error"),
        (ErrorKind::Transport, 502, "server_error"),
        (ErrorKind::Overloaded, 503, "server_error"),
    ] {
        for body in [HELLO, HELLO_STREAM] {
            let answer = fail(CHAT, body, LlmError::new(kind, "why")).await;
            assert_eq!(answer.status, status, "{kind}");
            assert_eq!(
                answer.json(),
                json!({"error": {
                    "message": "why", "type": openai, "param": null, "code": kind.as_str(),
                }})
            );
            assert_eq!(answer.header("x-should-retry"), Some("false"));
            assert_eq!(answer.header("x-donjon-attempts"), Some("3"));
            assert_eq!(answer.header("content-type"), Some("application/json"));
        }
    }
}

#[tokio::test]
async fn the_other_dialect_has_the_same_status() {
    for (kind, status, anthropic) in [
        (ErrorKind::InvalidRequest, 400, "invalid_request_error"),
        (ErrorKind::Authentication, 401, "authentication_error"),
        (ErrorKind::PermissionDenied, 403, "permission_error"),
        (ErrorKind::ModelNotFound, 404, "not_found_error"),
        (ErrorKind::RequestTooLarge, 413, "request_too_large"),
        (ErrorKind::RateLimited, 429, "rate_limit_error"),
        (ErrorKind::ServerError, 502, "api_error"),
        (ErrorKind::Overloaded, 503, "overloaded_error"),
    ] {
        let answer = fail(MESSAGES, MESSAGE, LlmError::new(kind, "why")).await;
        assert_eq!(answer.status, status, "{kind}");
        assert_eq!(
            answer.json(),
            json!({"type": "error", "error": {"type": anthropic, "message": "why"}})
        );
        assert_eq!(answer.header("x-should-retry"), Some("false"));
    }
}

#[tokio::test]
async fn hints_are_passed_on() {
    let error = LlmError::new(ErrorKind::RateLimited, "slow down")
        .with_retry_after(Duration::from_millis(1500))
        .with_target("main")
        .with_code("tokens_per_minute");
    let answer = fail(CHAT, HELLO, error).await;
    assert_eq!(answer.header("retry-after"), Some("2"));
    assert_eq!(answer.header("retry-after-ms"), Some("1500"));
    assert_eq!(answer.header("x-donjon-target"), Some("main"));
    assert_eq!(answer.json()["error"]["code"], "tokens_per_minute");
}

#[tokio::test]
async fn every_target_has_its_say() {
    let attempts = vec![
        FailedAttempt::new("a", LlmError::new(ErrorKind::RateLimited, "slow down")),
        FailedAttempt::new("b", LlmError::new(ErrorKind::ServerError, "oops")),
    ];
    let error = LlmError::new(ErrorKind::AllTargetsFailed, "every target failed");
    let answer = fail(CHAT, HELLO, error.with_attempts(attempts)).await;
    assert_eq!(answer.status, 503);
    let error = &answer.json()["error"];
    assert_eq!(error["code"], "all_targets_failed");
    assert_eq!(
        error["message"],
        "every target failed; a: slow down; b: oops"
    );
}

#[tokio::test]
async fn what_is_said_of_retrying_can_be_chosen() {
    let serve = Serve::builder(llm(|_| Err(LlmError::new(ErrorKind::QueueFull, "full"))))
        .should_retry(|error| (error.kind() != ErrorKind::QueueFull).then_some(false))
        .build()
        .unwrap();
    let answer = read(&serve, post(CHAT, HELLO)).await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("x-should-retry"), None);
}

#[tokio::test]
async fn a_malformed_request_names_the_field() {
    let serve = Serve::new(nobody());
    for (body, param) in [
        (
            r#"{"model":"m","messages":[{"role":7}]}"#,
            json!("messages[0].role"),
        ),
        (
            r#"{"model":"m","messages":[{"content":"x"}]}"#,
            json!("messages[0].role"),
        ),
        (r#"{"model":"m"}"#, json!("messages")),
        (r#"{"messages":[]}"#, json!("model")),
        (r#"{"model":1,"messages":[]}"#, json!("model")),
        (
            r#"{"model":"m","messages":[],"stream":"yes"}"#,
            json!("stream"),
        ),
        (r#"{"model":"m","messages":[],"n":-1}"#, json!("n")),
        ("[]", json!(null)),
        ("", json!(null)),
        (r#"{"model":"m","messages":["#, json!(null)),
    ] {
        let answer = read(&serve, post(CHAT, body)).await;
        assert_eq!(answer.status, 400, "{body}");
        let error = &answer.json()["error"];
        assert_eq!(error["type"], "invalid_request_error");
        assert_eq!(error["param"], param, "{body}: {error}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(param.as_str().unwrap_or("")), "{message}");
        assert_eq!(answer.header("x-should-retry"), None);
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let serve = Serve::builder(nobody()).body_limit(100).build().unwrap();
    for (path, word) in [(CHAT, "request_too_large"), (MESSAGES, "error")] {
        let answer = read(&serve, post(path, vec![b' '; 101])).await;
        assert_eq!(answer.status, 413);
        let json = answer.json();
        assert!(
            json["type"] == word || json["error"]["code"] == word,
            "{json}"
        );
    }

    // Its length may not be known beforehand.
    let frames = [60, 60].map(|size| {
        let frame = http_body::Frame::data(Bytes::from(vec![b' '; size]));
        Ok::<_, std::io::Error>(frame)
    });
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let request = http::Request::post(CHAT).body(body).unwrap();
    let response = serve.oneshot(request).await.unwrap();
    assert_eq!(response.status(), 413);
}

#[tokio::test]
async fn a_body_in_pieces_at_the_limit_is_read() {
    let serve = Serve::builder(llm(|_| Err(LlmError::new(ErrorKind::Internal, "asked"))))
        .body_limit(HELLO.len())
        .build()
        .unwrap();
    let frames = HELLO.as_bytes().chunks(7).map(|piece| {
        let frame = http_body::Frame::data(Bytes::from_static(piece));
        Ok::<_, std::io::Error>(frame)
    });
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let request = http::Request::post(CHAT).body(body).unwrap();
    let answer = read_out(serve.oneshot(request).await.unwrap()).await;
    assert_eq!(answer.json()["error"]["message"], "asked");
}

#[tokio::test]
async fn a_body_that_breaks_off_or_stalls() {
    let broken = StreamBody::new(futures_util::stream::iter([Err::<
        http_body::Frame<Bytes>,
        _,
    >(std::io::Error::other(
        "gone",
    ))]));
    let request = http::Request::post(CHAT).body(broken).unwrap();
    let response = Serve::new(nobody()).oneshot(request).await.unwrap();
    assert_eq!(response.status(), 400);

    let patience = Duration::from_millis(5);
    let serve = Serve::builder(nobody()).body_timeout(patience);
    let stalled = StreamBody::new(futures_util::stream::pending::<
        Result<http_body::Frame<Bytes>, std::io::Error>,
    >());
    let request = http::Request::post(CHAT).body(stalled).unwrap();
    let response = serve.build().unwrap().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 408);
    let answer = read_out(response).await;
    assert_eq!(answer.json()["error"]["code"], "request_timeout");
}

#[tokio::test]
async fn a_compressed_body_is_refused_and_the_content_type_ignored() {
    let serve = Serve::new(llm(|_| Err(LlmError::new(ErrorKind::Internal, "asked"))));
    let mut request = post(CHAT, HELLO);
    let headers = request.headers_mut();
    headers.insert("content-encoding", "gzip".parse().unwrap());
    assert_eq!(read(&serve, request).await.status, 415);
    let mut request = post(CHAT, HELLO);
    let headers = request.headers_mut();
    headers.insert("content-type", "text/plain".parse().unwrap());
    assert_eq!(read(&serve, request).await.status, 500);
}

#[tokio::test]
async fn the_callers_name_for_its_request_comes_back() {
    let serve = Serve::new(llm(|_| Err(LlmError::new(ErrorKind::Internal, "asked"))));
    for body in [HELLO, "{}"] {
        let mut request = post(CHAT, body);
        let headers = request.headers_mut();
        headers.insert("x-request-id", "abc".parse().unwrap());
        let answer = read(&serve, request).await;
        assert_eq!(answer.header("x-request-id"), Some("abc"));
    }
    let answer = read(&serve, post(CHAT, HELLO)).await;
    assert_eq!(answer.header("x-request-id"), None);
}

/// For those whose clients go by the status alone.
#[tokio::test]
async fn a_final_status_stands_only_where_a_client_would_repeat() {
    let answered = async |kind: ErrorKind, path: &str, body: &'static str, should: Option<bool>| {
        let failing = llm(move |_: LlmRequest| Err(LlmError::new(kind, "no")));
        let serve = Serve::builder(failing)
            .final_status(424)
            .should_retry(move |_| should)
            .build()
            .expect("a good configuration");
        read(&serve, post(path, body)).await
    };
    for (path, body) in [(CHAT, HELLO), (MESSAGES, MESSAGE)] {
        let told = answered(ErrorKind::RateLimited, path, body, Some(false)).await;
        assert_eq!(told.status, 424);
        assert_eq!(told.header("x-donjon-status"), Some("429"));
        let error = told.json()["error"]["type"].clone();
        assert_eq!(error, "rate_limit_error", "what went wrong is still said");
        let told = answered(ErrorKind::InvalidRequest, path, body, Some(false)).await;
        assert_eq!(
            (told.status.as_u16(), told.header("x-donjon-status")),
            (400, None)
        );
        for should in [None, Some(true)] {
            let told = answered(ErrorKind::Unavailable, path, body, should).await;
            assert_eq!(
                (told.status.as_u16(), told.header("x-donjon-status")),
                (503, None)
            );
        }
    }
}
