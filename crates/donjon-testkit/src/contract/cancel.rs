//! The law of cancellation.

use std::{future::poll_fn, task::Poll};

use donjon_core::{Body, LlmRequest, LlmResponse, LlmService, ResponseStream};
use futures_core::Stream;

use super::{
    Law,
    leaf::{Ask, call, leaf, nothing_held, ready, still_serves, within},
};
use crate::{ScriptedLlm, probe::poll_at_most};

/// No call of the checks has as many await points.
const MANY: usize = 2000;

/// Checks [`Law::DropsGiveBack`]: drops a call at each of its await points, before and after a
/// failed attempt, its stream after each chunk, and a service that waits to become ready. Each time
/// nothing may be held below, and the layer must go on serving.
///
/// # Panics
///
/// When the law is broken.
pub async fn drops_give_back<S: LlmService + Clone>(layer: impl Fn(ScriptedLlm) -> S) {
    let law = Law::DropsGiveBack;
    for ask in [Ask::Slow, Ask::Flaky] {
        for streamed in [false, true] {
            let leaf = leaf().with_capacity(2);
            let service = layer(leaf.clone());
            let request = || match streamed {
                true => ask.request().streamed(),
                false => ask.request(),
            };
            for polls in 0..MANY {
                let done = drop_after(law, &service, request(), polls).await;
                let after = format!("after a call was dropped at its poll {polls}");
                nothing_held(law, &leaf, &after).await;
                still_serves(law, &service, &after).await;
                if done {
                    break;
                }
            }
            for chunks in 0..MANY {
                let mut one = service.clone();
                let Ok(answer) = call(law, &mut one, request()).await else {
                    // What is flaky may fail; the next one does not.
                    continue;
                };
                drop(one);
                let done = read(law, answer, chunks).await;
                let after = format!("after a stream was dropped behind {chunks} chunks");
                nothing_held(law, &leaf, &after).await;
                still_serves(law, &service, &after).await;
                if done {
                    break;
                }
            }
        }
    }
    while_it_waits(law, layer).await;
}

/// Drops a call after so many polls; true if it was done by then.
async fn drop_after<S: LlmService + Clone>(
    law: Law,
    service: &S,
    request: LlmRequest,
    polls: usize,
) -> bool {
    let mut service = service.clone();
    ready(law, &mut service).await;
    let call = poll_at_most(service.call(request), polls);
    within(law, "a call wakes its task", call).await.is_some()
}

/// Reads so many chunks and drops the answer; true if it ended by then.
async fn read(law: Law, answer: LlmResponse, chunks: usize) -> bool {
    let Body::Stream(mut stream) = answer.body else {
        return true;
    };
    for _ in 0..chunks {
        let next = within(law, "a stream goes on", next(&mut stream)).await;
        if !matches!(next, Some(Ok(_))) {
            return true;
        }
    }
    false
}

pub(super) async fn next(stream: &mut ResponseStream) -> Option<<ResponseStream as Stream>::Item> {
    let mut stream = std::pin::Pin::new(stream);
    poll_fn(|cx| stream.as_mut().poll_next(cx)).await
}

/// Drops a service, or its call, that waits for the service below.
async fn while_it_waits<S: LlmService + Clone>(law: Law, layer: impl Fn(ScriptedLlm) -> S) {
    let leaf = leaf().with_capacity(1);
    let service = layer(leaf.clone());
    let mut other = leaf.clone();
    ready(law, &mut other).await;
    let mut waiting = service.clone();
    let polled = poll_fn(|cx| Poll::Ready(waiting.poll_ready(cx))).await;
    if polled.is_ready() {
        // It is always ready and waits in the call.
        let mut call = Box::pin(waiting.call(Ask::Answer.request()));
        let _ = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await;
        // Its turn comes, and it leaves without taking it.
        drop(other);
        drop(call);
    } else {
        drop(other);
    }
    drop(waiting);
    let after = "after a call that waited for the service below was dropped";
    nothing_held(law, &leaf, after).await;
    still_serves(law, &service, after).await;
}
