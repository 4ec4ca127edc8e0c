//! Targets that change while calls go by.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use donjon_core::ErrorKind;
use donjon_failover::{ConfigError, Failover, FailoverLayer, Target, Weighted};
use donjon_testkit::Script;
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::{ask, counts, failover, model, request, served};

#[tokio::test(start_paused = true)]
async fn targets_come_and_go_and_calls_in_progress_notice_nothing() {
    let slow = Script::words(2).head_after(std::time::Duration::from_secs(5));
    let models = [model(slow), model("two")];
    let failover = failover(&models);
    let call = ask(&failover, request());
    let change = async {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        failover.remove("a").expect("it is there");
        failover
            .put(Target::new("c", model("three")))
            .expect("a good target");
        assert_eq!(served(&ask(&failover, request()).await), "b");
        failover.handle().drain("b").expect("it is there");
        assert_eq!(served(&ask(&failover, request()).await), "c");
        failover.handle().undrain("b").expect("it is there");
    };
    let (answer, ()) = tokio::join!(call, change);
    assert_eq!(served(&answer), "a");
    let names: Vec<_> = failover
        .handle()
        .targets()
        .iter()
        .map(|t| t.name.as_str())
        .collect();
    assert_eq!(names, ["b", "c"]);
    let unknown = failover.remove("a").expect_err("it is gone");
    assert_eq!(unknown.name(), "a");
    // One of the same name takes its place.
    failover
        .put(Target::new("b", model("new")))
        .expect("a good target");
    assert_eq!(served(&ask(&failover, request()).await), "b");
    assert_eq!(models[1].count(), 1);
    let weightless = failover.put(Target::new("d", model("four")).weight(0));
    assert_eq!(
        weightless.expect_err("no weight").field(),
        "targets[2].weight"
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_made_before_asks_nobody_who_was_taken_away() {
    let models = [model("one"), model("two")];
    let mut failover = failover(&models);
    let call = failover.call(request());
    failover.remove("a").expect("it is there");
    assert_eq!(served(&call.await), "b");
    assert_eq!(counts(&models), [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn the_service_of_a_target_goes_with_its_last_call() {
    let kept = Arc::new(());
    let held = kept.clone();
    let target = service_fn(move |_: donjon_core::LlmRequest| {
        let _held = &held;
        std::future::ready(Err::<donjon_core::LlmResponse, _>(
            donjon_core::LlmError::new(ErrorKind::Overloaded, ""),
        ))
    });
    let failover = Failover::builder().target(Target::new("a", target.clone()));
    let failover = failover.target(Target::new("b", target)).build();
    let failover = failover.expect("a good configuration");
    let template = failover.clone();
    ask(&failover, request()).await.expect_err("nobody serves");
    let before = Arc::strong_count(&kept);
    failover.remove("a").expect("it is there");
    assert_eq!(Arc::strong_count(&kept), before - 1);
    drop(template);
}

#[tokio::test(start_paused = true)]
async fn those_of_a_layer_stay() {
    let layer = FailoverLayer::new([Target::new("spare", model("two"))]);
    let layer = layer.expect("a good configuration");
    let failover = layer.layer(model("one"));
    let put = failover.put(Target::new("x", model("x")));
    assert_eq!(put.expect_err("it is a layer's"), ConfigError::Layered);
    failover.remove("spare").expect_err("it is a layer's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_changes_during_a_hundred_thousand_calls_lose_and_double_none() {
    const CALLS: usize = 100_000;
    let answered = Arc::new(AtomicUsize::new(0));
    let target = {
        let answered = answered.clone();
        move |name: &str| {
            let answered = answered.clone();
            Target::new(
                name,
                service_fn(move |request: donjon_core::LlmRequest| {
                    answered.fetch_add(1, Relaxed);
                    let text = donjon_core::ChatCompletion::text("m", "hi");
                    let head = donjon_core::Head::new(request.model().clone());
                    async move {
                        tokio::task::yield_now().await;
                        Ok::<_, donjon_core::LlmError>(donjon_core::LlmResponse::complete(
                            head, text,
                        ))
                    }
                }),
            )
        }
    };
    let failover = Failover::builder()
        .targets(["a", "b", "c"].map(&target))
        .route(Weighted)
        .build()
        .expect("a good configuration");
    let done = Arc::new(AtomicUsize::new(0));
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let (failover, done) = (failover.clone(), done.clone());
            tokio::spawn(async move {
                let mut failover = failover;
                for _ in 0..CALLS / 4 {
                    let ready = failover.ready().await.expect("it is always ready");
                    ready.call(request()).await.expect("somebody serves");
                    done.fetch_add(1, Relaxed);
                }
            })
        })
        .collect();
    for change in 0..1_000_u32 {
        // Spread over the calls.
        while done.load(Relaxed) < (change as usize * CALLS / 1_000).min(CALLS - 1) {
            tokio::task::yield_now().await;
        }
        let handle = failover.handle();
        match change % 5 {
            0 => failover.put(target("d")).expect("a good target"),
            1 => handle.set_weight("b", change % 7 + 1).expect("it is there"),
            2 => handle.drain("a").expect("it is there"),
            3 => handle.undrain("a").expect("it is there"),
            _ => failover.remove("d").expect("it is there"),
        }
    }
    for worker in workers {
        worker.await.expect("no panic");
    }
    assert_eq!(done.load(Relaxed), CALLS);
    assert_eq!(answered.load(Relaxed), CALLS);
}

/// All may be taken away, and a call then ends like any other.
#[tokio::test(start_paused = true)]
async fn a_call_that_finds_no_target_is_told_so() {
    let failover = failover(&[model("a")]);
    failover.remove("a").expect("it is there");
    for request in [request(), request().streamed()] {
        let error = ask(&failover, request).await.expect_err("there is none");
        assert_eq!(error.kind(), ErrorKind::AllTargetsFailed);
    }
    let mut service = failover.clone();
    drop(tower::Service::call(&mut service, request()));
    failover.put(Target::new("b", model("b"))).expect("good");
    assert_eq!(served(&ask(&failover, request()).await), "b");
}
