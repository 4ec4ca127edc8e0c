//! What is slow.

use std::time::Duration;

use donjon_circuit_breaker::{BreakerBuilder, BreakerHandle, CircuitState, Exceeded, Reason};
use donjon_core::{
    AttemptCause, ChatCompletion, CommitLayer, DropReason, ErrorKind, Head, Key, LlmError,
    LlmRequest, LlmResponse, LlmService,
};
use donjon_testkit::{Script, ScriptedLlm};
use tower::{Layer, service_fn};

use crate::{SECOND, build, call, fails, plain, request, send, state};

fn bounded() -> BreakerBuilder {
    plain().slow_first_token(5 * SECOND).slow_rate(0.5)
}

fn slow(handle: &BreakerHandle) -> u32 {
    let circuit = handle.circuit(&Key::Global).expect("the one");
    circuit.window().slow
}

#[tokio::test(start_paused = true)]
async fn streams_whose_first_token_is_late_open_it() {
    let (layer, handle) = build(bounded());
    let model = ScriptedLlm::new(Script::words(3).first_token_after(6 * SECOND)).commits();
    let service = layer.layer(model);
    for _ in 0..4 {
        send(&service, request().streamed())
            .await
            .expect("a slow one");
    }
    assert_eq!(state(&handle), CircuitState::Open);
    let circuit = handle.circuit(&Key::Global).expect("the one");
    let reason = circuit.transitions()[0].reason;
    let exceeded = Exceeded::SlowRate {
        rate: 1.0,
        threshold: 0.5,
        calls: 4,
    };
    assert_eq!(
        format!("{reason:?}"),
        format!("{:?}", Reason::Exceeded(exceeded))
    );
    assert_eq!(handle.calls().slow, 4);
    assert_eq!(handle.calls().successes, 4);
}

#[tokio::test(start_paused = true)]
async fn the_bound_itself_is_not_late_and_a_long_answer_is_not_slow() {
    let (layer, handle) = build(bounded());
    let script = Script::words(300).first_token_after(5 * SECOND).gap(SECOND);
    let service = layer.layer(ScriptedLlm::new(script).commits());
    send(&service, request().streamed())
        .await
        .expect("a long one");
    assert_eq!((slow(&handle), handle.calls().successes), (0, 1));
}

/// What is kept waiting further in, before it is sent, is not the target's.
#[tokio::test(start_paused = true)]
async fn time_before_it_was_sent_does_not_count() {
    let (layer, handle) = build(bounded());
    let model = ScriptedLlm::new(Script::words(3).first_token_after(SECOND)).commits();
    let waits = service_fn(move |mut request: LlmRequest| {
        let model = model.clone();
        async move {
            request.call.dispatch().leaf_stamps_sent();
            tokio::time::sleep(60 * SECOND).await;
            call(&model, request).await
        }
    });
    let service = layer.layer(waits);
    send(&service, request().streamed())
        .await
        .expect("an answer");
    assert_eq!((slow(&handle), handle.calls().successes), (0, 1));
}

/// Where nobody stamps the ledger it is the time from admission on.
#[tokio::test(start_paused = true)]
async fn without_a_ledger_it_is_timed_from_admission() {
    let (layer, handle) = build(bounded());
    let bare = |wait: Duration| {
        service_fn(move |_: LlmRequest| async move {
            tokio::time::sleep(wait).await;
            let stream = futures_util::stream::iter([Ok(donjon_core::Chunk::finish(
                donjon_core::FinishReason::Stop,
            ))]);
            let stream = donjon_core::ResponseStream::new(1, stream);
            Ok::<_, LlmError>(LlmResponse::stream(Head::new("m"), stream))
        })
    };
    send(&layer.layer(bare(4 * SECOND)), request().streamed())
        .await
        .expect("fast");
    assert_eq!(slow(&handle), 0);
    send(&layer.layer(bare(6 * SECOND)), request().streamed())
        .await
        .expect("slow");
    assert_eq!(slow(&handle), 1);
    // And a failure that took as long is slow too.
    let late = service_fn(|_: LlmRequest| async {
        tokio::time::sleep(6 * SECOND).await;
        Err::<LlmResponse, _>(LlmError::new(ErrorKind::ServerError, "at last"))
    });
    fails(&layer.layer(late), request().streamed()).await;
    assert_eq!(slow(&handle), 2);
    let circuit = handle.circuit(&Key::Global).expect("the one");
    assert_eq!(circuit.window().slow_failures, 1);
}

/// An answer that comes whole has no first token, and takes the longer the more it says.
#[tokio::test(start_paused = true)]
async fn whole_answers_have_a_bound_of_their_own() {
    let script = || Script::words(3).first_token_after(60 * SECOND);
    let (layer, handle) = build(bounded());
    let service = layer.layer(ScriptedLlm::new(script()).commits());
    send(&service, request()).await.expect("a whole one");
    assert_eq!(slow(&handle), 0);

    let (layer, handle) = build(plain().slow_answer(50 * SECOND));
    let service = layer.layer(ScriptedLlm::new(script()).commits());
    send(&service, request()).await.expect("a whole one");
    assert_eq!(slow(&handle), 1);
    send(&service, request().streamed())
        .await
        .expect("a stream");
    assert_eq!(slow(&handle), 1);
}

