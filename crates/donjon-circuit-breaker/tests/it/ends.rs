//! What counts, and what does not.

use std::future::{Ready, pending, ready};

use donjon_circuit_breaker::CircuitState;
use donjon_core::{
    AttemptCause, Body, ChatCompletion, Disposition, DropReason, ErrorKind, Head, Health, Key,
    LlmError, LlmRequest, LlmResponse, Origin,
};
use donjon_testkit::{Script, ScriptedLlm, probe::poll_at_most};
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::{SECOND, build, call, fails, plain, request, send, state};

/// Whether the circuit opens when all calls fail so.
async fn opens(error: impl Into<Script>) -> bool {
    let (layer, handle) = build(plain());
    let service = layer.layer(ScriptedLlm::new(error.into()));
    for _ in 0..10 {
        fails(&service, request()).await;
    }
    state(&handle) == CircuitState::Open
}

#[tokio::test(start_paused = true)]
async fn what_counts_is_said_by_the_table() {
    for kind in ErrorKind::ALL {
        let blamed = kind.disposition().health != Health::Neutral;
        assert_eq!(opens(*kind).await, blamed, "{kind}");
    }
}

/// Takes every error for the same.
fn all(health: Health) -> impl Fn(&LlmError) -> Disposition + Send + Sync {
    move |error| {
        let mut row = error.disposition();
        row.health = health;
        row
    }
}

#[tokio::test(start_paused = true)]
async fn it_can_be_said_otherwise() {
    let (layer, handle) = build(plain().classify(all(Health::Neutral)));
    let service = layer.layer(ScriptedLlm::new(Script::fail(ErrorKind::ServerError)));
    for _ in 0..20 {
        fails(&service, request()).await;
    }
    assert_eq!(state(&handle), CircuitState::Closed);

    let (layer, handle) = build(plain().classify(all(Health::Fault)));
    let service = layer.layer(ScriptedLlm::new(Script::fail(ErrorKind::InvalidRequest)));
    crate::trip(&service, &handle).await;
}

