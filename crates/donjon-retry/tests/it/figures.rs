//! What the handle shows, and what it does.

use donjon_core::{ErrorKind, Heard, Snapshot};
use donjon_retry::{GiveUp, RetryEvent, RetryLayer};
use donjon_testkit::ScriptedLlm;
use tokio::task::JoinSet;
use tower::Layer;

use crate::{SECOND, failing, fails, limited, plain, request, send};

#[tokio::test(start_paused = true)]
async fn it_counts_and_tells() {
    let model = ScriptedLlm::new("ok")
        .then(limited().with_retry_after(SECOND * 3))
        .then(ErrorKind::ServerError)
        .then("answered")
        .then(ErrorKind::Authentication);
    let layer = plain().build().expect("sensible");
    let handle = layer.handle();
    let mut listener = handle.events().listen();
    let service = layer.layer(model);
    send(&service, request()).await.expect("answered");
    fails(&service, request()).await;
    send(&service, request()).await.expect("answered");

    assert_eq!(
        (handle.calls(), handle.retries(), handle.recovered()),
        (3, 2, 1)
    );
    assert_eq!(handle.attempts(), 5);
    assert_eq!(handle.retries_after(ErrorKind::RateLimited), 1);
    assert_eq!(handle.gave_up(GiveUp::NotRetryable), 1);
    assert_eq!(handle.parked(), 0);

    let Some(Heard::Event(first)) = listener.try_next() else {
        unreachable!("a retry was told of");
    };
    let RetryEvent::Retrying {
        kind, wait, hinted, ..
    } = first
    else {
        unreachable!("it is a retry: {first:?}");
    };
    assert_eq!((kind, hinted), (ErrorKind::RateLimited, true));
    assert!(wait >= SECOND * 3);
    let second = RetryEvent::Retrying {
        kind: ErrorKind::ServerError,
        attempts: 2,
        wait: SECOND,
        hinted: false,
    };
    assert_eq!(listener.try_next(), Some(Heard::Event(second)));
    let recovered = RetryEvent::Recovered { attempts: 3 };
    assert_eq!(listener.try_next(), Some(Heard::Event(recovered)));
    let gave_up = RetryEvent::GaveUp {
        kind: ErrorKind::Authentication,
        attempts: 1,
        reason: GiveUp::NotRetryable,
    };
    assert_eq!(listener.try_next(), Some(Heard::Event(gave_up)));
    assert_eq!(listener.try_next(), None);

    let figures = handle.figures();
    let value = |name: &str, label: &str| {
        let found = figures.iter().find(|figure| {
            figure.name == name && figure.labels.iter().all(|(_, value)| value == label)
        });
        found.map(|figure| figure.value)
    };
    assert_eq!(handle.layer(), "retry");
    assert_eq!(value("calls", ""), Some(3.0));
    assert_eq!(value("attempts", ""), Some(5.0));
    assert_eq!(value("retries", "server_error"), Some(1.0));
    assert_eq!(value("gave_up", "not_retryable"), Some(1.0));
}

/// Each layer counts its own calls, also where its budget was handed to another one.
#[tokio::test(start_paused = true)]
async fn calls_are_those_of_the_layer_and_not_of_its_budget() {
    let one = RetryLayer::default();
    let budget = one.handle().budget().clone();
    let other = plain().budget(budget).build().expect("sensible");
    let model = ScriptedLlm::new("ok");
    for layer in [&one, &other, &other] {
        let answer = send(&layer.layer(model.clone()), request()).await;
        answer.expect("answered");
    }
    assert_eq!((one.handle().calls(), other.handle().calls()), (1, 2));
    assert_eq!((one.handle().attempts(), other.handle().attempts()), (1, 2));
}

/// What the adaptive mode refuses, or holds back until the caller leaves, was never an attempt.
#[tokio::test(start_paused = true)]
async fn first_attempts_that_were_not_made_do_not_count() {
    let model = ScriptedLlm::new("ok");
    let layer = plain().max_attempts(1).adaptive(true).build();
    let layer = layer.expect("sensible");
    let (service, handle) = (layer.layer(model.clone()), layer.handle());
    for _ in 0..20 {
        send(&service, request()).await.expect("answered");
        tokio::time::sleep(SECOND / 10).await;
    }
    model.push(limited());
    fails(&service, request()).await;
    assert_eq!(handle.attempts(), model.count() as u64);

    let mut held = JoinSet::new();
    for _ in 0..10 {
        let service = service.clone();
        held.spawn(async move { send(&service, request()).await });
    }
    tokio::time::sleep(SECOND / 100).await;
    let (calls, waiting) = (handle.calls(), handle.parked() as u64);
    assert!(waiting > 2, "{waiting} are held back");
    assert_eq!(handle.attempts(), calls - waiting, "not yet");
    // A call without the time to wait is refused.
    let hurry = request().with_timeout(SECOND / 100);
    let refused = fails(&service, hurry).await;
    assert_eq!(refused.kind(), ErrorKind::LimitedLocally);
    assert_eq!(handle.attempts(), model.count() as u64);
    // One that waited its time is an attempt; those that leave are not.
    held.join_next()
        .await
        .expect("one of them")
        .expect("no panic")
        .expect("answered");
    held.shutdown().await;
    assert_eq!((handle.parked(), handle.calls()), (0, calls + 1));
    assert_eq!(handle.attempts(), model.count() as u64);
    assert!(handle.attempts() < handle.calls());
}

/// R8: more than so many do not wait.
#[tokio::test(start_paused = true)]
async fn the_number_of_calls_that_wait_is_bounded() {
    let model = failing(limited().with_retry_after(SECOND * 60));
    let layer = plain().max_parked(3).build().expect("sensible");
    let handle = layer.handle();
    let service = layer.layer(model);
    let waiting: Vec<_> = (0..5)
        .map(|_| {
            let service = service.clone();
            tokio::spawn(async move { fails(&service, request()).await })
        })
        .collect();
    tokio::time::sleep(SECOND).await;
    assert_eq!(handle.parked(), 3);
    assert_eq!(handle.gave_up(GiveUp::Parked), 2);
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    for call in waiting {
        let _ = call.await;
    }
    assert_eq!(handle.parked(), 0);
    assert_eq!(handle.retries(), 0);
}

#[tokio::test(start_paused = true)]
async fn retries_can_be_switched_off_while_running() {
    let model = failing(ErrorKind::ServerError);
    let layer = plain().build().expect("sensible");
    let handle = layer.handle();
    let service = layer.layer(model.clone());
    handle.set_enabled(false);
    fails(&service, request()).await;
    assert_eq!((model.count(), handle.is_enabled()), (1, false));
    assert_eq!(handle.gave_up(GiveUp::Disabled), 1);
    handle.set_enabled(true);
    fails(&service, request()).await;
    assert_eq!(model.count(), 4);
}

/// A layer that nobody configured is what the documentation says.
#[test]
fn the_defaults_are_these() {
    let layer = format!("{:?}", RetryLayer::default());
    for said in [
        "max_attempts: 3",
        "factor: 2.0",
        "base: 500ms",
        "cap: 8s",
        "jitter: Full",
        "max_parked: 1000",
        "total_attempts: None",
    ] {
        assert!(layer.contains(said), "{said} is not in {layer}");
    }
}
