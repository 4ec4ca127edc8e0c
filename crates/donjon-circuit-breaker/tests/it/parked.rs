//! Two layers over one state, with a queue between them.

use std::sync::Arc;

use donjon_circuit_breaker::CircuitState;
use donjon_core::{
    End, ErrorKind, LlmError, LlmRequest, Observer,
    shape::{Admission, Admit, Gate},
};
use donjon_testkit::{Script, ScriptedLlm};
use futures_util::future::{BoxFuture, join_all};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::Layer;

use crate::{SECOND, build, call, fails, plain, request, send, state};

/// So many at a time; all others wait in the order in which they came.
#[derive(Clone)]
struct Pool(Arc<Semaphore>);

struct Permit(Option<OwnedSemaphorePermit>);

impl Observer for Permit {
    fn end(&mut self, _: &End<'_>) {
        self.0 = None;
    }
}

impl Admit for Pool {
    type Permit = Permit;
    type Wait = BoxFuture<'static, Result<Permit, LlmError>>;

    fn admit(&self, _: &mut LlmRequest) -> Admission<Permit, Self::Wait> {
        let semaphore = self.0.clone();
        Admission::Wait(Box::pin(async move {
            let permit = semaphore.acquire_owned().await;
            Ok(Permit(Some(permit.expect("it is never closed"))))
        }))
    }
}

#[tokio::test(start_paused = true)]
async fn calls_parked_in_a_queue_do_not_pour_into_a_target_that_is_down() {
    let (layer, handle) = build(plain());
    let model = ScriptedLlm::new(Script::fail(ErrorKind::Unavailable).head_after(SECOND));
    let pool = Pool(Arc::new(Semaphore::new(2)));
    let service = layer
        .peek()
        .layer(Gate::new(layer.admit().layer(model.clone()), pool));
    // Five hundred come while all is well as far as anybody knows.
    let calls = (0..500).map(|_| send(&service, request()));
    let errors: Vec<_> = join_all(calls)
        .await
        .into_iter()
        .map(|answer| answer.expect_err("it is down").kind())
        .collect();
    let of = |kind| errors.iter().filter(|error| **error == kind).count();
    // Four are enough to know, and at most one more was on its way.
    assert!(model.count() <= 5, "{} reached it", model.count());
    assert_eq!(of(ErrorKind::Unavailable), model.count());
    assert_eq!(of(ErrorKind::CircuitOpen), 500 - model.count());
    assert_eq!(state(&handle), CircuitState::Open);

    // Those that come now are rejected before they wait.
    let before = tokio::time::Instant::now();
    let error = fails(&service, request()).await;
    assert_eq!(error.kind(), ErrorKind::CircuitOpen);
    assert_eq!(tokio::time::Instant::now(), before);

    // When the delay is over, however many pass the outer one, one reaches the target.
    let reached = model.count();
    crate::after(10 * SECOND).await;
    let calls = (0..500).map(|_| send(&service, request()));
    join_all(calls).await;
    assert_eq!(model.count(), reached + 1);
}

#[tokio::test(start_paused = true)]
async fn peek_takes_nothing_and_judges_nothing() {
    let (layer, handle) = build(plain());
    let model = ScriptedLlm::new(Script::fail(ErrorKind::ServerError));
    let peeked = layer.peek().layer(model.clone());
    for _ in 0..20 {
        fails(&peeked, request()).await;
    }
    assert_eq!(state(&handle), CircuitState::Closed);
    let circuit = handle.circuit(&donjon_core::Key::Global).expect("the one");
    circuit.open();
    crate::after(10 * SECOND).await;
    model.set_otherwise("hi");
    for _ in 0..20 {
        send(&peeked, request()).await.expect("the delay is over");
    }
    assert_eq!(circuit.state(), CircuitState::Open, "nobody took a place");
    // It rejects while the probes are under way.
    model.set_otherwise(Script::hang());
    let admitted = layer.admit().layer(model.clone());
    let probe = tokio::spawn(async move { call(&admitted, request()).await });
    tokio::task::yield_now().await;
    model.set_otherwise("hi");
    assert_eq!(circuit.state(), CircuitState::HalfOpen);
    let error = fails(&peeked, request()).await;
    assert_eq!(
        (error.kind(), error.retry_after()),
        (ErrorKind::CircuitOpen, None)
    );
    probe.abort();
    let _ = probe.await;
    send(&peeked, request()).await.expect("its place is free");
}
