//! Answers past their time.

use donjon_cache::CacheEvent;
use donjon_core::{ErrorKind, Heard, Origin};
use donjon_testkit::{Script, ScriptedLlm};

use crate::{SECOND, around, ask, fails, hear, plain, send, settle};

#[tokio::test(start_paused = true)]
async fn an_answer_is_given_while_one_call_renews_it() {
    let model = ScriptedLlm::new(Script::answer("new").head_after(SECOND)).then("old");
    let (service, handle) = around(&model, plain().stale_while_revalidate(60 * SECOND));
    let mut events = handle.events().listen();
    hear(&service, ask("Hi")).await;
    tokio::time::advance(61 * SECOND).await;
    for _ in 0..10 {
        let answer = send(&service, ask("Hi")).await.expect("an answer");
        assert_eq!((answer.head.origin, answer.head.age), (Origin::Cache, 61));
        assert_eq!(answer.text().await.expect("whole"), "old");
        settle().await;
    }
    assert_eq!(model.count(), 2, "ten callers, one renewal");
    assert_eq!((handle.stale_hits(), handle.refreshes()), (10, 0));
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(
        hear(&service, ask("Hi")).await,
        ("new".to_owned(), Origin::Cache)
    );
    assert_eq!((handle.refreshes(), handle.entries()), (1, 1));
    let mut heard = Vec::new();
    while let Some(Heard::Event(event)) = events.try_next() {
        heard.push(std::mem::discriminant(&event));
    }
    assert_eq!(heard.len(), 3, "kept, kept, renewed");
}

#[tokio::test(start_paused = true)]
async fn a_stream_renews_an_answer_to_its_end() {
    let slow = Script::words(5).gap(SECOND);
    let model = ScriptedLlm::new(slow).then("old");
    let (service, handle) = around(&model, plain().stale_while_revalidate(60 * SECOND));
    hear(&service, ask("Hi").streamed()).await;
    tokio::time::advance(61 * SECOND).await;
    // The caller is gone at once.
    drop(send(&service, ask("Hi").streamed()).await);
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(hear(&service, ask("Hi")).await.0, "w0 w1 w2 w3 w4 ");
    assert_eq!(handle.refreshes(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_fails_is_tried_again_later() {
    let model = ScriptedLlm::new(Script::fail(ErrorKind::ServerError)).then("old");
    let (service, handle) = around(&model, plain().stale_while_revalidate(600 * SECOND));
    hear(&service, ask("Hi")).await;
    tokio::time::advance(61 * SECOND).await;
    for _ in 0..100 {
        assert_eq!(hear(&service, ask("Hi")).await.0, "old");
        settle().await;
    }
    assert_eq!((model.count(), handle.refresh_failures()), (2, 1));
    // A tenth of its time to live.
    tokio::time::advance(6 * SECOND).await;
    hear(&service, ask("Hi")).await;
    settle().await;
    assert_eq!((model.count(), handle.refresh_failures()), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_hangs_or_panics_ends() {
    for script in [Script::hang(), Script::panics("boom")] {
        let model = ScriptedLlm::new("new").then("old").then(script);
        let stale = plain().stale_while_revalidate(600 * SECOND);
        let (service, handle) = around(&model, stale.refresh_timeout(5 * SECOND));
        hear(&service, ask("Hi")).await;
        tokio::time::advance(61 * SECOND).await;
        hear(&service, ask("Hi")).await;
        tokio::time::sleep(20 * SECOND).await;
        assert_eq!(handle.refresh_failures(), 1);
        hear(&service, ask("Hi")).await;
        settle().await;
        assert_eq!(hear(&service, ask("Hi")).await.0, "new");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_stands_in_for_an_error() {
    let model = ScriptedLlm::new(Script::fail(ErrorKind::AllTargetsFailed)).then("old");
    let (service, handle) = around(&model, plain().stale_if_error(60 * SECOND));
    let mut events = handle.events().listen();
    hear(&service, ask("Hi")).await;
    tokio::time::advance(61 * SECOND).await;
    let answer = send(&service, ask("Hi").streamed())
        .await
        .expect("an answer");
    assert_eq!((answer.head.origin, answer.head.age), (Origin::Cache, 61));
    assert_eq!(answer.text().await.expect("whole"), "old");
    assert_eq!(
        (model.count(), handle.answered_instead(), handle.misses()),
        (2, 1, 2)
    );
    let mut told = std::iter::from_fn(|| events.try_next());
    let error = ErrorKind::AllTargetsFailed;
    assert!(told.any(|event| event == Heard::Event(CacheEvent::AnsweredInstead { error })));
    // It has an end too.
    tokio::time::advance(60 * SECOND).await;
    fails(&service, ask("Hi")).await;
}

#[tokio::test(start_paused = true)]
async fn but_not_for_the_callers_own() {
    for kind in [
        ErrorKind::InvalidRequest,
        ErrorKind::OverBudget,
        ErrorKind::ContentPolicy,
    ] {
        let model = ScriptedLlm::new(Script::fail(kind)).then("old");
        let (service, _) = around(&model, plain().stale_if_error(60 * SECOND));
        hear(&service, ask("Hi")).await;
        tokio::time::advance(61 * SECOND).await;
        assert_eq!(fails(&service, ask("Hi")).await.kind(), kind);
    }
}
