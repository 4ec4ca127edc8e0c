//! The service: from the request to the answer, and what it does when there is none.

use std::{error::Error, io, num::NonZeroUsize, time::Duration};

use bytes::Bytes;
use donjon_core::{Billed, ErrorKind, LimitUnit, LlmError, WallClock};
use donjon_providers::Provider;
use http::Response;
use tower::{ServiceExt, service_fn};

use crate::support::{
    End, TestBody, anthropic, ask, call, http, json, openai, packets, watched, whole,
};

const ANSWER: &str = r#"{"id":"c1","model":"served","choices":[{"index":0,
    "message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#;

fn with(
    mut response: Response<TestBody>,
    headers: &[(&'static str, &'static str)],
) -> Response<TestBody> {
    for (name, value) in headers {
        response
            .headers_mut()
            .insert(*name, value.parse().expect("a value"));
    }
    response
}

async fn fails(answer: impl Fn() -> Response<TestBody> + Clone + Send + 'static) -> LlmError {
    call(openai(), http(answer), ask())
        .await
        .expect_err("an error")
}

#[tokio::test]
async fn a_whole_answer_says_who_served_and_what_the_server_says_of_its_limits() {
    let (http, seen) = watched(|| {
        with(
            whole(200, ANSWER),
            &[
                ("x-ratelimit-remaining-tokens", "7"),
                ("x-ratelimit-reset-tokens", "6m0s"),
            ],
        )
    });
    let response = call(openai(), http, ask()).await.expect("an answer");
    let head = &response.head;
    assert_eq!(&*head.model, "served");
    assert_eq!(head.provider.as_deref(), Some("openai"));
    assert_eq!(
        (head.target.as_deref(), head.id.as_deref()),
        (Some("t"), Some("c1"))
    );
    let hint = head
        .hints
        .as_ref()
        .and_then(|hints| hints.of(LimitUnit::Tokens))
        .expect("a hint");
    assert_eq!(
        (hint.remaining, hint.reset),
        (Some(7), Some(Duration::from_secs(360)))
    );
    assert_eq!(
        response
            .completion()
            .and_then(|c| c.usage())
            .map(|u| u.total()),
        Some(3)
    );
    let seen = seen.lock().expect("no panic");
    assert_eq!(seen[0].headers()["accept"], "application/json");
    assert_eq!(json(seen[0].body())["model"], "asked");
}

#[tokio::test]
async fn the_ledger_is_stamped() {
    let mut request = ask();
    let ledger = request.call.begin().clone();
    call(openai(), http(|| whole(200, ANSWER)), request)
        .await
        .expect("an answer");
    let attempts: Vec<_> = ledger.attempts().collect();
    assert_eq!(attempts.len(), 1);
    let attempt = &attempts[0];
    assert_eq!(
        (attempt.target.as_deref(), attempt.model.as_deref()),
        (Some("t"), Some("asked"))
    );
    assert!(attempt.sent_at.is_some() && attempt.first_byte_at >= attempt.sent_at);
    assert_eq!(
        attempt.billed,
        Billed::Unknown,
        "the commit point says more"
    );

    // What is refused is not billed; what cannot be written is not even sent.
    let mut request = ask();
    let ledger = request.call.begin().clone();
    call(openai(), http(|| whole(500, "{}")), request)
        .await
        .expect_err("an error");
    assert_eq!(
        ledger.attempts().map(|a| a.billed).collect::<Vec<_>>(),
        [Billed::No]
    );
    let mut request = donjon_core::LlmRequest::embed("m", ["x"]);
    let ledger = request.call.begin().clone();
    let error = call(anthropic(), http(|| whole(200, ANSWER)), request)
        .await
        .expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(error.provider().map(|p| p.as_str()), Some("anthropic"));
    assert_eq!((ledger.sent(), ledger.opened()), (0, 1));
    // Nor under `commit`, which else takes any failure for one that was sent.
    let mut request = donjon_core::LlmRequest::embed("m", ["x"]);
    let ledger = request.call.begin().clone();
    let provider = Provider::new(anthropic(), http(|| whole(200, ANSWER)));
    let layered = tower::Layer::layer(&donjon_core::CommitLayer::new(), provider);
    layered.oneshot(request).await.expect_err("refused");
    assert_eq!((ledger.sent(), ledger.opened()), (0, 1));
}

