//! The laws of polling.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use donjon_core::{Body, LlmError, LlmService};
use futures_core::Stream;
use tokio::task::{
    coop::{consume_budget, has_budget_remaining, unconstrained},
    yield_now,
};

use super::{
    Law,
    leaf::{Ask, call, leaf, within},
};
use crate::{ScriptedLlm, probe::CountingWaker};

/// Checks [`Law::BudgetIsNoRefusal`]: several hundred good calls in one task, which uses up tokio's
/// cooperative budget before each step, so that every resource of tokio's looks pending.
///
/// # Panics
///
/// When the law is broken.
pub async fn budget_is_no_refusal<S: LlmService + Clone>(layer: impl Fn(ScriptedLlm) -> S) {
    let law = Law::BudgetIsNoRefusal;
    for (capacity, exhausted) in [(None, false), (None, true), (Some(4), true)] {
        let leaf = match capacity {
            None => leaf(),
            Some(capacity) => leaf().with_capacity(capacity),
        };
        let mut service = layer(leaf);
        let calls = async {
            for n in 0..300 {
                if exhausted {
                    use_up_budget();
                }
                let readied = poll_fn(|cx| service.poll_ready(cx)).await;
                if exhausted {
                    use_up_budget();
                }
                let result = match readied {
                    Ok(()) => service.call(Ask::Answer.request()).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = result {
                    let error: LlmError = error.into();
                    law.broken(&format!("good call {n} in one task failed: {error}"));
                }
            }
        };
        within(law, "a task comes to the end of its calls", calls).await;
    }
}

/// Uses up what the task may poll until it has to yield.
fn use_up_budget() {
    let mut cx = Context::from_waker(Waker::noop());
    // Outside a runtime there is no budget to be used up.
    for _ in 0..1024 {
        if !has_budget_remaining() {
            return;
        }
        let _ = pin!(consume_budget()).poll(&mut cx);
    }
}

/// The most times that something that waits may wake itself until it has settled, and afterwards.
const SETTLING: usize = 16;

/// Checks [`Law::WaitsDoNotSpin`]: for the model, for a permit, for another call, in the middle of a
/// stream. No time passes meanwhile, and nothing comes.
///
/// # Panics
///
/// When the law is broken.
pub async fn waits_do_not_spin<S: LlmService + Clone>(layer: impl Fn(ScriptedLlm) -> S) {
    for capacity in [None, Some(1)] {
        for alike in [false, true] {
            for streamed in [false, true] {
                let leaf = match capacity {
                    None => leaf(),
                    Some(capacity) => leaf().with_capacity(capacity),
                };
                hanging(layer(leaf), alike, streamed).await;
            }
        }
    }
    let law = Law::WaitsDoNotSpin;
    let mut service = layer(leaf());
    let request = Ask::Silence.request().streamed();
    let answer = call(law, &mut service, request).await;
    if let Ok(Body::Stream(mut stream)) = answer.map(|answer| answer.body) {
        let poll = |cx: &mut Context<'_>| loop {
            // What there is is read; then nothing comes.
            match Pin::new(&mut stream).poll_next(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                other => return other.map(drop),
            }
        };
        settles("a stream in which nothing comes", poll).await;
    }
}

/// Four calls, of which none comes to an answer.
async fn hanging<S: LlmService + Clone>(service: S, alike: bool, streamed: bool) {
    let mut all = Vec::new();
    for n in 0..4 {
        let mut one = service.clone();
        let readied = settles("`poll_ready`", |cx| one.poll_ready(cx).map(drop)).await;
        let call = readied.map(|()| {
            let request = Ask::Hang.numbered(if alike { 0 } else { n });
            Box::pin(one.call(match streamed {
                true => request.streamed(),
                false => request,
            }))
        });
        all.push((one, call));
        // Whoever came before waits as well as before.
        for (_, call) in &mut all {
            if let Some(waiting) = call {
                let poll = |cx: &mut Context<'_>| waiting.as_mut().poll(cx).map(drop);
                if settles("a call that waits", poll).await.is_some() {
                    *call = None;
                }
            }
        }
    }
}

/// Polls while there is a wake-up, then a few times without one; `Some` once it is ready.
async fn settles(what: &str, mut poll: impl FnMut(&mut Context<'_>) -> Poll<()>) -> Option<()> {
    let law = Law::WaitsDoNotSpin;
    let wakes = CountingWaker::new();
    let waker = wakes.waker();
    // Without a budget of the task's, which would wake by itself.
    let mut once = async || {
        let mut cx = Context::from_waker(&waker);
        let polled = unconstrained(poll_fn(|_| Poll::Ready(poll(&mut cx)))).await;
        // Whoever works in a task of their own has a moment for it.
        yield_now().await;
        polled
    };
    let mut heard = None;
    for _ in 0..SETTLING {
        if heard == Some(wakes.count()) {
            break;
        }
        heard = Some(wakes.count());
        if once().await.is_ready() {
            return Some(());
        }
    }
    if heard != Some(wakes.count()) {
        law.broken(&format!(
            "{what} woke itself at each of {SETTLING} polls, although nothing happened"
        ));
    }
    let before = wakes.count();
    for _ in 0..8 {
        if once().await.is_ready() {
            return Some(());
        }
    }
    let wakes = wakes.count() - before;
    if wakes > 1 {
        law.broken(&format!(
            "{what} woke itself {wakes} times in 8 polls that nothing had called for"
        ));
    }
    None
}
