//! The laws of what passes through: errors, answers, ends.

use std::error::Error;

use donjon_core::{
    Body, ChatCompletion, Completion, Delta, ErrorKind, LlmError, LlmRequest, LlmResponse,
    LlmService, watch,
};

use super::{
    Law,
    cancel::next,
    leaf::{Ask, Link, call, leaf, nothing_held, ready, within},
};
use crate::{
    ScriptedLlm,
    probe::{EndLog, poll_at_most},
};

/// Checks [`Law::SourcesAreKept`]: an error of the model with three causes behind it, before the
/// answer and in a stream, of every kind that the model may fail with.
///
/// # Panics
///
/// When the law is broken.
pub async fn sources_are_kept<S: LlmService + Clone>(layer: impl Fn(ScriptedLlm) -> S) {
    let law = Law::SourcesAreKept;
    for (at, kind) in ErrorKind::ALL.iter().enumerate() {
        // Kinds of our own making come from layers, and not from models.
        if kind.is_unsent() || matches!(kind, ErrorKind::AllTargetsFailed | ErrorKind::Internal) {
            continue;
        }
        let mut service = layer(leaf());
        match call(law, &mut service, Ask::Fail(at).request()).await {
            Ok(_) => law.broken(&format!("the model's `{kind}` came out as an answer")),
            Err(error) => keeps(law, &error, *kind),
        }
    }
    let mut service = layer(leaf());
    let request = Ask::Break.request().streamed();
    let error = match call(law, &mut service, request).await {
        Ok(answer) => within(law, "a stream ends", answer.collect()).await.err(),
        Err(error) => Some(error),
    };
    match error {
        Some(error) => keeps(law, &error, ErrorKind::StreamBroken),
        None => law.broken("a stream that broke came out whole"),
    }
}

