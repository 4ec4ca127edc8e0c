//! Over real HTTP: connections are kept, and given up where that ends something.

use std::time::Duration;

use donjon_core::{Body, ErrorKind, LlmError, LlmRequest, LlmResponse, TimeoutClock};
use donjon_providers::{
    Anthropic, OpenAi, Provider,
    transport::{HttpClient, Proxy},
};
use donjon_testkit::upstream::{Script, Upstream};
use futures_util::StreamExt;
use tower::ServiceExt;

use crate::support::ask;

fn client() -> HttpClient {
    HttpClient::builder()
        .proxy(Proxy::none())
        .build()
        .expect("valid")
}

async fn start(script: Script) -> Upstream {
    Upstream::builder()
        .otherwise(script)
        .start()
        .await
        .expect("a port")
}

async fn call(
    upstream: &Upstream,
    client: &HttpClient,
    request: LlmRequest,
) -> Result<LlmResponse, LlmError> {
    let codec = OpenAi::compatible(upstream.base_url())
        .build()
        .expect("valid");
    Provider::new(codec, client.clone()).oneshot(request).await
}

#[tokio::test]
async fn streams_one_after_the_other_share_a_connection() {
    let upstream = start(Script::answer("one two three")).await;
    let client = client();
    for _ in 0..5 {
        let response = call(&upstream, &client, ask().streamed())
            .await
            .expect("a stream");
        let (_, completion) = response.collect().await.expect("whole");
        assert_eq!(
            completion
                .as_chat()
                .map(|c| c.first_text().into_owned())
                .as_deref(),
            Some("one two three")
        );
        // The rest of the body is read beside; it is there by the time the upstream has written it.
        while client.stats().in_flight > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    assert_eq!(upstream.accepted_connections(), 1);
}

#[tokio::test]
async fn both_dialects_say_the_same() {
    let upstream = start(Script::answer("one two three")).await;
    let codec = Anthropic::builder()
        .base_url(upstream.origin())
        .api_key("k")
        .build()
        .expect("valid");
    let anthropic = Provider::new(codec, client());
    for request in [ask(), ask().streamed()] {
        for response in [
            anthropic.clone().oneshot(request.clone()).await,
            call(&upstream, &client(), request).await,
        ] {
            let (_, completion) = response.expect("an answer").collect().await.expect("whole");
            let chat = completion.as_chat().expect("a chat");
            assert_eq!(chat.first_text(), "one two three");
            assert!(chat.is_finished() && chat.usage.is_some());
        }
    }
}

#[tokio::test]
async fn leaving_a_stream_ends_it_upstream() {
    let upstream = start(Script::words(1000).gap(Duration::from_millis(5))).await;
    let client = client();
    let response = call(&upstream, &client, ask().streamed())
        .await
        .expect("a stream");
    let Body::Stream(mut stream) = response.body else {
        panic!("a stream was asked for")
    };
    stream.next().await.expect("an item").expect("a chunk");
    drop(stream);
    let seen = tokio::time::timeout(
        Duration::from_secs(5),
        upstream.wait_for(|seen| seen.cancelled() == 1),
    );
    seen.await.expect("the upstream hears of it");
    assert_eq!(client.stats().in_flight, 0);
}

#[tokio::test]
async fn failures_have_their_kind() {
    let unused =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let codec = OpenAi::compatible(format!("http://{}/v1", unused.expect("a port"))).build();
    let error = Provider::new(codec.expect("valid"), client())
        .oneshot(ask())
        .await;
    assert_eq!(error.expect_err("an error").kind(), ErrorKind::Connect);

    let reset = start(Script::reset()).await;
    let error = call(&reset, &client(), ask()).await.expect_err("an error");
    assert_eq!(error.kind(), ErrorKind::Transport);
    assert_ne!(error.kind(), ErrorKind::Timeout(TimeoutClock::Connect));
}
