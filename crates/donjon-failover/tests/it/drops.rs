//! A call may be dropped at any moment.

use std::{
    pin::pin,
    task::{Context, Waker},
};

use donjon_core::{Body, ErrorKind, LlmError, LlmRequest, LlmResponse};
use donjon_failover::{Failover, Target};
use donjon_testkit::{Script, ScriptedLlm};
use futures_util::{Stream, StreamExt};
use tower::Service;

use crate::{failover, model, request};

/// Polls a call, then its stream, up to `polls` times and drops what there is. Whether it ended.
fn drop_after(
    polls: usize,
    request: LlmRequest,
    service: &mut donjon_failover::Failover<ScriptedLlm>,
) -> bool {
    let cx = &mut Context::from_waker(Waker::noop());
    let mut left = polls;
    let answer = {
        let mut call = pin!(service.call(request));
        loop {
            if left == 0 {
                return false;
            }
            left -= 1;
            if let std::task::Poll::Ready(answer) = call.as_mut().poll(cx) {
                break answer;
            }
        }
    };
    let Ok(Body::Stream(mut stream)) = answer.map(|answer| answer.body) else {
        return true;
    };
    loop {
        if left == 0 {
            return false;
        }
        left -= 1;
        if let std::task::Poll::Ready(None) = pin!(&mut stream).as_mut().poll_next(cx) {
            return true;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_at_any_await_point_leaves_nothing() {
    let down = Script::fail(ErrorKind::Overloaded).yields(3);
    for request in [request(), request().streamed()] {
        let mut ended = false;
        let mut polls = 0;
        while !ended {
            let models = [
                model(down.clone()).with_capacity(1),
                model(Script::words(2).cut_after(0).yields(2)).with_capacity(1),
                model(Script::words(2).yields(2)).with_capacity(1),
            ];
            let mut failover = failover(&models);
            ended = drop_after(polls, request.clone(), &mut failover);
            for model in &models {
                assert_eq!(
                    (model.in_progress(), model.held()),
                    (0, 0),
                    "after {polls} polls"
                );
            }
            let targets = failover.handle().targets();
            let calls: u64 = targets.iter().map(|t| t.calls).sum();
            let ends: u64 = targets
                .iter()
                .map(|t| t.successes + t.cancelled + t.failed())
                .sum();
            assert_eq!(calls, ends, "each call has one end, after {polls} polls");
            // A stream that is dropped once its finish reason came has succeeded.
            let cancelled: u64 = targets.iter().map(|t| t.cancelled).sum();
            let served: u64 = targets.iter().map(|t| t.successes).sum();
            // One that was never polled was given to nobody.
            assert_eq!(
                cancelled + served,
                u64::from(polls > 0),
                "after {polls} polls"
            );
            assert!(served == 1 || !ended);
            polls += 1;
        }
        assert!(polls > 10, "it was dropped at {polls} points");
    }
}

#[tokio::test(start_paused = true)]
async fn many_calls_dropped_at_random_leave_nothing() {
    let models = [
        model(Script::fail(ErrorKind::Overloaded).yields(3)).with_capacity(4),
        model(Script::words(5).yields(1)).with_capacity(4),
    ];
    let failover = failover(&models);
    let mut random = 1_u32;
    let calls = futures_util::stream::iter(0..2000).for_each_concurrent(64, |_| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let turns = (random >> 24) % 24;
        let mut failover = failover.clone();
        async move {
            let call = async {
                let answer = failover.call(request().streamed()).await;
                if let Ok(Body::Stream(stream)) = answer.map(|answer| answer.body) {
                    stream.for_each(|_| std::future::ready(())).await;
                }
            };
            let leave = async {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! { biased; () = call => {} () = leave => {} }
        }
    });
    calls.await;
    for (model, target) in models.iter().zip(failover.handle().targets()) {
        assert_eq!((model.in_progress(), model.held()), (0, 0));
        assert_eq!(target.in_flight(), 0);
        assert!(target.calls > 100 && target.cancelled > 100, "{target:?}");
    }
}

/// A service that panics instead of answering.
#[tokio::test]
async fn a_call_that_panics_is_not_counted_for_ever() {
    for at_once in [true, false] {
        let leaf = tower::service_fn(move |_: LlmRequest| {
            assert!(!at_once, "the service panics when it is called");
            async move {
                tokio::task::yield_now().await;
                assert!(at_once, "the service panics when it is polled");
                Err::<LlmResponse, _>(LlmError::new(ErrorKind::Internal, ""))
            }
        });
        let target = Target::new("t", leaf);
        let failover = Failover::builder().target(target).build().expect("good");
        let handle = failover.handle();
        let call = tokio::spawn(async move {
            let mut failover = failover;
            failover.call(request()).await
        });
        assert!(call.await.expect_err("it panics").is_panic());
        let of = handle.target("t").expect("it is there");
        assert_eq!(of.in_flight(), 0, "{of:?}");
    }
}