fn keeps(law: Law, error: &LlmError, kind: ErrorKind) {
    let chain = || {
        let mut next: Option<&(dyn Error + 'static)> = Some(error);
        std::iter::from_fn(move || {
            let this = next?;
            next = this.source();
            Some(this)
        })
    };
    let mut own = chain().filter_map(|link| link.downcast_ref::<LlmError>());
    if !own.any(|own| own.kind() == kind) {
        law.broken(&format!(
            "the model's `{kind}` is not to be found in {error:?}"
        ));
    }
    for cause in 1..=3 {
        if !chain().any(|link| link.downcast_ref() == Some(&Link(cause))) {
            law.broken(&format!(
                "cause {cause} of 3 behind the model's `{kind}` cannot be reached from {error:?}"
            ));
        }
    }
}

/// Checks [`Law::StreamsAreUnchanged`] with an answer of everything that a stream can carry: two
/// choices, reasoning, text, tool calls, an unknown event, usage. Keep-alives need not pass.
///
/// # Panics
///
/// When the law is broken.
pub async fn streams_are_unchanged<S: LlmService + Clone>(layer: impl Fn(ScriptedLlm) -> S) {
    let law = Law::StreamsAreUnchanged;
    let (streamed, unary) = (Ask::Rich.request().streamed(), Ask::Rich.request());
    let expected = deltas(law, &mut leaf(), streamed.clone()).await;
    let found = deltas(law, &mut layer(leaf()), streamed).await;
    for (n, expected) in expected.iter().enumerate() {
        match found.get(n) {
            Some(found) if found == expected => {}
            Some(found) => law.broken(&format!(
                "chunk {n} went in as\n  {expected}\nand came out as\n  {found}"
            )),
            None => law.broken(&format!(
                "{} of {} chunks came out; the first that is missing is {expected}",
                found.len(),
                n.max(found.len()) + 1
            )),
        }
    }
    if let Some(more) = found.get(expected.len()) {
        law.broken(&format!("a chunk too many came out: {more}"));
    }
    let expected = completion(law, &mut leaf(), unary.clone()).await;
    let found = completion(law, &mut layer(leaf()), unary).await;
    if expected != found {
        law.broken(&format!(
            "a whole answer went in as\n  {expected}\nand came out as\n  {found}"
        ));
    }
}

async fn answer<S: LlmService + Clone>(
    law: Law,
    service: &mut S,
    request: LlmRequest,
) -> LlmResponse {
    match call(law, service, request).await {
        Ok(answer) => answer,
        Err(error) => law.broken(&format!("a good call failed: {error}")),
    }
}

/// The chunks of an answer, written out, without the answer's name and without keep-alives.
async fn deltas<S: LlmService + Clone>(
    law: Law,
    service: &mut S,
    request: LlmRequest,
) -> Vec<String> {
    let Body::Stream(mut stream) = answer(law, service, request).await.body else {
        law.broken("a stream came out whole");
    };
    let mut deltas = Vec::new();
    while let Some(chunk) = within(law, "a stream goes on", next(&mut stream)).await {
        match chunk {
            Ok(chunk) if chunk.is_ping() => {}
            Ok(chunk) => {
                let mut delta: Delta = chunk.into_delta();
                delta.id = None;
                deltas.push(brief(&format!("{delta:?}")));
            }
            Err(error) => law.broken(&format!("a good stream broke: {error}")),
        }
    }
    deltas
}

async fn completion<S: LlmService + Clone>(
    law: Law,
    service: &mut S,
    request: LlmRequest,
) -> String {
    let Body::Complete(Completion::Chat(chat)) = answer(law, service, request).await.body else {
        law.broken("a whole answer came out as something else");
    };
    let mut chat = ChatCompletion::clone(&chat);
    chat.id = None;
    brief(&format!("{chat:?}"))
}

/// Leaves out what is not there.
fn brief(debug: &str) -> String {
    let members = debug.split(", ");
    let there = members.filter(|member| !member.ends_with(": None"));
    there.collect::<Vec<_>>().join(", ")
}

/// Checks [`Law::OneEndEach`]: answers, failures before and in the stream, and drops at every await
/// point and behind every chunk, each heard around the layer and by the model below.
///
/// # Panics
///
/// When the law is broken.
pub async fn one_end_each<S: LlmService + Clone>(layer: impl Fn(ScriptedLlm) -> S) {
    let law = Law::OneEndEach;
    for ask in [Ask::Slow, Ask::Flaky, Ask::Fail(0), Ask::Break] {
        for streamed in [false, true] {
            let request = || match streamed {
                true => ask.request().streamed(),
                false => ask.request(),
            };
            let mut polls = 0;
            let mut chunks = 0;
            loop {
                let (around, below) = (EndLog::new(), EndLog::new());
                let leaf = leaf().observed_by(&below);
                // It lives on, so that what it keeps is not ended by its own end.
                let service = layer(leaf.clone());
                let step = one(law, service.clone(), request(), &around, polls, chunks).await;
                let after = match step {
                    Step::Polls => format!("a call was dropped at its poll {polls}"),
                    _ => format!("a call was dropped behind {chunks} chunks, or ended before"),
                };
                nothing_held(law, &leaf, &format!("after {after}")).await;
                for (who, log, expected) in [
                    ("around the layer", &around, 1),
                    ("below it", &below, leaf.count()),
                ] {
                    if let Some(fault) = log.fault() {
                        law.broken(&format!("when {after}, {who} {fault}"));
                    }
                    if log.ends().len() != expected {
                        let heard = log.ends();
                        law.broken(&format!("when {after}, {who} {heard:?} was heard"));
                    }
                }
                match step {
                    Step::Polls => polls += 1,
                    Step::Chunks => chunks += 1,
                    Step::Done => break,
                }
            }
        }
    }
}

/// What is to be done one more of, so that the next drop comes later.
enum Step {
    Polls,
    Chunks,
    Done,
}

async fn one<S: LlmService + Clone>(
    law: Law,
    mut service: S,
    mut request: LlmRequest,
    around: &EndLog,
    polls: usize,
    chunks: usize,
) -> Step {
    ready(law, &mut service).await;
    request.call.begin();
    let call = request.call.clone();
    let call = watch(&call, service.call(request), around.observer());
    let call = within(law, "a call wakes its task", poll_at_most(call, polls)).await;
    let Some(result) = call else {
        return Step::Polls;
    };
    let Ok(Body::Stream(mut stream)) = result.map(|answer| answer.body) else {
        return Step::Done;
    };
    for _ in 0..chunks {
        let next = within(law, "a stream goes on", next(&mut stream)).await;
        if !matches!(next, Some(Ok(_))) {
            return Step::Done;
        }
    }
    Step::Chunks
}