#[tokio::test(start_paused = true)]
async fn overload_counts_unless_told_otherwise() {
    for (kind, counts) in [
        (ErrorKind::RateLimited, false),
        (ErrorKind::Overloaded, false),
        (ErrorKind::ServerError, true),
    ] {
        let (layer, handle) = build(plain().overload_counts(false));
        let service = layer.layer(ScriptedLlm::new(Script::fail(kind)));
        for _ in 0..10 {
            fails(&service, request()).await;
        }
        assert_eq!(state(&handle) == CircuitState::Open, counts, "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_in_the_middle_has_failed() {
    for script in [
        Script::words(9).fail_after(5, ErrorKind::StreamBroken),
        Script::words(9).cut_after(5),
        Script::words(9).no_finish_reason(),
    ] {
        let (layer, handle) = build(plain());
        let service = layer.layer(ScriptedLlm::new(script));
        for _ in 0..4 {
            let answer = call(&service, request().streamed())
                .await
                .expect("it begins");
            assert_eq!(state(&handle), CircuitState::Closed);
            answer.text().await.expect_err("it breaks");
        }
        assert_eq!(state(&handle), CircuitState::Open);
        assert_eq!(handle.calls().failures, 4);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_succeeds_when_it_ends() {
    let (layer, handle) = build(plain());
    let service = layer.layer(ScriptedLlm::new(Script::words(3)));
    let answer = call(&service, request().streamed())
        .await
        .expect("it begins");
    assert_eq!(handle.calls().successes, 0);
    answer.text().await.expect("all of it");
    assert_eq!(handle.calls().successes, 1);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_says_nothing() {
    let (layer, handle) = build(plain());
    let model = ScriptedLlm::new(Script::words(9).head_after(SECOND).yields(1));
    let mut service = layer.layer(model.clone());
    for streamed in [false, true] {
        for polls in 1..4 {
            let request = if streamed {
                request().streamed()
            } else {
                request()
            };
            let call = service.ready().await.expect("ready").call(request);
            assert!(poll_at_most(call, polls).await.is_none_or(|a| a.is_ok()));
        }
    }
    let answer = call(&service, request().streamed())
        .await
        .expect("it begins");
    drop(answer);
    let figures = handle.calls();
    assert_eq!(
        (figures.successes, figures.failures, figures.slow),
        (0, 0, 0)
    );
    assert_eq!(figures.cancelled, 7);
    let circuit = handle.circuit(&Key::Global).expect("the one");
    assert_eq!(circuit.window().calls, 0);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_dropped_gives_its_place_back() {
    let (layer, handle) = build(plain().probes(1));
    let model = ScriptedLlm::new(Script::words(3).head_after(SECOND));
    let mut service = layer.layer(model.clone());
    let circuit = handle.circuit(&Key::Global).expect("the one");
    circuit.open();
    circuit.probe_now();
    for dropped_at in 0..2 {
        let call = service.ready().await.expect("ready").call(request());
        assert_eq!(circuit.probes(), 1);
        assert!(poll_at_most(call, dropped_at).await.is_none());
        assert_eq!(circuit.probes(), 0, "dropped at poll {dropped_at}");
    }
    // So does one that panics before its future is there.
    let mut panics = layer.layer(service_fn(no_future));
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        drop(panics.call(request()));
    }));
    assert!(caught.is_err());
    assert_eq!(circuit.probes(), 0);
    send(&service, request()).await.expect("a probe");
    assert_eq!(circuit.state(), CircuitState::Closed);
}

fn no_future(_: LlmRequest) -> Ready<Result<LlmResponse, LlmError>> {
    panic!("no future")
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_never_sent_is_judged_by_nobody() {
    // A layer further in refuses, or gives up.
    for kind in ErrorKind::ALL.iter().filter(|kind| kind.is_unsent()) {
        let (layer, handle) = build(plain().classify(all(Health::Fault)));
        let service = layer.layer(ScriptedLlm::new(Script::fail(*kind)));
        for _ in 0..10 {
            fails(&service, request()).await;
        }
        assert_eq!(state(&handle), CircuitState::Closed, "{kind}");
        assert_eq!(handle.calls().neutral, 10);
    }
    // The deadline passes before the leaf sends anything.
    let (layer, handle) = build(plain());
    let stuck = service_fn(|request: LlmRequest| async move {
        if let Some(attempt) = request.call.attempt() {
            attempt.leaf_stamps_sent();
        }
        pending::<Result<LlmResponse, LlmError>>().await
    });
    let service = layer.layer(stuck);
    for _ in 0..10 {
        deadline(&service, true).await;
    }
    assert_eq!(state(&handle), CircuitState::Closed);
    assert_eq!(handle.calls().neutral, 10);
    // And after.
    let service = layer.layer(ScriptedLlm::new(Script::hang()).commits());
    for _ in 0..4 {
        deadline(&service, true).await;
    }
    assert_eq!(state(&handle), CircuitState::Open);
    // A leaf that keeps no ledger is asked all the same.
    let (layer, handle) = build(plain());
    let silent = service_fn(|_: LlmRequest| pending::<Result<LlmResponse, LlmError>>());
    let service = layer.layer(silent);
    for _ in 0..4 {
        deadline(&service, false).await;
    }
    assert_eq!(state(&handle), CircuitState::Open);
}

/// A call whose deadline passes.
async fn deadline<S>(service: &S, attempt: bool)
where
    S: Service<LlmRequest, Response = LlmResponse, Error = LlmError> + Clone,
{
    let mut request = request();
    request.call.set_timeout(SECOND);
    if attempt {
        request.call.open_attempt(AttemptCause::First);
    }
    let call = call_of(service, request);
    let timed = tokio::time::timeout(2 * SECOND, call).await;
    assert!(timed.is_err());
}

async fn call_of<S>(service: &S, request: LlmRequest) -> Result<LlmResponse, LlmError>
where
    S: Service<LlmRequest, Response = LlmResponse, Error = LlmError> + Clone,
{
    service.clone().ready().await?.call(request).await
}

#[tokio::test(start_paused = true)]
async fn an_answer_from_elsewhere_says_nothing_of_the_target() {
    let (layer, handle) = build(plain());
    for origin in [Origin::Cache, Origin::Coalesced] {
        let cached = service_fn(move |request: LlmRequest| {
            let mut head = Head::new("m");
            head.origin = origin;
            drop(request);
            ready(Ok::<_, LlmError>(LlmResponse::complete(
                head,
                ChatCompletion::text("m", "hi"),
            )))
        });
        let circuit = handle.circuit(&Key::Global).expect("the one");
        circuit.open();
        circuit.probe_now();
        send(&layer.layer(cached), request())
            .await
            .expect("an answer");
        assert_eq!(circuit.state(), CircuitState::HalfOpen);
        assert_eq!(circuit.probes(), 0);
        assert_eq!(circuit.window().calls, 0);
    }
    assert_eq!(handle.calls().neutral, 2);
}

#[tokio::test(start_paused = true)]
async fn calls_of_an_earlier_state_count_for_nothing() {
    let (layer, handle) = build(plain());
    let model = ScriptedLlm::new(Script::fail(ErrorKind::ServerError));
    let service = layer.layer(model.clone());
    // Nine streams that will end well, and nine that will break, all under way.
    model.set_otherwise(Script::words(3));
    let mut well = Vec::new();
    let mut broken = Vec::new();
    for _ in 0..9 {
        well.push(call(&service, request().streamed()).await.expect("begun"));
    }
    model.set_otherwise(Script::words(3).cut_after(1));
    for _ in 0..9 {
        broken.push(call(&service, request().streamed()).await.expect("begun"));
    }
    model.set_otherwise(Script::fail(ErrorKind::ServerError));
    crate::trip(&service, &handle).await;
    crate::after(10 * SECOND).await;
    model.set_otherwise(Script::answer("well").head_after(SECOND));
    let probe = send(&service, request());
    let meanwhile = async {
        tokio::task::yield_now().await;
        assert_eq!(state(&handle), CircuitState::HalfOpen);
        for answer in well {
            answer.text().await.expect("whole");
        }
        assert_eq!(state(&handle), CircuitState::HalfOpen);
    };
    let (probe, ()) = tokio::join!(probe, meanwhile);
    probe.expect("well again");
    assert_eq!(state(&handle), CircuitState::Closed);
    for answer in broken {
        answer.text().await.expect_err("cut");
    }
    assert_eq!(state(&handle), CircuitState::Closed);
    assert_eq!(handle.calls().late, 18);
}

#[tokio::test(start_paused = true)]
async fn a_whole_answer_is_no_stream() {
    // The check itself: what comes whole ends at its commit point.
    let (layer, handle) = build(plain());
    let answer = call(&layer.layer(ScriptedLlm::new("hi")), request()).await;
    assert!(matches!(answer.expect("an answer").body, Body::Complete(_)));
    assert_eq!(handle.calls().successes, 1);
}

/// Superseded without a bound for slow calls: it says nothing.
#[tokio::test(start_paused = true)]
async fn who_is_superseded_is_no_failure() {
    let (layer, handle) = build(plain());
    let mut service = layer.layer(ScriptedLlm::new(Script::hang()));
    for _ in 0..10 {
        let mut request = request().streamed();
        let attempt = request.call.open_attempt(AttemptCause::First).clone();
        let call = service.ready().await.expect("ready").call(request);
        let timed = tokio::time::timeout(60 * SECOND, async {
            let call = call;
            tokio::pin!(call);
            tokio::select! {
                _ = &mut call => unreachable!("it hangs"),
                () = tokio::time::sleep(30 * SECOND) => attempt.set_dropped(DropReason::Superseded),
            }
        });
        timed.await.expect("it is dropped");
    }
    assert_eq!(state(&handle), CircuitState::Closed);
    assert_eq!(handle.calls().cancelled, 10);
}
