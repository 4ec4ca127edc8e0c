//! What the client makes of failures, and what it does about them.

use async_openai::{
    error::{ApiErrorResponse, OpenAIError},
    middleware::{ReqwestService, retry::OpenAIRetryLayer},
};
use donjon_testkit::upstream::{Failure, Script};
use futures_util::StreamExt;
use tokio::time::timeout;
use tower::ServiceBuilder;

use super::{client, question, streamed, text_of};
use crate::support::{ANTHROPIC, Gate, OPENAI, SOON, always, config, steady, upstream};

/// The error that the API answered with.
pub(super) fn refused<T: std::fmt::Debug>(result: Result<T, OpenAIError>) -> ApiErrorResponse {
    match result {
        Err(OpenAIError::ApiError(error)) => error,
        other => panic!("not an error of the API: {other:?}"),
    }
}

#[tokio::test]
async fn errors_keep_their_status_code_and_field() {
    let cases = [
        (Failure::invalid_api_key(), 401, "invalid_api_key", None),
        (Failure::permission_denied(), 403, "permission_denied", None),
        (Failure::model_not_found(), 404, "model_not_found", None),
        (
            Failure::context_length_exceeded(),
            400,
            "context_length_exceeded",
            Some("messages"),
        ),
        (
            Failure::content_policy(),
            400,
            "content_policy_violation",
            None,
        ),
        (
            Failure::insufficient_quota(),
            429,
            "insufficient_quota",
            None,
        ),
    ];
    for (failure, status, code, field) in cases {
        let only = always(failure).await;
        // Were there a reason to repeat any of these, it would be.
        let gate = Gate::open(&config(&[(OPENAI, &only)], 3, "")).await;
        let client = client(&gate);
        let error = refused(client.chat().create(question()).await);
        assert_eq!(error.status_code, status, "{error}");
        assert_eq!(error.api_error.code.as_deref(), Some(code), "{error}");
        assert_eq!(error.api_error.param.as_deref(), field, "{error}");
        assert!(!error.api_error.message.contains("sk-"), "{error}");
        // A stream that fails before its first token has the same status.
        match client.chat().create_stream(question()).await {
            Err(OpenAIError::ApiError(error)) => assert_eq!(error.status_code, status, "{error}"),
            Err(other) => panic!("not an error of the API: {other:?}"),
            Ok(_) => panic!("{code}: a stream opened"),
        }
        assert_eq!(only.count(), 2, "{code}");
    }
}

#[tokio::test]
async fn a_parameter_that_the_provider_refuses_is_named() {
    let only = always(Failure::invalid_request()).await;
    let gate = Gate::open(&config(&[(OPENAI, &only)], 3, "")).await;
    let error = refused(client(&gate).chat().create(question()).await);
    assert_eq!(error.status_code, 400);
    assert_eq!(error.api_error.param.as_deref(), Some("temperature"));
    let kind = error.api_error.r#type.as_deref();
    assert_eq!(kind, Some("invalid_request_error"));
    assert_eq!(only.count(), 1);
}

#[tokio::test]
async fn a_model_that_no_route_takes_is_refused_without_asking_anybody() {
    let only = steady().await;
    let config = config(&[(OPENAI, &only)], 3, "").replace("\"*\"", "\"claude-*\"");
    let gate = Gate::open(&config).await;
    let error = refused(client(&gate).chat().create(question()).await);
    assert_eq!(error.status_code, 404);
    assert_eq!(error.api_error.code.as_deref(), Some("model_not_found"));
    assert!(error.api_error.message.contains("gpt-4o"), "{error}");
    assert_eq!(only.count(), 0);
}