#[tokio::test]
async fn an_error_carries_all_that_was_said() {
    let clock = WallClock::fixed(
        httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").expect("a date"),
    );
    let body = r#"{"error":{"message":"slow down","type":"tokens","code":"rate_limit_exceeded","param":null}}"#;
    let http = http(move || {
        with(
            whole(429, body),
            &[
                ("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT"),
                ("x-should-retry", "false"),
                ("x-ratelimit-remaining-requests", "0"),
            ],
        )
    });
    let provider = Provider::new(openai(), http)
        .with_target("t")
        .with_clock(clock);
    let error = provider.oneshot(ask()).await.expect_err("an error");
    assert_eq!(
        (error.kind(), error.status()),
        (ErrorKind::RateLimited, Some(429))
    );
    assert_eq!(
        (
            error.provider().map(|p| p.as_str()),
            error.target().map(|t| t.as_str())
        ),
        (Some("openai"), Some("t"))
    );
    assert_eq!(
        (error.code(), error.message()),
        (Some("rate_limit_exceeded"), "slow down")
    );
    assert_eq!(error.retry_after(), Some(Duration::from_secs(10)));
    assert_eq!(error.should_retry(), Some(false));
    let hint = error
        .hints()
        .and_then(|hints| hints.of(LimitUnit::Requests))
        .expect("a hint");
    assert_eq!(hint.remaining, Some(0));
}

#[tokio::test]
async fn successes_that_are_none() {
    for (body, kind) in [
        (
            r#"{"error":{"message":"m","type":"server_error"}}"#,
            ErrorKind::ServerError,
        ),
        (
            r#"{"error":{"message":"m","code":"insufficient_quota"}}"#,
            ErrorKind::QuotaExhausted,
        ),
        (
            "<html><h1>Down for maintenance</h1></html>",
            ErrorKind::InvalidResponse,
        ),
        ("", ErrorKind::InvalidResponse),
        (r#"{"id":"x"}"#, ErrorKind::InvalidResponse),
        (r#"{"choices":[]}"#, ErrorKind::InvalidResponse),
        // OpenRouter's, where a provider failed behind it.
        (
            r#"{"choices":[{"finish_reason":"error","message":{"content":""},"error":{"code":502}}]}"#,
            ErrorKind::Unavailable,
        ),
        (
            r#"{"choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"cut"},"error":{"code":429,"message":"m"}}]}"#,
            ErrorKind::RateLimited,
        ),
        (
            r#"{"choices":[{"index":0,"finish_reason":"error","message":{"role":"assistant","content":"cut"}}]}"#,
            ErrorKind::ServerError,
        ),
        (
            r#"{"choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"cut"}}],"error":{"code":503,"message":"m"}}"#,
            ErrorKind::Unavailable,
        ),
        (
            r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"cut"},"finish_reason":null}]}"#,
            ErrorKind::Incomplete,
        ),
        (
            r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"cut"},"finish_reason":""}]}"#,
            ErrorKind::Incomplete,
        ),
    ] {
        let error = fails(move || whole(200, body)).await;
        assert_eq!((error.kind(), error.status()), (kind, Some(200)), "{body}");
        // The same where a stream was asked for and the server answers whole.
        let streamed = call(openai(), http(move || whole(200, body)), ask().streamed()).await;
        assert_eq!(streamed.expect_err("an error").kind(), kind, "{body}");
    }
    let page = || with(whole(200, "<html>"), &[("content-type", "text/html")]);
    let error = call(anthropic(), http(page), ask().streamed())
        .await
        .expect_err("an error");
    assert_eq!(error.kind(), ErrorKind::InvalidResponse);
}

#[tokio::test]
async fn a_redirect_is_no_answer() {
    assert_eq!(
        fails(|| whole(302, "")).await.kind(),
        ErrorKind::InvalidResponse
    );
}

#[tokio::test]
async fn a_whole_answer_to_who_asked_for_a_stream_is_an_answer() {
    let response = call(openai(), http(|| whole(200, ANSWER)), ask().streamed())
        .await
        .expect("an answer");
    assert!(!response.is_stream());
    let (_, completion) = response.collect().await.expect("whole");
    assert_eq!(
        completion
            .as_chat()
            .map(|chat| chat.first_text().into_owned())
            .as_deref(),
        Some("hi")
    );
}

#[tokio::test]
async fn bodies_have_a_bound() {
    let large = "x".repeat(4096);
    let small = NonZeroUsize::new(1024).expect("not zero");
    let announced = http({
        let large = large.clone();
        move || whole(200, large.clone())
    });
    let gathered = http({
        let large = Bytes::from(large);
        move || {
            Response::new(packets(
                vec![large.slice(..1000), large.slice(1000..)],
                End::Whole,
            ))
        }
    });
    for http in [announced, gathered] {
        let provider = Provider::new(openai(), http).with_max_answer(small);
        let error = provider.oneshot(ask()).await.expect_err("too large");
        assert_eq!(error.kind(), ErrorKind::InvalidResponse);
        assert!(error.message().contains("larger than 1024"), "{error}");
    }
    let split = http(|| {
        let bytes = Bytes::from_static(ANSWER.as_bytes());
        Response::new(packets(
            (0..bytes.len()).map(|at| bytes.slice(at..=at)).collect(),
            End::Whole,
        ))
    });
    call(openai(), split, ask())
        .await
        .expect("an answer in pieces");
    // A refusal is one even if its page is endless.
    let endless = http(|| {
        let mut response = Response::new(packets(
            vec![Bytes::from(vec![b'x'; 1 << 20]); 4],
            End::Open,
        ));
        *response.status_mut() = http::StatusCode::BAD_GATEWAY;
        response
    });
    let error = call(openai(), endless, ask()).await.expect_err("an error");
    assert_eq!(
        (error.kind(), error.status()),
        (ErrorKind::Unavailable, Some(502))
    );
}

