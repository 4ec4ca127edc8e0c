//! Streams that break after their first token, and are gone on with.

mod asking;
mod drops;
mod legal;
mod shapes;
mod told;
mod ways;

use std::{sync::Arc, time::Duration};

use donjon_core::{Body, Chunk, ErrorKind, Fold, LlmError, LlmRequest, LlmResponse, Role, Usage};
use donjon_failover::{Failover, FailoverBuilder, Resume, Target};
use donjon_testkit::{Script, ScriptedLlm, probe::EndLog};
use futures_util::StreamExt;

use crate::{NAMES, ask};

/// `w0 w1 … w59 `.
fn words(n: usize) -> String {
    (0..n).map(|i| format!("w{i} ")).collect()
}

/// What the last message says, if it is the assistant's.
fn begun(request: &LlmRequest) -> Option<String> {
    let last = request.as_chat()?.messages.last()?;
    (last.role == Role::Assistant).then(|| last.text().into_owned())
}

/// A model that answers with `text`, and goes on with what was begun of it.
fn continuing(text: &str) -> ScriptedLlm {
    let text = text.to_owned();
    ScriptedLlm::from_fn(move |request| match begun(request) {
        Some(begun) => {
            let rest = text.strip_prefix(&*begun).expect("it was begun so");
            Script::answer(rest).usage(Usage::new(50, 7))
        }
        None => Script::answer(&text),
    })
    .commits()
}

/// A model that rejects what was begun, and else plays `script`.
fn rejecting(script: Script) -> ScriptedLlm {
    ScriptedLlm::from_fn(move |request| match begun(request) {
        Some(_) => Script::fail(ErrorKind::InvalidRequest).status(400),
        None => script.clone(),
    })
    .commits()
}

/// Targets `a`, `b` and so on, which continue where that is said.
fn builder(models: &[(&ScriptedLlm, bool)]) -> FailoverBuilder<ScriptedLlm> {
    let targets = NAMES.iter().zip(models).map(|(name, (model, continues))| {
        Target::new(*name, (*model).clone()).continues(*continues)
    });
    Failover::builder().targets(targets).resume(Resume::new())
}

fn resuming(models: &[(&ScriptedLlm, bool)]) -> Failover<ScriptedLlm> {
    builder(models).build().expect("a good configuration")
}

/// What a caller got.
#[derive(Debug)]
struct Got {
    chunks: Vec<Chunk>,
    error: Option<LlmError>,
    fold: donjon_core::ChatCompletion,
    took: Duration,
}

impl Got {
    fn text(&self) -> String {
        self.fold.first_text().into_owned()
    }

    fn kind(&self) -> Option<ErrorKind> {
        self.error.as_ref().map(LlmError::kind)
    }

    /// Fails unless it is one answer: one role, one name, one end, one usage after it.
    fn assert_one(&self) {
        let choices = || self.chunks.iter().flat_map(|chunk| &chunk.choices);
        assert!(choices().filter(|choice| choice.role.is_some()).count() <= 1);
        let ends = choices().filter(|choice| choice.finish_reason.is_some());
        assert_eq!(ends.count(), usize::from(self.error.is_none()));
        let first = &self.chunks[0];
        for chunk in self.chunks.iter().filter(|chunk| !chunk.unknown) {
            assert_eq!((&chunk.id, &chunk.model), (&first.id, &first.model));
        }
        let usages = self.chunks.iter().filter(|chunk| chunk.usage.is_some());
        assert!(usages.count() <= 1, "the usage is told once");
    }
}

/// Reads an answer to its end, and fails rather than hangs.
async fn read(answer: LlmResponse) -> Got {
    let began = tokio::time::Instant::now();
    let Body::Stream(mut stream) = answer.body else {
        panic!("it does not stream")
    };
    let (mut chunks, mut error, mut fold) = (Vec::new(), None, Fold::new());
    let all = async {
        while let Some(item) = stream.next().await {
            match item {
                Ok(chunk) => {
                    fold.push(&chunk);
                    chunks.push(chunk);
                }
                Err(e) => error = Some(e),
            }
        }
    };
    let hour = Duration::from_secs(3600);
    tokio::time::timeout(hour, all).await.expect("it hangs");
    Got {
        chunks,
        error,
        fold: fold.finish(),
        took: began.elapsed(),
    }
}

async fn get(failover: &Failover<ScriptedLlm>, request: LlmRequest) -> Got {
    let answer = ask(failover, request.streamed()).await;
    let got = read(answer.expect("it begins")).await;
    got.assert_one();
    got
}

/// The attempts of a call: cause, parent and target of each.
fn attempts(
    ledger: &Arc<donjon_core::Ledger>,
) -> Vec<(donjon_core::AttemptCause, Option<u32>, String)> {
    let told = |a: donjon_core::Attempt| {
        let target = a.target.map(|name| name.to_string());
        (a.cause, a.parent, target.unwrap_or_default())
    };
    ledger.attempts().map(told).collect()
}

/// A model that is observed from right above it.
fn observed(script: impl Into<Script>, log: &EndLog) -> ScriptedLlm {
    crate::model(script).observed_by(log)
}

fn cut(after: usize) -> Script {
    Script::words(60).cut_after(after)
}
