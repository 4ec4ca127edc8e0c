//! The laws of `poll_ready`.

use std::{future::poll_fn, pin::Pin, task::Poll, time::Duration};

use donjon_core::{LlmError, LlmService};
use tokio::{
    task::yield_now,
    time::{sleep, timeout},
};

use super::{
    Law,
    leaf::{Ask, all, call, leaf, nothing_held, ready, still_serves, whole},
};
use crate::ScriptedLlm;

/// Checks [`Law::CallsAreReadied`]: through answers, failures that a layer may try again, streams,
/// and several calls at once, different and alike.
///
/// # Panics
///
/// When the law is broken.
pub async fn calls_are_readied<S: LlmService + Clone>(layer: impl Fn(ScriptedLlm) -> S) {
    let law = Law::CallsAreReadied;
    for capacity in [None, Some(2)] {
        let leaf = match capacity {
            None => leaf(),
            Some(capacity) => leaf().with_capacity(capacity),
        };
        let service = layer(leaf.clone());
        let checked = |when: &str| {
            let calls = leaf.unreadied();
            if calls > 0 {
                law.broken(&format!(
                    "{when}, {calls} of {} calls below were made on a service that was not readied",
                    leaf.count()
                ));
            }
        };
        for ask in [Ask::Answer, Ask::Slow, Ask::Flaky, Ask::Fail(0), Ask::Break] {
            let mut service = service.clone();
            for request in [ask.request(), ask.request().streamed()] {
                // How it ends is for other laws.
                let _ = whole(law, &mut service, request).await;
                checked("one call after the other");
            }
        }
        for alike in [false, true] {
            let calls = (0..6).map(|n| {
                let mut service = service.clone();
                let request = Ask::Slow.numbered(if alike { 0 } else { n });
                let one = async move {
                    let _ = whole(law, &mut service, request).await;
                };
                Box::pin(one) as Pin<Box<dyn Future<Output = ()> + '_>>
            });
            all(law, calls.collect()).await;
            checked("several calls at once");
        }
    }
}

/// Checks [`Law::ClonesAreReadiedAnew`].
///
/// # Panics
///
/// When the law is broken.
pub async fn clones_are_readied_anew<S: LlmService + Clone>(layer: impl Fn(ScriptedLlm) -> S) {
    let law = Law::ClonesAreReadiedAnew;
    let leaf = leaf().with_capacity(4);
    let mut original = layer(leaf.clone());
    let served = |who: &str, result: Result<(), LlmError>| {
        if leaf.unreadied() > 0 {
            law.broken(&format!(
                "{who} called the service below without readying it"
            ));
        }
        if let Err(error) = result {
            law.broken(&format!("{who} does not serve: {error}"));
        }
    };
    ready(law, &mut original).await;
    let mut clone = original.clone();
    let dropped = original.clone();
    drop(dropped);
    let answer = original.call(Ask::Answer.request());
    let answer = answer.await.map_err(Into::into).map(drop);
    served("a service that was cloned after it was readied", answer);
    let answer = whole(law, &mut clone, Ask::Answer.request()).await;
    served("the clone of a readied service", answer);

    ready(law, &mut original).await;
    let mut heir = original.clone();
    drop(original);
    let answer = whole(law, &mut heir, Ask::Answer.request()).await;
    served("the clone of a readied service that is gone", answer);
    drop((clone, heir));
    nothing_held(law, &leaf, "after all clones were dropped").await;
}

/// Checks [`Law::ReadinessIsGivenBack`]: a readied service that is dropped, and calls that wait.
///
/// # Panics
///
/// When the law is broken.
pub async fn readiness_is_given_back<S: LlmService + Clone>(layer: impl Fn(ScriptedLlm) -> S) {
    let law = Law::ReadinessIsGivenBack;
    let leaf_of_one = leaf().with_capacity(1);
    let service = layer(leaf_of_one.clone());
    let mut readied = service.clone();
    ready(law, &mut readied).await;
    drop(readied);
    let after = "after a readied service was dropped";
    nothing_held(law, &leaf_of_one, after).await;
    still_serves(law, &service, after).await;

    // More calls than the service below takes, and perhaps than the layer does.
    let leaf = leaf().with_capacity(3);
    let service = layer(leaf.clone());
    let mut calling = Vec::new();
    let mut waiting = Vec::new();
    for _ in 0..6 {
        let mut one = service.clone();
        match poll_fn(|cx| Poll::Ready(one.poll_ready(cx))).await {
            Poll::Ready(Ok(())) => {
                let mut call = Box::pin(one.call(Ask::Hang.request()));
                if poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx)))
                    .await
                    .is_pending()
                {
                    calling.push((one, call));
                }
            }
            Poll::Ready(Err(error)) => {
                let error: LlmError = error.into();
                law.broken(&format!("`poll_ready` answered with an error: {error}"));
            }
            Poll::Pending => waiting.push(one),
        }
        yield_now().await;
    }
    // Those in a queue of the layer may pass on what they were given.
    for _ in 0..4 {
        for (_, call) in &mut calling {
            let _ = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await;
        }
        yield_now().await;
    }
    let (held, running) = (leaf.held(), leaf.in_progress());
    if held > running {
        law.broken(&format!(
            "{held} permits of the service below are held and only {running} of its calls run: \
             whoever waits for something else sits on a readied service"
        ));
    }
    drop((calling, waiting));
    let after = "after calls that hung and calls that waited were dropped";
    nothing_held(law, &leaf, after).await;
    still_serves(law, &service, after).await;
}

/// Checks [`Law::ReadinessNeverFails`]: through failures of every kind, and afterwards.
///
/// # Panics
///
/// When the law is broken.
pub async fn readiness_never_fails<S: LlmService + Clone>(layer: impl Fn(ScriptedLlm) -> S) {
    let law = Law::ReadinessNeverFails;
    let mut service = layer(leaf());
    for n in 0..64 {
        let mut clone = service.clone();
        // The call itself may fail in whatever way.
        let _ = call(law, &mut service, Ask::Fail(n).request()).await;
        let _ = whole(law, &mut clone, Ask::Break.request().streamed()).await;
    }
    let hung = call(law, &mut service, Ask::Hang.request());
    let _ = timeout(Duration::from_secs(60), hung).await;
    ready(law, &mut service).await;
    sleep(Duration::from_secs(600)).await;
    ready(law, &mut service).await;
}
