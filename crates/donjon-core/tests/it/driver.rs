//! What a driver tells that keeps its call.

use std::time::Duration;

use donjon_core::{
    AttemptCause, Body, Chunk, DropReason, Head, LlmRequest, LlmResponse, ResponseStream,
};
use futures_util::StreamExt;

use crate::{Heard, Items, Log};

/// A driver that keeps the call does by itself what `watch` does.
#[tokio::test(start_paused = true)]
async fn a_driver_can_tell_what_a_drop_means_and_hand_on_the_rest() {
    let mut request = LlmRequest::chat("m", []);
    request.call.set_timeout(Duration::from_secs(10));
    request.call.begin();
    let since = tokio::time::Instant::now();
    tokio::time::advance(Duration::from_secs(3)).await;
    let mut heard = Vec::new();
    request.call.tell_drop(Some(since), |outcome| {
        heard.push(format!("{outcome:?}"));
    });
    assert!(
        heard[0].contains("CallerLeft") && heard[0].contains("3s"),
        "{heard:?}"
    );

    let attempt = request.call.open_attempt(AttemptCause::First);
    attempt.set_dropped(DropReason::Superseded);
    request
        .call
        .tell_drop(None, |outcome| heard.push(format!("{outcome:?}")));
    assert!(
        heard[1].contains("Superseded") && heard[1].contains("0ns"),
        "{heard:?}"
    );

    let log = Log::default();
    let response = LlmResponse::stream(
        Head::new("m"),
        ResponseStream::new(
            1,
            Items(vec![Some(Ok(Chunk::text("a"))), Some(Ok(Chunk::text("b")))]),
        ),
    );
    let observed = request
        .call
        .observe(response, Some(since), log.observer("a"));
    let Body::Stream(mut stream) = observed.body else {
        panic!("it is a stream");
    };
    stream.next().await.expect("a").expect("text");
    drop(stream);
    let left = Heard::Cancelled(DropReason::Superseded, Duration::from_secs(3));
    assert_eq!(
        log.heard(),
        [Heard::Committed, Heard::Chunk("a".into()), left]
    );

    tokio::time::advance(Duration::from_secs(7)).await;
    request
        .call
        .tell_drop(Some(since), |outcome| heard.push(format!("{outcome:?}")));
    assert!(heard[2].contains("Failure"), "the deadline: {heard:?}");
}
