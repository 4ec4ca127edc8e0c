//! A target is readied when it is asked, alone, and not for ever.

use std::{
    future::{Ready, ready},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use donjon_core::{ErrorKind, LlmError, LlmRequest, LlmResponse, TimeoutClock};
use donjon_failover::Failover;
use donjon_testkit::{Script, ScriptedLlm};
use tokio::{sync::Semaphore, time::Instant};
use tower::{Service, ServiceExt, limit::ConcurrencyLimit};

use crate::{ask, counts, failover, model, reasons, request, served};

/// Takes the only permit of `model` away.
async fn occupy(model: &ScriptedLlm) -> ScriptedLlm {
    let mut other = model.clone();
    other.ready().await.expect("it is free");
    other
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_not_ready_blocks_nobody_else() {
    let models = [model("one"), model("two").with_capacity(1)];
    let _taken = occupy(&models[1]).await;
    let mut failover = failover(&models);
    let ready = failover.poll_ready(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(ready, Poll::Ready(Ok(()))));
    assert_eq!(
        models[0].ready_polls(),
        0,
        "nobody is readied before the call"
    );
    assert_eq!(served(&ask(&failover, request()).await), "a");
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_not_ready_is_waited_for_as_long_as_patience_lasts() {
    let models = [model("one").with_capacity(1), model("two")];
    let failover = failover(&models);
    let taken = occupy(&models[0]).await;
    let began = Instant::now();
    assert_eq!(served(&ask(&failover, request()).await), "b");
    assert_eq!(began.elapsed(), Duration::from_secs(2));
    let stats = failover.handle().target("a").expect("it is there");
    assert_eq!(stats.failed_with(ErrorKind::Unsent), 1);
    assert_eq!(models[0].held(), 1, "its place in the queue was given up");

    // One that is ready in time is used.
    let free = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(taken);
    };
    let (answer, ()) = tokio::join!(ask(&failover, request()), free);
    assert_eq!(served(&answer), "a");
    assert_eq!(models[0].held(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_last_target_is_waited_for_until_the_deadline() {
    let models = [model(ErrorKind::Overloaded), model("two").with_capacity(1)];
    let _taken = occupy(&models[1]).await;
    let began = Instant::now();
    let request = request().with_timeout(Duration::from_secs(60));
    let error = ask(&failover(&models), request)
        .await
        .expect_err("never ready");
    assert_eq!(error.kind(), ErrorKind::Timeout(TimeoutClock::Total));
    assert_eq!(reasons(&error), [("a", ErrorKind::Overloaded)]);
    assert_eq!(began.elapsed(), Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn without_patience_a_target_must_be_ready_at_once() {
    let models = [model("one").with_capacity(1), model("two")];
    let _taken = occupy(&models[0]).await;
    let mut request = request();
    request.call.patience = Some(Duration::ZERO);
    let began = Instant::now();
    assert_eq!(served(&ask(&failover(&models), request).await), "b");
    assert!(began.elapsed() <= Duration::from_millis(1));
}

#[tokio::test(start_paused = true)]
async fn what_a_failed_target_holds_goes_before_anything_else_is_done() {
    // Its future, not the model, holds the one permit that both targets need.
    let script = model("two").then(ErrorKind::Overloaded);
    let permits = Arc::new(Semaphore::new(1));
    let limited = ConcurrencyLimit::with_semaphore(script, permits.clone());
    let held = Arc::new(AtomicUsize::new(usize::MAX));
    let seen = held.clone();
    let classify = move |error: &LlmError| {
        seen.store(1 - permits.available_permits(), Relaxed);
        error.disposition()
    };
    let failover = crate::builder(&[limited.clone(), limited]);
    let failover = failover.classify(classify).build();
    let answer = ask(&failover.expect("a good configuration"), request()).await;
    assert_eq!(served(&answer), "b");
    assert_eq!(held.load(Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_leaves_the_permits_of_its_target_as_they_were() {
    let models = [
        model(Script::fail(ErrorKind::Overloaded)).with_capacity(1),
        model("two").with_capacity(1),
    ];
    let failover = failover(&models);
    for _ in 0..200 {
        assert_eq!(served(&ask(&failover, request()).await), "b");
    }
    assert_eq!(models.each_ref().map(ScriptedLlm::held), [0, 0]);
    assert_eq!(counts(&models), [200, 200]);
}

/// Never gets ready.
#[derive(Clone)]
struct Broken(bool);

impl Service<LlmRequest> for Broken {
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = Ready<Result<LlmResponse, LlmError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LlmError>> {
        Poll::Ready(if self.0 {
            Err(LlmError::new(ErrorKind::Internal, "closed").with_scope(donjon_core::Scope::Target))
        } else {
            Ok(())
        })
    }

    fn call(&mut self, request: LlmRequest) -> Self::Future {
        assert!(!self.0, "it was not ready");
        let head = donjon_core::Head::new(request.model().clone());
        let answer = donjon_core::ChatCompletion::text("m", "hi");
        ready(Ok(LlmResponse::complete(head, answer)))
    }
}

#[tokio::test]
async fn an_error_of_readiness_is_that_of_the_target_alone() {
    let classify = |error: &LlmError| {
        let mut row = error.disposition();
        row.failover |= error.kind() == ErrorKind::Internal;
        row
    };
    let failover: Failover<Broken> = crate::builder(&[Broken(true), Broken(false)])
        .classify(classify)
        .build()
        .expect("a good configuration");
    for _ in 0..2 {
        assert_eq!(served(&ask(&failover, request()).await), "b");
    }
}

/// What a target holds and counts is let go of on the way out.
#[tokio::test]
async fn a_target_that_panics_in_its_readiness_is_not_counted_for_ever() {
    #[derive(Clone)]
    struct Panics;
    impl Service<LlmRequest> for Panics {
        type Response = LlmResponse;
        type Error = LlmError;
        type Future = Ready<Result<LlmResponse, LlmError>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LlmError>> {
            panic!("broken")
        }
        fn call(&mut self, _: LlmRequest) -> Self::Future {
            unreachable!("it is never ready")
        }
    }
    let failover: Failover<Panics> = crate::builder(&[Panics]).build().expect("sensible");
    let handle = failover.handle();
    let call = tokio::spawn({
        let mut failover = failover.clone();
        async move {
            failover
                .ready()
                .await
                .expect("always ready")
                .call(request())
                .await
        }
    });
    assert!(call.await.expect_err("it panics").is_panic());
    assert_eq!(handle.targets()[0].in_flight(), 0);
}
