//! Streams that are opened before their calls commit.

use std::time::Duration;

use donjon_core::{ErrorKind, LlmError, LlmRequest, LlmResponse};
use donjon_serve::Serve;
use http_body_util::BodyExt;
use tokio::time::{Instant, sleep};
use tower::Service;

use crate::support::{
    CHAT, HELLO, HELLO_STREAM, ask, events, hello_chunks, post, read, read_out, stream_of,
};

/// A service that answers after `wait`.
fn slow(
    wait: Duration,
    fails: bool,
) -> impl Service<LlmRequest, Response = LlmResponse, Error = LlmError, Future: Send>
+ Clone
+ Send
+ 'static {
    tower::service_fn(move |_| async move {
        sleep(wait).await;
        match fails {
            false => Ok(stream_of(hello_chunks())),
            true => Err(LlmError::new(ErrorKind::Overloaded, "busy")),
        }
    })
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn the_head_comes_after_the_wait_and_comments_keep_the_stream_alive() {
    let serve = Serve::builder(slow(10 * SECOND, false))
        .open_early_after(2 * SECOND)
        .keep_alive(3 * SECOND)
        .build()
        .unwrap();
    let start = Instant::now();
    let response = ask(&serve, post(CHAT, HELLO_STREAM)).await;
    assert_eq!(start.elapsed().as_secs(), 2);
    assert_eq!(response.status(), 200);
    assert!(!response.headers().contains_key("x-donjon-model"));
    let mut body = response.into_body();
    for at in [2, 5, 8] {
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(&frame[..], b": keep-alive\n\n");
        assert_eq!(start.elapsed().as_secs(), at);
    }
    let rest = body.collect().await.unwrap().to_bytes();
    assert_eq!(start.elapsed().as_secs(), 10);
    assert_eq!(events(&rest).len(), 5);
    assert!(rest.ends_with(b"data: [DONE]\n\n"));
}

#[tokio::test(start_paused = true)]
async fn a_failure_after_that_is_in_band_and_before_it_has_its_status() {
    let serve = |wait| {
        let serve = Serve::builder(slow(wait, true)).open_early_after(2 * SECOND);
        serve.build().unwrap()
    };
    let answer = read_out(ask(&serve(3 * SECOND), post(CHAT, HELLO_STREAM)).await).await;
    assert_eq!(answer.status, 200);
    let events = answer.events();
    assert!(
        events.last().unwrap().contains("\"overloaded\""),
        "{events:?}"
    );
    let answer = read(&serve(SECOND), post(CHAT, HELLO_STREAM)).await;
    assert_eq!(answer.status, 503);
    // A whole answer has no way to tell a failure in-band.
    let answer = read(&serve(3 * SECOND), post(CHAT, HELLO)).await;
    assert_eq!(answer.status, 503);
}

#[tokio::test(start_paused = true)]
async fn by_default_the_head_waits() {
    let start = Instant::now();
    let serve = Serve::new(slow(100 * SECOND, false));
    let answer = read(&serve, post(CHAT, HELLO_STREAM)).await;
    assert_eq!(start.elapsed().as_secs(), 100);
    assert_eq!(answer.events().len(), 5);
}
