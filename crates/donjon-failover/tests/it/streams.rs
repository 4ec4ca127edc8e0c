//! Streams: failover up to the commit point, and not after it.

use std::time::Duration;

use donjon_core::{Body, ErrorKind, LlmResponse, Role};
use donjon_testkit::{CallEnd, Script};
use futures_util::StreamExt;

use crate::{ask, counts, failover, model, request, served};

async fn collect(answer: LlmResponse) -> Vec<Result<donjon_core::Chunk, donjon_core::LlmError>> {
    match answer.body {
        Body::Stream(stream) => stream.collect().await,
        Body::Complete(_) => panic!("a stream was asked for"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_before_its_first_token_is_taken_up_elsewhere() {
    let broken = [
        Script::words(3).cut_after(0),
        Script::words(3).fail_after(0, ErrorKind::Overloaded),
        Script::words(3).malformed_after(0),
    ];
    for script in broken {
        let models = [model(script), model("two words")];
        let failover = failover(&models);
        let answer = ask(&failover, request().streamed()).await;
        assert_eq!(served(&answer), "b");
        let chunks = collect(answer.expect("b serves")).await;
        let chunks: Vec<_> = chunks.into_iter().map(|c| c.expect("whole")).collect();
        let choices = || chunks.iter().flat_map(|chunk| &chunk.choices);
        let roles = choices().filter(|c| c.role == Some(Role::Assistant));
        assert_eq!(roles.count(), 1, "the caller sees one role");
        let text: String = choices().filter_map(|c| c.content.as_deref()).collect();
        assert_eq!(text, "two words");
        let a = failover.handle().target("a").expect("it is there");
        assert_eq!((a.calls, a.failed()), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_later_is_told_in_band_and_counts_as_a_failure() {
    let models = [model(Script::words(3).cut_after(1)), model("two")];
    let failover = failover(&models);
    let answer = ask(&failover, request().streamed()).await;
    assert_eq!(served(&answer), "a");
    let stats = || failover.handle().target("a").expect("it is there");
    assert_eq!(
        (stats().calls, stats().in_flight()),
        (1, 1),
        "it has not ended"
    );
    let chunks = collect(answer.expect("it began")).await;
    let last = chunks.last().expect("something came");
    assert_eq!(
        last.as_ref().expect_err("cut").kind(),
        ErrorKind::Incomplete
    );
    assert_eq!((stats().successes, stats().in_flight()), (0, 0));
    assert_eq!(stats().failed_with(ErrorKind::Incomplete), 1);
    assert_eq!(
        stats().last_error.map(|e| e.kind()),
        Some(ErrorKind::Incomplete)
    );
    assert_eq!(counts(&models), [1, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_counts_when_it_ends() {
    let target = model(Script::words(3).gap(Duration::from_secs(1)));
    let failover = failover(std::slice::from_ref(&target));
    let stats = || failover.handle().targets().remove(0);

    let answer = ask(&failover, request().streamed())
        .await
        .expect("it serves");
    assert_eq!(stats().successes, 0);
    collect(answer).await;
    assert_eq!((stats().successes, stats().in_flight()), (1, 0));

    let answer = ask(&failover, request().streamed())
        .await
        .expect("it serves");
    drop(answer);
    assert_eq!((stats().cancelled, stats().in_flight()), (1, 0));
    assert_eq!(target.in_progress(), 0);
    let ends = target.ends();
    assert!(
        matches!(ends[1], Some(CallEnd::CancelledMidStream { .. })),
        "{ends:?}"
    );
}
