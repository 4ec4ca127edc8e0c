//! Streams that several read.

use donjon_cache::flight::{Flights, SingleFlightLayer};
use donjon_core::{Body, ErrorKind, LlmResponse, ResponseStream, Usage};
use donjon_testkit::{Script, ScriptedLlm};
use tokio::time::Instant;
use tower::{Layer, Service};

use super::{SECOND, around, request, send};
use crate::{chunks, told_no_usage, written};

fn stream(answer: LlmResponse) -> ResponseStream {
    match answer.body {
        Body::Stream(stream) => stream,
        _ => panic!("not a stream"),
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_comes_late_gets_what_was_said_and_then_the_rest_as_it_comes() {
    let script = Script::tokens(["a", "b", "c", "d"])
        .first_token_after(SECOND)
        .gap(SECOND);
    let model = ScriptedLlm::new(script);
    let (service, _) = around(&model);
    let mut first = stream(
        send(&service, request().streamed())
            .await
            .expect("a stream"),
    );
    for _ in 0..3 {
        first.next_chunk().await.expect("goes on").expect("a chunk");
    }
    let late = send(&service, request().streamed()).await.expect("joined");
    assert_eq!(late.head.origin, donjon_core::Origin::Coalesced);
    let rest = tokio::spawn(async move {
        let mut rest = Vec::new();
        while let Some(chunk) = first.next_chunk().await {
            rest.push(chunk.expect("a chunk"));
        }
        rest
    });
    let all = chunks(late).await;
    let rest = rest.await.expect("no panic");
    let tail = &all[all.len() - rest.len()..];
    assert_eq!(
        written(tail),
        written(&rest),
        "the same from where it joined"
    );
    assert_eq!(model.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_stream_goes_on_for_whoever_came_late_when_the_first_leaves() {
    let model = ScriptedLlm::new(Script::words(4).gap(SECOND)).commits();
    let (service, _) = around(&model);
    let mut first = stream(
        send(&service, request().streamed())
            .await
            .expect("a stream"),
    );
    for _ in 0..3 {
        first.next_chunk().await.expect("goes on").expect("a chunk");
    }
    let late = send(&service, request().streamed()).await.expect("joined");
    drop(first);
    assert_eq!(late.text().await.expect("whole"), "w0 w1 w2 w3 ");
    assert_eq!((model.count(), model.cancelled()), (1, 0));
}

/// Whoever asks for a whole answer is served by the stream of another.
#[tokio::test(start_paused = true)]
async fn a_whole_answer_comes_of_a_stream_in_the_air() {
    let model = ScriptedLlm::new(Script::words(4).first_token_after(SECOND));
    let (service, _) = around(&model);
    let (streamed, whole) = tokio::join!(
        async {
            send(&service, request().streamed())
                .await
                .expect("a stream")
                .text()
                .await
        },
        async { send(&service, request()).await.expect("an answer") },
    );
    assert!(!whole.is_stream());
    assert_eq!(whole.text().await.expect("whole"), streamed.expect("whole"));
    assert_eq!(model.count(), 1);
}

/// As from a provider, which is asked for it in any case; who did not ask is not shown it at the edge.
#[tokio::test(start_paused = true)]
async fn every_member_learns_the_usage() {
    let usage = Usage::new(3, 4);
    let model = ScriptedLlm::new(Script::words(4).usage(usage).first_token_after(SECOND));
    let (service, _) = around(&model);
    let (first, joined) = tokio::join!(
        async {
            chunks(
                send(&service, told_no_usage(request()))
                    .await
                    .expect("a stream"),
            )
            .await
        },
        async {
            chunks(
                send(&service, request().streamed())
                    .await
                    .expect("a stream"),
            )
            .await
        },
    );
    for all in [first, joined] {
        assert_eq!(
            all.iter().filter_map(|chunk| chunk.usage).last(),
            Some(usage)
        );
    }
    assert_eq!(model.count(), 1);
}

/// S12: nothing piles up without bound, and one who does not read does not hold up the others for
/// ever.
#[tokio::test(start_paused = true)]
async fn one_who_reads_too_slowly_is_let_go_of() {
    let model = ScriptedLlm::new(Script::words(200));
    let flights = Flights::builder().max_bytes(2_048).max_stall(5 * SECOND);
    let layer = SingleFlightLayer::new(flights.build().expect("sensible"));
    let service = layer.layer(model.clone());
    let (slow, quick) = tokio::join!(
        send(&service, request().streamed()),
        send(&service, request().streamed()),
    );
    let (mut slow, quick) = (stream(slow.expect("a stream")), quick.expect("a stream"));
    let text = quick.text().await.expect("the quick one has all of it");
    assert_eq!(text.split_whitespace().count(), 200);
    let flights = layer.handle();
    assert_eq!((flights.let_go(), flights.outgrown()), (1, 1));
    let error = loop {
        match slow.next_chunk().await {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error,
            None => panic!("a cut answer is not a whole one"),
        }
    };
    assert_ne!(error.kind(), ErrorKind::Incomplete, "{error}");
}

/// Nor does one whose call is never polled.
#[tokio::test(start_paused = true)]
async fn one_who_is_never_polled_is_let_go_of() {
    let model = ScriptedLlm::new(Script::words(200));
    let flights = Flights::builder().max_bytes(2_048).max_stall(5 * SECOND);
    let layer = SingleFlightLayer::new(flights.build().expect("sensible"));
    let mut service = layer.layer(model.clone());
    for first in [true, false] {
        let idle = first.then(|| service.call(request().streamed()));
        let read = service.call(request().streamed());
        let idle = idle.unwrap_or_else(|| service.call(request().streamed()));
        let began = Instant::now();
        let text = read.await.expect("a stream").text().await;
        let text = text.expect("the one who reads has all of it");
        assert_eq!(text.split_whitespace().count(), 200);
        assert_eq!(began.elapsed(), 5 * SECOND);
        idle.await.expect_err("too late");
    }
    assert_eq!((layer.handle().let_go(), model.count()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn over_the_bound_whoever_comes_makes_a_call_of_their_own() {
    let model = ScriptedLlm::new(Script::words(200).gap(SECOND));
    let flights = Flights::builder()
        .max_bytes(2_048)
        .build()
        .expect("sensible");
    let layer = SingleFlightLayer::new(flights);
    let service = layer.layer(model.clone());
    let mut first = stream(
        send(&service, request().streamed())
            .await
            .expect("a stream"),
    );
    while layer.handle().outgrown() == 0 {
        first.next_chunk().await.expect("goes on").expect("a chunk");
    }
    let second = send(&service, request().streamed()).await.expect("its own");
    assert_eq!(second.head.origin, donjon_core::Origin::Upstream);
    assert_eq!(model.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn all_hear_the_error_of_the_call() {
    let cut = Script::words(10).gap(SECOND).cut_after(3);
    for script in [Script::fail(ErrorKind::Overloaded), cut] {
        let model = ScriptedLlm::new(script.head_after(SECOND));
        let (service, flights) = around(&model);
        let whole = || async {
            let answer = send(&service, request().streamed()).await?;
            answer.collect().await
        };
        let (one, other) = tokio::join!(whole(), whole());
        let (one, other) = (one.expect_err("failed"), other.expect_err("failed"));
        assert_eq!(one.kind(), other.kind());
        assert_eq!((model.count(), flights.in_the_air()), (1, 0));
        // What has failed is not in the way of the next.
        model.set_otherwise(Script::answer("well"));
        send(&service, request()).await.expect("served");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_an_error_to_all_and_ends_nobody_else() {
    // One that panics as soon as it is called has nobody who could join it.
    let at_once = (Script::panics("ouch"), 2);
    let later = (Script::words(5).panic_after(2).head_after(SECOND), 1);
    for (script, panics) in [at_once, later] {
        let model = ScriptedLlm::new(script);
        let (service, flights) = around(&model);
        let whole = || async {
            let answer = send(&service, request().streamed()).await?;
            answer.collect().await
        };
        let (one, other) = tokio::join!(whole(), whole());
        for error in [one.expect_err("failed"), other.expect_err("failed")] {
            assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
        }
        assert_eq!((flights.panicked(), flights.in_the_air()), (panics, 0));
    }
}
