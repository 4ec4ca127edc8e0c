//! The model that the checks put below a layer, and what they ask of it.

use std::{
    error::Error,
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use donjon_core::{ErrorKind, LlmError, LlmRequest, LlmResponse, LlmService, Message};
use tokio::{
    task::yield_now,
    time::{sleep, timeout},
};

use super::Law;
use crate::{Script, ScriptedLlm};

/// What the model is asked for: the first word of the prompt says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// An answer at once.
    Answer,
    /// An answer with an await point before each of its parts, and time between them.
    Slow,
    /// Every second time an error that is worth another try, else a slow answer.
    Flaky,
    /// Nothing.
    Hang,
    /// The beginning of a stream, then nothing.
    Silence,
    /// The error at this place of the list of kinds, with three causes behind it.
    Fail(usize),
    /// A stream that breaks off with such an error.
    Break,
    /// Everything that a stream can carry.
    Rich,
}

impl Ask {
    /// A request for it, each with a prompt of its own.
    pub(super) fn request(self) -> LlmRequest {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        self.numbered(NUMBER.fetch_add(1, Relaxed))
    }

    /// A request for it; the same number gives the same prompt.
    pub(super) fn numbered(self, number: usize) -> LlmRequest {
        let word = match self {
            Self::Answer => "answer".to_owned(),
            Self::Slow => "slow".to_owned(),
            Self::Flaky => "flaky".to_owned(),
            Self::Hang => "hang".to_owned(),
            Self::Silence => "silence".to_owned(),
            Self::Fail(kind) => format!("fail-{kind}"),
            Self::Break => "break".to_owned(),
            Self::Rich => "rich".to_owned(),
        };
        let prompt = format!("{word} {number}");
        let mut request = LlmRequest::chat("contract", [Message::user(prompt)]);
        if self == Self::Rich
            && let Some(chat) = request.edit_chat()
        {
            chat.n = Some(2);
        }
        request
    }
}

/// A model that gives what is asked for, and counts calls that were not readied.
pub(super) fn leaf() -> ScriptedLlm {
    let flaky = Arc::new(AtomicUsize::new(0));
    let respond = move |request: &LlmRequest| {
        let prompt = request.as_chat().and_then(|chat| chat.messages.last());
        let prompt = prompt.map(|message| message.text().into_owned());
        let prompt = prompt.unwrap_or_default();
        let word = prompt.split(' ').next().unwrap_or_default();
        let pace = Duration::from_millis(10);
        let slow = Script::words(3)
            .yields(1)
            .head_after(pace)
            .first_token_after(pace)
            .gap(pace);
        match word {
            "slow" => slow,
            "flaky" if flaky.fetch_add(1, Relaxed).is_multiple_of(2) => {
                Script::fail(ErrorKind::Overloaded)
                    .yields(1)
                    .head_after(pace)
            }
            "flaky" => slow,
            "hang" => Script::hang(),
            "silence" => Script::words(3).stall_after(1, None),
            "break" => Script::words(3).fail_after(1, chained(ErrorKind::StreamBroken)),
            "rich" => Script::answer("one two three")
                .reasoning("so it is")
                .tool_call("look_up", r#"{"what": "the keep"}"#)
                .tool_call("look_up", r#"{"what": "the wall"}"#)
                .unknown_at(2)
                .empty_deltas_at(3, 2, pace),
            other => match other.strip_prefix("fail-").and_then(|at| at.parse().ok()) {
                Some(at) => Script::fail(chained(kind(at))).yields(1),
                None => Script::words(3),
            },
        }
    };
    ScriptedLlm::from_fn(respond).commits().record_unreadied()
}

/// The kind at this place, round and round.
pub(super) fn kind(at: usize) -> ErrorKind {
    ErrorKind::ALL[at % ErrorKind::ALL.len()]
}

/// An error with three causes behind it.
fn chained(kind: ErrorKind) -> LlmError {
    let error = LlmError::new(kind, "scripted").with_source(Link(1));
    match kind {
        ErrorKind::RateLimited => error.with_retry_after(Duration::from_secs(1)),
        _ => error,
    }
}

/// One link of a chain of three causes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link(pub(super) u8);

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cause {}", self.0)
    }
}