/// A whole answer that was put together from a stream further in had a first token.
#[tokio::test(start_paused = true)]
async fn a_stream_put_together_further_in_had_a_first_token() {
    let (layer, handle) = build(bounded());
    let script = Script::words(30).first_token_after(6 * SECOND).gap(SECOND);
    let model = CommitLayer::new().layer(ScriptedLlm::new(script).at_head());
    let folding = service_fn(move |request: LlmRequest| {
        let model = model.clone();
        async move {
            let answer = call(&model, request.streamed()).await?;
            let (head, completion) = answer.collect().await?;
            Ok::<_, LlmError>(LlmResponse::complete(head, completion))
        }
    });
    send(&layer.layer(folding), request())
        .await
        .expect("an answer");
    assert_eq!(slow(&handle), 1);
    let fast = service_fn(|_: LlmRequest| async {
        let answer = ChatCompletion::text("m", "hi");
        Ok::<_, LlmError>(LlmResponse::complete(Head::new("m"), answer))
    });
    send(&layer.layer(fast), request())
        .await
        .expect("an answer");
    assert_eq!(slow(&handle), 1);
}

/// Drops a call after so long, because another attempt took over or because the caller left.
async fn give_up<S: LlmService + Clone>(service: &S, wait: Duration, why: DropReason) {
    let mut request = request().streamed();
    let attempt = request.call.open_attempt(AttemptCause::First).clone();
    let call = call(service, request);
    tokio::pin!(call);
    tokio::select! {
        _ = &mut call => unreachable!("it hangs"),
        () = tokio::time::sleep(wait) => attempt.set_dropped(why),
    }
}

#[tokio::test(start_paused = true)]
async fn a_hedge_does_not_hide_a_slow_target() {
    let (layer, handle) = build(bounded());
    let service = layer.layer(ScriptedLlm::new(Script::hang()).commits());
    give_up(&service, 4 * SECOND, DropReason::Superseded).await;
    give_up(&service, 60 * SECOND, DropReason::CallerLeft).await;
    assert_eq!((slow(&handle), handle.calls().cancelled), (0, 2));
    for _ in 0..4 {
        give_up(&service, 6 * SECOND, DropReason::Superseded).await;
    }
    assert_eq!(state(&handle), CircuitState::Open);
    let figures = handle.calls();
    assert_eq!((figures.slow, figures.failures), (4, 0));
    // A probe that is given up so has come out badly,
    crate::after(10 * SECOND).await;
    give_up(&service, 6 * SECOND, DropReason::Superseded).await;
    assert_eq!(state(&handle), CircuitState::Open);
    // and one that is given up early has not come out at all.
    crate::after(10 * SECOND).await;
    give_up(&service, SECOND, DropReason::Superseded).await;
    assert_eq!(state(&handle), CircuitState::HalfOpen);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_given_up_after_its_first_token_is_as_slow_as_that_was() {
    let (layer, handle) = build(bounded());
    let model = ScriptedLlm::new("unused").commits();
    let service = layer.layer(model.clone());
    for (first, slow_calls) in [(SECOND, 0), (6 * SECOND, 1)] {
        model.push(Script::words(300).first_token_after(first).gap(SECOND));
        let mut request = request().streamed();
        let attempt = request.call.open_attempt(AttemptCause::First).clone();
        let answer = call(&service, request).await.expect("it begins");
        tokio::time::sleep(30 * SECOND).await;
        attempt.set_dropped(DropReason::Superseded);
        drop(answer);
        assert_eq!(slow(&handle), slow_calls);
    }
}

/// A long stream does not keep the circuit half-open until it ends.
#[tokio::test(start_paused = true)]
async fn a_probe_that_streams_on_has_passed_at_its_deadline() {
    let (layer, handle) = build(plain().probe_deadline(30 * SECOND));
    let model = ScriptedLlm::new(Script::words(300).gap(SECOND));
    let service = layer.layer(model.clone());
    let circuit = handle.circuit(&Key::Global).expect("the one");
    circuit.open();
    crate::after(10 * SECOND).await;
    let probe = call(&service, request().streamed())
        .await
        .expect("it begins");
    assert_eq!(circuit.state(), CircuitState::HalfOpen);
    fails(&service, request()).await;
    crate::after(30 * SECOND).await;
    let next = call(&service, request().streamed()).await.expect("it may");
    assert_eq!(circuit.state(), CircuitState::Closed);
    drop((probe, next));
}

/// One that says nothing makes room for another.
#[tokio::test(start_paused = true)]
async fn a_probe_that_never_ends_does_not_hold_the_circuit() {
    let (layer, handle) = build(plain().probe_deadline(30 * SECOND));
    let model = ScriptedLlm::new("well").then(Script::hang());
    let service = layer.layer(model.clone());
    let circuit = handle.circuit(&Key::Global).expect("the one");
    circuit.open();
    crate::after(10 * SECOND).await;
    let hung = tokio::spawn({
        let service = service.clone();
        async move { call(&service, request()).await }
    });
    tokio::task::yield_now().await;
    assert_eq!(circuit.probes(), 1);
    fails(&service, request()).await;
    crate::after(30 * SECOND).await;
    send(&service, request()).await.expect("the next probe");
    assert_eq!(circuit.state(), CircuitState::Closed);
    hung.abort();
}