#[tokio::test]
async fn an_error_after_the_first_token_reaches_the_client_and_provokes_nothing() {
    let first = always(Script::words(9).cut_after(3)).await;
    let second = steady().await;
    let gate = Gate::before(&[&first, &second]).await;
    let stream = client(&gate).chat().create_stream(question()).await;
    let items: Vec<_> = timeout(SOON, stream.expect("it opens").collect())
        .await
        .expect("it ends");
    let (last, chunks) = items.split_last().expect("items");
    let chunks: Vec<_> = chunks
        .iter()
        .map(|chunk| chunk.as_ref().expect("a chunk").clone())
        .collect();
    assert_eq!(text_of(&chunks, 0), "w0 w1 w2 ");
    // The client has no words for an error in a stream, and shows what was sent.
    match last {
        Err(OpenAIError::JSONDeserialize(_, sent)) => {
            assert!(sent.starts_with(r#"{"error":{"#), "{sent}");
        }
        other => panic!("a short success: {other:?}"),
    }
    assert_eq!((first.count(), second.count()), (1, 0));
}

/// Told to leave retries to the gateway, the client asks it once, and the gateway asks each target
/// as often as it is configured to.
#[tokio::test]
async fn an_exhausted_stack_is_asked_once_by_a_client_that_does_not_retry() {
    for (failure, status) in [
        (Failure::service_unavailable(), 503),
        (Failure::server_error(), 502),
        (Failure::rate_limited(), 429),
    ] {
        let first = always(failure.clone()).await;
        let second = always(failure).await;
        let targets = [(OPENAI, &first), (OPENAI, &second)];
        let gate = Gate::open(&config(&targets, 2, "")).await;
        let service = ServiceBuilder::new()
            .layer(OpenAIRetryLayer::new(0))
            .service(ReqwestService::default());
        let client = client(&gate).with_http_service(service);
        let error = refused(client.chat().create(question()).await);
        assert_eq!(error.status_code, status, "{error}");
        let made = first.count() + second.count();
        // One attempt is kept for each target; the call's total is 2 + 2 - 1.
        assert_eq!((first.count(), second.count(), made), (2, 1, 3), "{status}");
    }
}

/// Out of the box the client goes by the status alone and asks an exhausted stack three times more:
/// `x-should-retry: false` is there (see `errors`) and it does not read it. Each of its requests is a
/// call of its own, and none of them makes more attempts than one call may.
#[tokio::test]
async fn out_of_the_box_it_repeats_a_503_whatever_the_gateway_says() {
    // The hint is passed on, and spares this test the client's own waits.
    let only = always(Script::from(Failure::service_unavailable()).retry_after(0)).await;
    let gate = Gate::open(&config(&[(OPENAI, &only)], 1, "")).await;
    let error = refused(client(&gate).chat().create(question()).await);
    assert_eq!(error.status_code, 503);
    assert_eq!(only.count(), 4);
}

/// Behind a gateway whose final errors have a status that nobody repeats, it asks once, as it comes.
#[tokio::test]
async fn out_of_the_box_it_leaves_an_exhausted_stack_alone_that_answers_with_a_final_status() {
    for (failure, code) in [
        (Failure::service_unavailable(), None),
        (Failure::server_error(), None),
        (Failure::rate_limited(), Some("rate_limit_exceeded")),
    ] {
        let first = always(failure.clone()).await;
        let second = always(failure).await;
        let targets = [(OPENAI, &first), (OPENAI, &second)];
        let more = "[server]\nfinal_status = 424";
        let gate = Gate::open(&config(&targets, 2, more)).await;
        let error = refused(client(&gate).chat().create(question()).await);
        assert_eq!(error.status_code, 424, "{error}");
        if code.is_some() {
            assert_eq!(error.api_error.code.as_deref(), code);
        }
        assert_eq!((first.count(), second.count()), (2, 1));
    }
}

#[tokio::test]
async fn failures_that_the_gateway_heals_are_not_seen() {
    let first = upstream([
        Script::from(Failure::server_error()),
        Script::reset(),
        Script::from(Failure::overloaded()),
    ])
    .await;
    let gate = Gate::open(&config(&[(OPENAI, &first)], 4, "")).await;
    let answer = client(&gate)
        .chat()
        .create(question())
        .await
        .expect("served");
    assert_eq!(answer.choices[0].message.content.as_deref(), Some("served"));
    assert_eq!(first.count(), 4);

    let claude = steady().await;
    let down = always(Failure::service_unavailable()).await;
    let targets = [(OPENAI, &down), (ANTHROPIC, &claude)];
    let gate = Gate::open(&config(&targets, 1, "")).await;
    let chunks = streamed(&client(&gate), question()).await;
    assert_eq!(text_of(&chunks, 0), "served");
    assert_eq!((down.count(), claude.count()), (1, 1));
}
