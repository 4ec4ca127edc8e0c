//! The helpers tell what they saw.

use std::{pin::pin, task::Poll};

use donjon_core::{LlmError, LlmRequest, LlmResponse, Observer, watch};
use donjon_testkit::{
    ScriptedLlm,
    probe::{EndLog, HeardEnd, collect_text, poll_at_most, poll_once},
};
use tower::ServiceExt;

#[test]
fn an_observer_without_an_end_is_found() {
    let log = EndLog::new();
    let waiting = log.observer();
    assert_eq!(
        log.fault().as_deref(),
        Some("observer 0 still waits for an end")
    );
    drop(waiting);
    assert_eq!(
        log.fault().as_deref(),
        Some("observer 0 was dropped without an end")
    );
}

#[tokio::test]
async fn an_observer_with_two_ends_is_found() {
    /// Passes on each end twice.
    struct Twice(donjon_testkit::probe::EndObserver);
    impl Observer for Twice {
        fn end(&mut self, end: &donjon_core::End<'_>) {
            self.0.end(end);
            self.0.end(end);
        }
    }
    let log = EndLog::new();
    let call = LlmRequest::chat("m", []).call;
    let failed = std::future::ready(Err::<LlmResponse, _>(LlmError::new(
        donjon_core::ErrorKind::Overloaded,
        "",
    )));
    let _ = watch(&call, failed, Twice(log.observer())).await;
    assert_eq!(log.ends().len(), 2);
    let fault = log.fault().expect("two ends");
    assert!(fault.contains("several ends"), "{fault}");
}

#[tokio::test]
async fn the_model_tells_its_observers() {
    let log = EndLog::new();
    let model = ScriptedLlm::new("one two").observed_by(&log);
    let answer = model.oneshot(LlmRequest::chat("m", []).streamed()).await;
    let text = collect_text(answer.expect("an answer")).await;
    assert_eq!(text.expect("whole"), "one two");
    log.assert_one_each();
    assert_eq!((log.observers(), log.ends()), (1, vec![HeardEnd::Success]));
}

#[tokio::test]
async fn polls_are_counted() {
    let yields = || async {
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        7
    };
    assert_eq!(poll_at_most(yields(), 0).await, None);
    assert_eq!(poll_at_most(yields(), 2).await, None);
    assert_eq!(poll_at_most(yields(), 3).await, Some(7));
    let mut once = pin!(yields());
    assert_eq!(poll_once(&mut once), Poll::Pending);
}
