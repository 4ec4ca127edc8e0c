//! Who is asked when, who wins, and what becomes of who does not.

use std::{
    task::{Context, Poll, Waker},
    time::Duration,
};

use donjon_core::{
    AttemptCause, DropReason, ErrorKind, Heard, LlmError, LlmRequest, LlmResponse,
    shape::ReadyCall, watch,
};
use donjon_hedge::{HedgeCause, HedgeEvent};
use donjon_testkit::{
    CallEnd, Script, ScriptedLlm,
    probe::{EndLog, HeardEnd, collect_text, poll_once},
};
use tokio::time::{Instant, sleep};
use tower::{Layer, Service, service_fn};

use crate::{
    MILLI, SECOND, after_a_second, around, ask, failing, layer, plays, request, slow, streamed,
    text,
};

#[tokio::test(start_paused = true)]
async fn a_first_attempt_in_time_is_the_only_one() {
    let model = plays([slow("first", 999 * MILLI)]);
    assert_eq!(text(ask(&around(&model), streamed()).await).await, "first");
    sleep(5 * SECOND).await;
    assert_eq!(model.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_second_attempt_is_made_when_the_first_is_late_and_whoever_commits_first_wins() {
    for (first, second, winner, took) in [
        (4 * SECOND, 200 * MILLI, "second", 1200 * MILLI),
        (1100 * MILLI, 200 * MILLI, "first", 1100 * MILLI),
        // Of two at once either does; it is the first.
        (1200 * MILLI, 200 * MILLI, "first", 1200 * MILLI),
    ] {
        for request in [request(), streamed()] {
            let model = plays([slow("first", first), slow("second", second)]);
            let built = layer(after_a_second());
            let begun = Instant::now();
            let response = ask(&built.layer(model.clone()), request).await;
            assert_eq!(begun.elapsed(), took);
            assert_eq!(text(response).await, winner);
            assert_eq!(model.count(), 2);
            assert_eq!(model.calls()[1].at - model.calls()[0].at, SECOND);
            let handle = built.handle();
            let won = (handle.won_by_first(), handle.won_by_hedge());
            assert_eq!(won, if winner == "first" { (1, 0) } else { (0, 1) });
        }
    }
}

/// The loser is gone in the poll in which the other one wins, and those inside hear why.
#[tokio::test(start_paused = true)]
async fn the_loser_is_gone_at_once_and_was_superseded() {
    for (first, second, loser) in [(9 * SECOND, SECOND, 0), (1500 * MILLI, 9 * SECOND, 1)] {
        let log = EndLog::new();
        let model = plays([slow("one", first), slow("two", second)]).observed_by(&log);
        let inside = EndLog::new();
        let heard = inside.clone();
        let watched = {
            let model = model.clone();
            service_fn(move |request: LlmRequest| {
                let call = request.call.clone();
                let future = ReadyCall::new(model.clone(), request);
                watch(&call, future, heard.observer())
            })
        };
        let mut request = streamed();
        let ledger = request.call.begin().clone();
        let mut call = Box::pin(layer(after_a_second()).layer(watched).call(request));
        let response = loop {
            match poll_once(&mut call) {
                Poll::Ready(response) => break response.expect("an answer"),
                Poll::Pending => {
                    assert_eq!(inside.ends(), [], "both are under way");
                    sleep(MILLI).await;
                }
            }
        };
        // No other poll, and the future still stands.
        let superseded = HeardEnd::Cancelled(DropReason::Superseded);
        assert_eq!(inside.ends(), [superseded]);
        assert_eq!(model.in_progress(), 1, "the stream that won");
        assert!(is_cancelled(&model, loser));
        let attempts: Vec<_> = ledger.attempts().collect();
        assert_eq!(attempts.len(), 2);
        assert_eq!(attempts[loser].dropped, Some(DropReason::Superseded));
        assert_eq!(attempts[1 - loser].dropped, None);
        assert_eq!(attempts[1].cause, AttemptCause::Hedge);
        assert_eq!(attempts[1].parent, Some(0));
        assert_eq!(
            ledger.served_by().map(|a| a.index as usize),
            Some(1 - loser)
        );
        collect_text(response).await.expect("whole");
        drop(call);
        inside.assert_one_each();
        log.assert_one_each();
    }
}

fn is_cancelled(model: &ScriptedLlm, at: usize) -> bool {
    model.ends()[at].is_some_and(CallEnd::is_cancelled)
}

#[tokio::test(start_paused = true)]
async fn a_first_attempt_that_fails_is_not_waited_for() {
    let model = plays([failing(100 * MILLI), slow("second", 300 * MILLI)]);
    let built = layer(after_a_second());
    let mut events = built.handle().events().listen();
    let begun = Instant::now();
    assert_eq!(
        text(ask(&built.layer(model.clone()), request()).await).await,
        "second"
    );
    assert_eq!(begun.elapsed(), 400 * MILLI);
    let Some(Heard::Event(HedgeEvent::Fired { cause, after })) = events.next().await else {
        panic!("a hedge was made");
    };
    assert_eq!(cause, HedgeCause::Failed(ErrorKind::ServerError));
    assert_eq!(after, 100 * MILLI);
    // Where no other attempt helps, it fails.
    for kind in [
        ErrorKind::InvalidRequest,
        ErrorKind::AllTargetsFailed,
        ErrorKind::Authentication,
    ] {
        let model = plays([Script::fail(kind).head_after(100 * MILLI)]);
        let begun = Instant::now();
        let error = ask(&around(&model), request()).await.expect_err("it fails");
        assert_eq!(
            (error.kind(), begun.elapsed(), model.count()),
            (kind, 100 * MILLI, 1)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_is_left_answers() {
    // The first fails while the hedge is out, and the other way round.
    for scripts in [
        [failing(1500 * MILLI), slow("hedge", SECOND)],
        [slow("first", 2 * SECOND), failing(500 * MILLI)],
    ] {
        let model = plays(scripts);
        let begun = Instant::now();
        text(ask(&around(&model), streamed()).await).await;
        assert_eq!(begun.elapsed(), 2 * SECOND);
        assert_eq!(model.count(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn the_errors_of_all_are_told() {
    let limited = Script::fail(ErrorKind::RateLimited)
        .retry_after(3 * SECOND)
        .head_after(500 * MILLI);
    let model = plays([failing(2 * SECOND).retry_after(7 * SECOND), limited]);
    let built = layer(after_a_second());
    let error = ask(&built.layer(model), request())
        .await
        .expect_err("both fail");
    assert_eq!(error.kind(), ErrorKind::ServerError, "that of the first");
    let others: Vec<_> = error.attempts().iter().map(|a| a.error.kind()).collect();
    assert_eq!(others, [ErrorKind::RateLimited]);
    assert_eq!(error.retry_after(), Some(3 * SECOND), "the earliest");
    assert_eq!(built.handle().all_failed(), 1);
}

#[tokio::test(start_paused = true)]
async fn as_many_hedges_as_are_allowed_each_a_delay_after_the_last() {
    let model = ScriptedLlm::new(slow("late", 60 * SECOND)).commits();
    let built = layer(after_a_second().max_hedges(3));
    let begun = Instant::now();
    ask(&built.layer(model.clone()), request())
        .await
        .expect("late");
    assert_eq!(begun.elapsed(), 60 * SECOND);
    let at: Vec<_> = model.calls().iter().map(|call| call.at - begun).collect();
    assert_eq!(at, [0, 1, 2, 3].map(|s| s * SECOND));
    assert!((1..4).all(|hedge| is_cancelled(&model, hedge)));
    // One that fails is followed at once.
    let model = plays([
        slow("first", 9 * SECOND),
        failing(100 * MILLI),
        slow("third", SECOND),
    ]);
    let begun = Instant::now();
    let two = layer(after_a_second().max_hedges(2)).layer(model.clone());
    assert_eq!(text(ask(&two, request()).await).await, "third");
    assert_eq!(begun.elapsed(), 2100 * MILLI);
}

/// One that fails at once with what no other attempt would mend does not stop the clock of the next.
#[tokio::test(start_paused = true)]
async fn a_hedge_that_is_refused_at_once_leaves_the_next_its_turn() {
    for refused_after in [Duration::ZERO, 100 * MILLI] {
        let refused = Script::fail(ErrorKind::Authentication).head_after(refused_after);
        let model = plays([slow("first", 9 * SECOND), refused, slow("third", SECOND)]);
        let begun = Instant::now();
        let two = layer(after_a_second().max_hedges(2)).layer(model.clone());
        assert_eq!(text(ask(&two, request()).await).await, "third");
        assert_eq!(begun.elapsed(), 3 * SECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn who_must_not_be_doubled_is_not() {
    let model = plays([
        slow("one", 5 * SECOND),
        failing(MILLI),
        slow("three", 5 * SECOND),
    ]);
    let built = layer(after_a_second().when(|request| request.model().as_ref() != "once"));
    let service = built.layer(model.clone());
    assert_eq!(
        text(ask(&service, request().with_model("once")).await).await,
        "one"
    );
    ask(&service, request().with_model("once"))
        .await
        .expect_err("it fails");
    let embed = LlmRequest::embed("once", ["text"]);
    let _ = ask(&service, embed).await;
    assert_eq!((model.count(), built.handle().hedges()), (3, 0));
    assert_eq!(built.handle().calls(), 3);
    // Switched off, nobody is.
    built.handle().set_enabled(false);
    model.push(slow("late", 5 * SECOND));
    ask(&service, request()).await.expect("late");
    assert_eq!(model.count(), 4);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_bounds_all() {
    for (within, calls) in [(SECOND, 1), (3 * SECOND, 2)] {
        let model = ScriptedLlm::new(Script::hang()).commits();
        let mut request = request().with_timeout(within);
        let ledger = request.call.begin().clone();
        let until = request.call.deadline().expect("it has one");
        let service = around(&model);
        let call = tokio::time::timeout_at(until, ask(&service, request));
        call.await.expect_err("whoever holds it drops it then");
        // What would be made at the deadline is not made.
        assert_eq!((model.count(), model.in_progress()), (calls, 0));
        assert_eq!(ledger.sent() as usize, calls);
        // It is the failure of all, and nobody's cancellation.
        assert!(ledger.attempts().all(|a| a.dropped.is_none()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_either_goes_through_and_nothing_is_held() {
    for scripts in [
        [Script::panics("one"), Script::answer("two")],
        [slow("one", 9 * SECOND), Script::panics("two")],
        [slow("one", 9 * SECOND), slow("two", SECOND).panic_after(0)],
    ] {
        let model = plays(scripts);
        let service = around(&model);
        let call = tokio::spawn(async move { ask(&service, streamed()).await });
        let error = call.await.expect_err("it panicked");
        assert!(error.is_panic());
        assert_eq!((model.in_progress(), model.held()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_drops_both() {
    let model = ScriptedLlm::new(Script::hang()).commits();
    let mut request = request();
    let ledger = request.call.begin().clone();
    let service = around(&model);
    let call = tokio::time::timeout(2 * SECOND, ask(&service, request));
    call.await.expect_err("it hangs");
    assert_eq!(
        (model.count(), model.in_progress(), model.held()),
        (2, 0, 0)
    );
    assert!(
        ledger
            .attempts()
            .all(|a| a.dropped == Some(DropReason::CallerLeft))
    );
}

/// A service whose readiness takes its time, or fails, is only asked what it may be asked.
#[tokio::test(start_paused = true)]
async fn a_service_that_cannot_be_readied_has_failed() {
    #[derive(Clone)]
    struct Broken;
    impl Service<LlmRequest> for Broken {
        type Response = LlmResponse;
        type Error = LlmError;
        type Future = std::future::Ready<Result<LlmResponse, LlmError>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LlmError>> {
            Poll::Ready(Err(LlmError::new(ErrorKind::Connect, "no")))
        }

        fn call(&mut self, _: LlmRequest) -> Self::Future {
            panic!("called although it is not ready");
        }
    }
    let built = layer(after_a_second());
    let mut service = built.layer(Broken);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready(), "it is always ready");
    let error = ask(&service, request()).await.expect_err("nobody is ready");
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert_eq!(error.attempts().len(), 1, "it was tried twice");
}
