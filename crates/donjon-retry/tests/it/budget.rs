//! How much load retries add.

use donjon_core::{AttemptCause, ErrorKind};
use donjon_retry::{Backoff, GiveUp, RetryBudget, RetryLayer};
use donjon_testkit::ScriptedLlm;
use tokio::task::JoinSet;
use tower::{Layer, Service, ServiceExt};

use crate::{SECOND, failing, fails, plain, request, send};

/// R4: with every call failing, steady traffic is at most 1.2 times what comes in.
#[tokio::test(start_paused = true)]
async fn an_outage_is_not_made_worse() {
    for per_second in [1_u32, 20, 100] {
        let model = failing(ErrorKind::Unavailable);
        let layer = RetryLayer::builder().max_attempts(10).build();
        let layer = layer.expect("sensible");
        let mut calls = JoinSet::new();
        let seconds = 60;
        for _ in 0..seconds * per_second {
            let service = layer.layer(model.clone());
            calls.spawn(async move { fails(&service, request()).await });
            tokio::time::sleep(SECOND / per_second).await;
        }
        let handle = layer.handle();
        let incoming = u64::from(seconds * per_second);
        assert_eq!(handle.calls(), incoming);
        // What waits was withdrawn too.
        let retries = handle.retries() + handle.parked() as u64;
        // The reserve lets ten in ten seconds pass whatever comes in.
        let most = (incoming / 5).max(u64::from(seconds));
        assert!(retries <= most, "{retries} retries of {incoming}");
        assert!(retries >= most * 9 / 10, "{retries} retries of {incoming}");
        assert!(handle.gave_up(GiveUp::Budget) > 0);
        while calls.join_next().await.is_some() {}
        assert_eq!(model.count() as u64, incoming + handle.retries());
    }
}

#[tokio::test(start_paused = true)]
async fn one_budget_can_bound_several_layers() {
    let budget = RetryBudget::builder().ratio(0.0).reserve(3).build();
    let budget = budget.expect("sensible");
    let model = failing(ErrorKind::ServerError);
    for _ in 0..5 {
        let builder = plain().backoff(Backoff::none()).budget(budget.clone());
        let layer = builder.build().expect("sensible");
        fails(&layer.layer(model.clone()), request()).await;
    }
    assert_eq!(model.count(), 5 + 3);
}

/// A retry that is withdrawn for a call that leaves meanwhile is given back.
#[tokio::test(start_paused = true)]
async fn who_leaves_while_waiting_gives_the_retry_and_the_place_back() {
    let model = ScriptedLlm::new("ok").then(ErrorKind::ServerError);
    let budget = RetryBudget::builder().ratio(1.0).reserve(0).build();
    let layer = plain().budget(budget.expect("sensible")).build();
    let (layer, handle) = layer.map(|l| (l.clone(), l.handle())).expect("sensible");
    let service = layer.layer(model.clone());
    let waits = tokio::time::timeout(SECOND / 2, fails(&service, request()));
    assert!(waits.await.is_err());
    assert_eq!((handle.parked(), handle.retries()), (0, 0));
    assert!((handle.budget().balance() - 1.0).abs() < 1e-9);
}

/// Nobody made a retry, so the reserve is whole, however many left while waiting for one.
#[tokio::test(start_paused = true)]
async fn who_leaves_while_waiting_gives_the_reserve_back() {
    let model = failing(ErrorKind::ServerError);
    let budget = RetryBudget::builder().ratio(0.0).reserve(10).build();
    let layer = plain().budget(budget.expect("sensible")).build();
    let layer = layer.expect("sensible");
    let (service, handle) = (layer.layer(model), layer.handle());
    for _ in 0..10 {
        let waits = tokio::time::timeout(SECOND / 100, fails(&service, request()));
        assert!(waits.await.is_err());
    }
    assert_eq!((handle.retries(), handle.gave_up(GiveUp::Budget)), (0, 0));
    fails(&service, request()).await;
    assert_eq!((handle.retries(), handle.gave_up(GiveUp::Budget)), (2, 0));
}

/// Whoever drives the call opens an attempt for a group of targets and one under it for the target;
/// the first target of the first group pays, and no other one does.
#[tokio::test(start_paused = true)]
async fn a_call_pays_once_however_deep_its_targets_are() {
    use AttemptCause::{Failover, First, Hedge, Resume, Retry};
    for (causes, pays) in [
        (&[][..], true),
        (&[First], true),
        (&[First, First], true),
        (&[First, First, First], true),
        (&[First, Failover], false),
        (&[First, Hedge], false),
        (&[First, Retry], false),
        (&[First, Resume], false),
        (&[First, Failover, First], false),
        (&[First, First, Failover, First], false),
    ] {
        let budget = RetryBudget::builder().ratio(1.0).reserve(0).build();
        let layer = plain().budget(budget.expect("sensible")).build();
        let layer = layer.expect("sensible");
        let mut call = request();
        for cause in causes {
            call.call.open_attempt(*cause);
        }
        let service = layer.layer(ScriptedLlm::new("ok"));
        send(&service, call).await.expect("answered");
        let paid = layer.handle().budget().balance() > 0.5;
        assert_eq!(paid, pays, "{causes:?}");
        assert_eq!(layer.handle().calls(), 1);
    }
}

/// It begins when it is polled first.
#[tokio::test(start_paused = true)]
async fn a_call_that_is_never_polled_counts_nothing_and_frees_what_was_readied() {
    let limited = tower::limit::ConcurrencyLimit::new(ScriptedLlm::new("hi"), 1);
    let layer = RetryLayer::default();
    let handle = layer.handle();
    let mut service = layer.layer(limited);
    service.ready().await.expect("ready");
    let call = service.call(request());
    drop(call);
    assert_eq!((handle.calls(), handle.attempts()), (0, 0));
    assert!(handle.budget().balance().abs() < f64::EPSILON);
    let answer = send(&service, request()).await;
    answer.expect("the permit is free again");
    assert_eq!(handle.calls(), 1);
}
