//! A stream that is gone on with may be dropped at any moment.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

use donjon_core::{Body, ErrorKind, LlmRequest};
use donjon_failover::Failover;
use donjon_testkit::{
    Script, ScriptedLlm,
    probe::{EndLog, poll_once},
};
use futures_util::{Stream, StreamExt};
use tower::Service;

use super::{begun, builder, words};
use crate::request;

/// Three targets: one that breaks, one that rejects or answers otherwise, one that goes on; all take
/// several polls for everything, and have few places.
fn targets(log: &EndLog) -> [ScriptedLlm; 4] {
    let model = |respond: fn(&LlmRequest) -> Script| {
        let model = ScriptedLlm::from_fn(move |request| respond(request).yields(1));
        model.commits().observed_by(log).with_capacity(8)
    };
    [
        model(|_| Script::words(9).cut_after(4)),
        model(|request| match begun(request) {
            Some(_) => Script::fail(ErrorKind::InvalidRequest),
            None => Script::answer("w0 w1 and so on"),
        }),
        model(|_| Script::fail(ErrorKind::Overloaded)),
        model(|_| Script::words(9)),
    ]
}

fn failover(models: &[ScriptedLlm; 4]) -> Failover<ScriptedLlm> {
    let [a, b, c, d] = models;
    let all = [(a, false), (b, true), (c, false), (d, false)];
    let resume = donjon_failover::Resume::new();
    let never = std::time::Duration::ZERO;
    let failover = builder(&all).resume(resume.prefill_again_after(never));
    failover.build().expect("good")
}

fn assert_nothing_is_held(models: &[ScriptedLlm; 4], failover: &Failover<ScriptedLlm>) {
    for model in models {
        assert_eq!((model.in_progress(), model.held()), (0, 0));
    }
    for target in failover.handle().targets() {
        assert_eq!(target.in_flight(), 0, "each call has one end");
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_after_any_poll_it_leaves_nothing() {
    let cx = &mut Context::from_waker(Waker::noop());
    for polls in 0..500 {
        // What tokio has polled so often in one task looks pending.
        tokio::task::yield_now().await;
        let log = EndLog::new();
        let models = targets(&log);
        let mut failover = failover(&models);
        let (mut left, mut ended) = (polls, false);
        let mut call = Box::pin(failover.call(request().streamed()));
        let mut stream: Option<donjon_core::ResponseStream> = None;
        while left > 0 {
            left -= 1;
            let Some(open) = &mut stream else {
                if let Poll::Ready(answer) = poll_once(&mut call) {
                    let outer = log.observer();
                    let answer = answer.expect("it begins").observe(outer);
                    let Body::Stream(open) = answer.body else {
                        panic!("it does not stream")
                    };
                    stream = Some(open);
                }
                continue;
            };
            match Pin::new(open).poll_next(cx) {
                Poll::Ready(None) => {
                    ended = true;
                    break;
                }
                Poll::Ready(Some(item)) => drop(item.expect("it goes on")),
                Poll::Pending => {}
            }
        }
        drop((call, stream));
        assert_nothing_is_held(&models, &failover);
        log.assert_one_each();
        if ended {
            assert!(polls > 30, "it was dropped at {polls} points");
            assert_eq!(models[3].count(), 1);
            return;
        }
    }
    panic!("it never ended");
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_dropped_at_random_leave_nothing() {
    let log = EndLog::new();
    let models = targets(&log);
    let failover = failover(&models);
    let mut random = 7_u32;
    let (mut whole, mut left) = (0, 0);
    let calls = futures_util::stream::iter(0..10_000).map(|_| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let turns = (random >> 24) % 110;
        let mut failover = failover.clone();
        async move {
            let call = async {
                let answer = failover.call(request().streamed()).await;
                let mut text = String::new();
                if let Ok(Body::Stream(mut stream)) = answer.map(|answer| answer.body) {
                    while let Some(Ok(chunk)) = stream.next().await {
                        text.push_str(chunk.text().unwrap_or_default());
                    }
                }
                assert_eq!(text, words(9));
                true
            };
            let leave = async {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
                false
            };
            tokio::select! { biased; whole = call => whole, whole = leave => whole }
        }
    });
    let mut calls = calls.buffer_unordered(8);
    while let Some(ended) = calls.next().await {
        *(if ended { &mut whole } else { &mut left }) += 1;
    }
    drop(calls);
    assert!(whole > 500 && left > 500, "{whole} whole, {left} left");
    assert_nothing_is_held(&models, &failover);
    log.assert_one_each();
}
