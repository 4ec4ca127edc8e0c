//! Hearing how a call ends.

use std::{fmt, time::Duration};

use tokio::time::Instant;

use crate::{
    error::LlmError,
    ledger::{AttemptRef, DropReason},
    vocab::{Call, Chunk, Completion, Head, LlmResponse, Until, Usage},
};

/// Whatever a layer holds or measures for a call: a permit, a reservation, a verdict, a span.
///
/// It is handed to [`watch`](crate::watch) when the call is admitted, moves onto the response, and
/// hears **exactly one end**, after which it is dropped.
///
/// It hears the stream as it stood where it was attached. Observers further in hear an end before
/// those further out.
pub trait Observer: Send + 'static {
    /// The call committed: the future resolved with a response.
    fn committed(&mut self, head: &Head) {
        let _ = head;
    }

    /// A chunk went by.
    fn chunk(&mut self, chunk: &Chunk) {
        let _ = chunk;
    }

    /// The call ended.
    fn end(&mut self, end: &End<'_>);
}

/// An observer that hears nothing, for what needs none.
impl Observer for () {
    fn end(&mut self, _: &End<'_>) {}
}

impl<O: Observer + ?Sized> Observer for Box<O> {
    fn committed(&mut self, head: &Head) {
        (**self).committed(head);
    }

    fn chunk(&mut self, chunk: &Chunk) {
        (**self).chunk(chunk);
    }

    fn end(&mut self, end: &End<'_>) {
        (**self).end(end);
    }
}

impl<O: Observer> Observer for Option<O> {
    fn committed(&mut self, head: &Head) {
        if let Some(observer) = self {
            observer.committed(head);
        }
    }

    fn chunk(&mut self, chunk: &Chunk) {
        if let Some(observer) = self {
            observer.chunk(chunk);
        }
    }

    fn end(&mut self, end: &End<'_>) {
        if let Some(observer) = self {
            observer.end(end);
        }
    }
}

impl<A: Observer, B: Observer> Observer for (A, B) {
    fn committed(&mut self, head: &Head) {
        self.0.committed(head);
        self.1.committed(head);
    }

    fn chunk(&mut self, chunk: &Chunk) {
        self.0.chunk(chunk);
        self.1.chunk(chunk);
    }

    fn end(&mut self, end: &End<'_>) {
        self.0.end(end);
        self.1.end(end);
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// With a whole answer. A stream that is dropped once every choice had its finish reason has
    /// succeeded: many clients stop reading there.
    Success,
    /// With an error, before the commit point or in the stream. A call whose deadline passed has
    /// failed, whoever dropped it.
    Failure(&'a LlmError),
    /// It was dropped; that is nobody's failure.
    Cancelled {
        /// Why.
        why: DropReason,
        /// How long after it was first kept waiting.
        elapsed: Duration,
    },
}

/// The end of a call.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct End<'a> {
    /// How it ended.
    pub outcome: Outcome<'a>,
    /// What it used, as the provider said last; `None` if it never did.
    pub usage: Option<&'a Usage>,
    /// The answer, where it came whole.
    pub completion: Option<&'a Completion>,
    /// The bytes of text, reasoning and tool arguments that were streamed.
    pub streamed_bytes: u64,
}

impl<'a> End<'a> {
    pub(crate) fn without_answer(outcome: Outcome<'a>) -> Self {
        Self {
            outcome,
            usage: None,
            completion: None,
            streamed_bytes: 0,
        }
    }
}

impl Completion {
    /// The end of a call that came to this whole answer.
    pub(crate) fn end(&self) -> End<'_> {
        End {
            outcome: Outcome::Success,
            usage: self.usage(),
            completion: Some(self),
            streamed_bytes: 0,
        }
    }
}

/// What an observer needs to know to tell a cancellation from a failure.
#[derive(Clone, Default)]
pub(crate) struct Context {
    attempt: Option<AttemptRef>,
    until: Until,
    since: Option<Instant>,
}

impl Context {
    pub(crate) fn of(call: &Call) -> Self {
        Self {
            attempt: call.attempt().cloned(),
            until: call.until(),
            since: None,
        }
    }

    pub(crate) fn dispatched(attempt: &AttemptRef, until: Until, since: Option<Instant>) -> Self {
        Self {
            attempt: Some(attempt.clone()),
            until,
            since,
        }
    }

    pub(crate) fn now() -> Self {
        Self {
            since: Some(Instant::now()),
            ..Self::default()
        }
    }

    /// Starts the clock of [`Outcome::Cancelled`]; a call that is never kept waiting cannot be
    /// cancelled, and never reads the clock.
    pub(crate) fn waits(&mut self) {
        self.since.get_or_insert_with(Instant::now);
    }

    /// Tells what it means that the call is dropped now.
    pub(crate) fn tell_drop(&self, tell: impl FnOnce(Outcome<'_>)) {
        tell_drop(self.attempt.as_ref(), self.until, self.since, tell);
    }
}

fn tell_drop(
    attempt: Option<&AttemptRef>,
    until: Until,
    since: Option<Instant>,
    tell: impl FnOnce(Outcome<'_>),
) {
    let now = Instant::now();
    let deadline = until.at(attempt.map(|attempt| &**attempt.ledger()));
    if deadline.is_some_and(|deadline| deadline <= now) {
        tell(Outcome::Failure(&Call::deadline_error()));
        return;
    }
    // Whoever drops it says that it has failed, as a timeout does.
    if let Some(error) = attempt.and_then(AttemptRef::let_go_for) {
        tell(Outcome::Failure(error));
        return;
    }
    let why = attempt.and_then(AttemptRef::dropped);
    tell(Outcome::Cancelled {
        why: why.unwrap_or(DropReason::CallerLeft),
        elapsed: since.map_or(Duration::ZERO, |since| now - since),
    });
}

/// For drivers that keep the call anyway, and so watch it without [`watch`](fn@crate::watch), which
/// would keep it once more.
impl Call {
    /// Tells what it means that the call is dropped now, having been kept waiting since `since`.
    pub fn tell_drop(&self, since: Option<Instant>, tell: impl FnOnce(Outcome<'_>)) {
        tell_drop(self.attempt(), self.until(), since, tell);
    }

    /// Hands `observer` the rest of the call, which has come to `response` having been kept waiting
    /// since `since`: every chunk, and its one end.
    #[must_use]
    pub fn observe(
        &self,
        response: LlmResponse,
        since: Option<Instant>,
        observer: impl Observer,
    ) -> LlmResponse {
        let mut context = Context::of(self);
        context.since = since;
        response.observe_in(observer, context)
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("since", &self.since)
            .finish_non_exhaustive()
    }
}