#[tokio::test]
async fn failures_of_the_transport() {
    let broken = |kind: io::ErrorKind| {
        service_fn(move |_: http::Request<_>| async move {
            Err::<Response<TestBody>, _>(io::Error::from(kind))
        })
    };
    for (cause, kind, billed) in [
        (
            io::ErrorKind::ConnectionRefused,
            ErrorKind::Connect,
            Billed::No,
        ),
        (
            io::ErrorKind::ConnectionReset,
            ErrorKind::Transport,
            Billed::Unknown,
        ),
        (
            io::ErrorKind::UnexpectedEof,
            ErrorKind::Transport,
            Billed::Unknown,
        ),
    ] {
        let mut request = ask();
        let ledger = request.call.begin().clone();
        let error = Provider::new(openai(), broken(cause))
            .oneshot(request)
            .await
            .expect_err("an error");
        assert_eq!(error.kind(), kind);
        assert_eq!(
            error
                .source()
                .and_then(|s| s.downcast_ref::<io::Error>())
                .map(io::Error::kind),
            Some(cause)
        );
        assert_eq!(
            ledger.attempts().map(|a| a.billed).collect::<Vec<_>>(),
            [billed]
        );
    }
    // Middleware around the client may fail in our own words.
    let limited = service_fn(|_: http::Request<_>| async {
        Err::<Response<TestBody>, _>(LlmError::new(ErrorKind::LimitedLocally, "full"))
    });
    let error = Provider::new(openai(), limited)
        .oneshot(ask())
        .await
        .expect_err("an error");
    assert_eq!(error.kind(), ErrorKind::LimitedLocally);

    let cut = || Response::new(packets(vec![Bytes::from_static(b"{\"id\":")], End::Broken));
    let error = fails(cut).await;
    assert_eq!(error.kind(), ErrorKind::Transport);
    assert!(error.source().is_some());
}

#[tokio::test]
async fn the_key_is_never_printed() {
    let provider = Provider::new(
        openai(),
        http(|| {
            whole(
                401,
                r#"{"error":{"message":"wrong","code":"invalid_api_key"}}"#,
            )
        }),
    );
    assert!(!format!("{provider:?}").contains("sk-1"));
    let future = provider.clone().oneshot(ask());
    let error = future.await.expect_err("an error");
    assert_eq!(error.kind(), ErrorKind::Authentication);
    assert!(!format!("{error} {error:?}").contains("sk-1"));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_whose_body_stalls_is_one() {
    let stalled = http(|| {
        let body = packets(vec![Bytes::from_static(b"{\"error\":")], End::Open);
        let mut response = with(Response::new(body), &[("retry-after", "7")]);
        *response.status_mut() = http::StatusCode::TOO_MANY_REQUESTS;
        response
    });
    let mut request = ask();
    let ledger = request.call.begin().clone();
    let billed = || ledger.attempts().map(|a| a.billed).collect::<Vec<_>>();
    let mut answer = std::pin::pin!(call(openai(), stalled, request));
    let early = tokio::time::timeout(Duration::from_millis(1), answer.as_mut()).await;
    assert!(early.is_err(), "the body may still come");
    assert_eq!(billed(), [Billed::No], "from the head on");
    let error = tokio::time::timeout(Duration::from_secs(2), answer)
        .await
        .expect("not waited for without end")
        .expect_err("an error");
    assert_eq!(
        (error.kind(), error.status(), error.retry_after()),
        (
            ErrorKind::RateLimited,
            Some(429),
            Some(Duration::from_secs(7))
        )
    );
}

#[tokio::test]
async fn an_error_in_place_of_a_stream_is_told_by_its_words_whatever_its_type() {
    for content_type in [
        "text/plain; charset=utf-8",
        "application/problem+json",
        "application/json",
    ] {
        let body = r#"{"error":{"message":"m","code":"insufficient_quota"}}"#;
        let answer = move || with(whole(200, body), &[("content-type", content_type)]);
        let streamed = call(openai(), http(answer), ask().streamed()).await;
        let error = streamed.expect_err("an error");
        assert_eq!(error.kind(), ErrorKind::QuotaExhausted, "{content_type}");
    }
    for content_type in ["text/event-stream", "Text/Event-Stream ; charset=utf-8"] {
        let answer = move || with(whole(200, ""), &[("content-type", content_type)]);
        let streamed = call(openai(), http(answer), ask().streamed()).await;
        assert!(streamed.expect("a stream").is_stream(), "{content_type}");
    }
}