impl Error for Link {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self.0 {
            1 => Some(&Self(2)),
            2 => Some(&Self(3)),
            _ => None,
        }
    }
}

/// A wait longer than this is taken for ever. No layer of sense waits as long, and under a paused
/// clock it passes at once.
const EVER: Duration = Duration::from_secs(1200);

/// Nothing that the checks wait for is polled as often. A task that is always woken would keep a
/// paused clock from moving, and so never come to the end of `EVER`.
const SPINS: usize = 100_000;

/// Waits for `future`, which must not take for ever.
pub(super) async fn within<F: Future>(law: Law, what: &str, future: F) -> F::Output {
    let mut future = pin!(future);
    let mut polls = 0;
    let counted = poll_fn(|cx| {
        polls += 1;
        if polls > SPINS {
            law.broken(&format!(
                "{what}, but it spins: it was polled {SPINS} times"
            ));
        }
        future.as_mut().poll(cx)
    });
    match timeout(EVER, counted).await {
        Ok(output) => output,
        Err(_) => law.broken(&format!("{what}, but it never does")),
    }
}

/// Waits until `service` is ready.
pub(super) async fn ready<S: LlmService + Clone>(law: Law, service: &mut S) {
    let readied = poll_fn(|cx| service.poll_ready(cx));
    let readied = within(law, "a service that nobody uses becomes ready", readied).await;
    if let Err(error) = readied {
        let error: LlmError = error.into();
        law.broken(&format!("`poll_ready` answered with an error: {error}"));
    }
}

/// Readies `service` and calls it.
pub(super) async fn call<S: LlmService + Clone>(
    law: Law,
    service: &mut S,
    request: LlmRequest,
) -> Result<LlmResponse, LlmError> {
    ready(law, service).await;
    let answer = service.call(request);
    let answer = within(law, "a call comes to an answer", answer).await;
    answer.map_err(Into::into)
}

/// Readies `service`, calls it, and reads its answer to the end.
pub(super) async fn whole<S: LlmService + Clone>(
    law: Law,
    service: &mut S,
    request: LlmRequest,
) -> Result<(), LlmError> {
    let answer = call(law, service, request).await?;
    within(law, "an answer comes to its end", answer.collect()).await?;
    Ok(())
}

/// Waits for all of these together.
pub(super) async fn all(law: Law, mut futures: Vec<Pin<Box<dyn Future<Output = ()> + '_>>>) {
    let all = poll_fn(|cx| {
        futures.retain_mut(|future| future.as_mut().poll(cx).is_pending());
        match futures.is_empty() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    });
    within(law, "several calls come to their ends", all).await;
}

/// Checks that the layer still serves.
pub(super) async fn still_serves<S: LlmService + Clone>(law: Law, service: &S, after: &str) {
    let mut service = service.clone();
    let request = Ask::Answer.request();
    if let Err(error) = whole(law, &mut service, request).await {
        law.broken(&format!("{after}, a good call failed: {error}"));
    }
}

/// Checks that nothing of the model is held any more.
pub(super) async fn nothing_held(law: Law, leaf: &ScriptedLlm, after: &str) {
    // Whoever works in a task of their own has a moment for it.
    for _ in 0..16 {
        if leaf.held() == 0 && leaf.in_progress() == 0 {
            return;
        }
        yield_now().await;
    }
    sleep(Duration::from_millis(10)).await;
    let (held, calls) = (leaf.held(), leaf.in_progress());
    if (held, calls) != (0, 0) {
        law.broken(&format!(
            "{after}, {held} permits of the service below are still held, and {calls} of its calls \
             still run"
        ));
    }
}
