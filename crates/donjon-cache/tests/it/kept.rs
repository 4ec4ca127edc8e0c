//! What is never kept.

use donjon_cache::{CacheBuilder, Refused};
use donjon_core::{ErrorKind, FinishReason, Origin};
use donjon_testkit::{Script, ScriptedLlm};

use crate::{SECOND, around, ask, chunks, fails, hear, plain, send};

/// What this script answers is not kept, for this reason, whole or streamed.
async fn is_refused(script: impl Fn() -> Script, builder: CacheBuilder, why: Refused) {
    for stream in [true, false] {
        let model = ScriptedLlm::new(script());
        let (service, handle) = around(&model, builder.clone());
        for _ in 0..2 {
            let request = if stream {
                ask("Hi").streamed()
            } else {
                ask("Hi")
            };
            if let Ok(answer) = send(&service, request).await {
                let _ = answer.collect().await;
            }
        }
        assert_eq!(model.count(), 2, "{why:?}, streamed: {stream}");
        assert_eq!(handle.refused(why), 2, "{why:?}, streamed: {stream}");
        assert_eq!((handle.entries(), handle.stored()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn errors_are_not() {
    let errors = [
        ErrorKind::RateLimited,
        ErrorKind::ServerError,
        ErrorKind::InvalidRequest,
    ];
    for kind in errors {
        is_refused(|| Script::fail(kind), plain(), Refused::Error).await;
    }
}

#[tokio::test(start_paused = true)]
async fn cut_streams_are_not() {
    let cut = || Script::words(5).cut_after(3);
    is_refused(cut, plain(), Refused::Error).await;
    let broken = || Script::words(5).fail_after(3, ErrorKind::StreamBroken);
    is_refused(broken, plain(), Refused::Error).await;
    is_refused(
        || Script::words(5).no_finish_reason(),
        plain(),
        Refused::Error,
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_a_filter_held_back_is_not() {
    let filtered = || Script::words(5).content_filter();
    is_refused(filtered, plain(), Refused::Filtered).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_too_long_is_not() {
    let long = || Script::answer("w".repeat(100_000));
    is_refused(long, plain().max_entry_bytes(50_000), Refused::TooLong).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_cut_at_its_limit_is_not_unless_all_is() {
    let cut = || Script::words(5).finish(FinishReason::Length);
    let model = ScriptedLlm::new(cut());
    let (service, _) = around(&model, plain());
    hear(&service, ask("Hi")).await;
    assert_eq!(hear(&service, ask("Hi")).await.1, Origin::Cache);
    let strict = || plain().strategy(donjon_cache::Strategy::Conservative);
    is_refused(cut, strict(), Refused::Truncated).await;
}

/// Dropped at any point before its end.
#[tokio::test(start_paused = true)]
async fn what_the_caller_left_is_not() {
    let model = ScriptedLlm::new(Script::words(5).gap(SECOND).head_after(SECOND));
    let (service, handle) = around(&model, plain());
    let gone = tokio::time::timeout(SECOND / 2, send(&service, ask("Hi"))).await;
    assert!(gone.is_err());
    let mut answer = send(&service, ask("Hi").streamed())
        .await
        .expect("a stream");
    if let donjon_core::Body::Stream(stream) = &mut answer.body {
        stream.next_chunk().await;
    }
    drop(answer);
    assert_eq!(handle.refused(Refused::Cancelled), 2);
    assert_eq!(handle.entries(), 0);
    // Whoever heard the finish reason has heard all.
    let mut answer = send(&service, ask("Hi").streamed())
        .await
        .expect("a stream");
    if let donjon_core::Body::Stream(stream) = &mut answer.body {
        while let Some(Ok(chunk)) = stream.next_chunk().await {
            if chunk.finishes() {
                break;
            }
        }
    }
    drop(answer);
    assert_eq!(handle.entries(), 1);
    let again = chunks(
        send(&service, ask("Hi").streamed())
            .await
            .expect("a stream"),
    )
    .await;
    assert!(again.iter().any(|chunk| chunk.finishes()));
}

#[tokio::test(start_paused = true)]
async fn the_callers_own_mistakes_are_where_that_is_asked_for() {
    let model = ScriptedLlm::new("Hello!")
        .then(Script::fail(ErrorKind::ContextLength))
        .then(Script::fail(ErrorKind::ServerError));
    let (service, handle) = around(&model, plain().negative_ttl(5 * SECOND));
    for _ in 0..3 {
        assert_eq!(
            fails(&service, ask("long")).await.kind(),
            ErrorKind::ContextLength
        );
    }
    assert_eq!(model.count(), 1);
    assert_eq!((handle.negative_hits(), handle.hits()), (2, 2));
    // The provider's are not.
    assert_eq!(
        fails(&service, ask("Hi")).await.kind(),
        ErrorKind::ServerError
    );
    assert_eq!(hear(&service, ask("Hi")).await.1, Origin::Upstream);
    tokio::time::advance(5 * SECOND).await;
    assert_eq!(hear(&service, ask("long")).await.1, Origin::Upstream);
}
