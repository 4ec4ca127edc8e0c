//! Holding a stream back until it commits.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    task::{self, Poll, ready},
};

use futures_core::Stream;
use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::{MAX_BYTES, MAX_EVENTS};
use crate::{
    error::{ErrorKind, LlmError},
    ledger::{AttemptRef, Billed},
    observe::{Context, End, Observer, Outcome},
    stream::ResponseStream,
    vocab::{Body, Chunk, FinishReason, Head, LlmResponse, Until, Usage},
};

pin_project! {
    /// The future of [`Commit`](super::Commit).
    pub struct CommitFuture<F> {
        attempt: AttemptRef,
        until: Until,
        // Since when it is kept waiting.
        since: Option<Instant>,
        reasoning: bool,
        #[pin]
        state: State<F>,
    }

    impl<F> PinnedDrop for CommitFuture<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if matches!(*this.state, State::Over) {
                return;
            }
            this.state.set(State::Over);
            Context::dispatched(this.attempt, *this.until, *this.since)
                .tell_drop(|outcome| this.attempt.end(outcome));
        }
    }
}

pin_project! {
    #[project = StateProj]
    #[project_replace = StateTaken]
    enum State<F> {
        Sending {
            #[pin]
            future: F,
        },
        Holding {
            held: Box<Held>,
        },
        Over,
    }
}

/// A response whose stream has shown nothing yet.
struct Held {
    head: Head,
    stream: ResponseStream,
    chunks: VecDeque<Chunk>,
    bytes: usize,
    /// Which of the first 128 choices a filter withheld.
    withheld: u128,
    usage: Option<Usage>,
}

/// What a chunk means for a stream that has shown nothing yet.
enum Step {
    Hold,
    Commit,
    Withheld,
}

impl<F> CommitFuture<F> {
    pub(super) fn new(future: F, attempt: AttemptRef, until: Until, reasoning: bool) -> Self {
        Self {
            attempt,
            until,
            since: None,
            reasoning,
            state: State::Sending { future },
        }
    }
}

impl<F, E> Future for CommitFuture<F>
where
    F: Future<Output = Result<LlmResponse, E>>,
    E: Into<LlmError>,
{
    type Output = Result<LlmResponse, LlmError>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let result = loop {
            match this.state.as_mut().project() {
                StateProj::Sending { future } => {
                    let Poll::Ready(result) = future.poll(cx) else {
                        // A leaf that does not say when it sent has done so by now.
                        this.attempt.stamp_sent_unless_leaf_does();
                        this.since.get_or_insert_with(Instant::now);
                        return Poll::Pending;
                    };
                    match result.map_err(Into::into) {
                        Ok(LlmResponse {
                            head,
                            body: Body::Stream(stream),
                        }) => {
                            this.attempt.stamp_sent();
                            this.attempt.stamp_first_byte();
                            let held = Box::new(Held::new(head, stream));
                            this.state.set(State::Holding { held });
                        }
                        Ok(response) => break whole(response, this.attempt),
                        Err(error) => break Err(error),
                    }
                }
                StateProj::Holding { held } => {
                    let Poll::Ready(step) = held.poll_step(cx, *this.reasoning) else {
                        this.since.get_or_insert_with(Instant::now);
                        return Poll::Pending;
                    };
                    if let Some(usage) = &held.usage {
                        this.attempt.set_usage(usage);
                    }
                    let taken = this.state.as_mut().project_replace(State::Over);
                    break match (step, taken) {
                        (Ok(()), StateTaken::Holding { held }) => {
                            let context =
                                Context::dispatched(this.attempt, *this.until, *this.since);
                            Ok(held.release(this.attempt, context))
                        }
                        (Ok(()), _) => unreachable!("it was holding above"),
                        (Err(error), _) => Err(error),
                    };
                }
                StateProj::Over => panic!("polled after completion"),
            }
        };
        this.state.set(State::Over);
        match &result {
            Ok(response) => this.attempt.succeed(response),
            Err(error) => this.attempt.fail(error),
        }
        Poll::Ready(result)
    }
}

/// A whole answer commits as it is, unless a filter left nothing of it.
fn whole(response: LlmResponse, attempt: &AttemptRef) -> Result<LlmResponse, LlmError> {
    let completion = response.completion();
    if completion
        .and_then(|c| c.as_chat())
        .is_some_and(|chat| chat.is_withheld())
    {
        // What was withheld is billed all the same.
        if let Some(usage) = completion.and_then(|c| c.usage()) {
            attempt.set_usage(usage);
        }
        return Err(withheld(&response.head));
    }
    Ok(response)
}

fn withheld(head: &Head) -> LlmError {
    let error = LlmError::new(
        ErrorKind::ContentPolicy,
        "the provider's filter withheld the answer",
    );
    match &head.provider {
        Some(provider) => error.with_provider(*provider),
        None => error,
    }
}

impl Held {
    fn new(head: Head, stream: ResponseStream) -> Self {
        Self {
            head,
            stream,
            chunks: VecDeque::with_capacity(4),
            bytes: 0,
            withheld: 0,
            usage: None,
        }
    }

    /// Reads on until the stream commits or fails.
    fn poll_step(
        &mut self,
        cx: &mut task::Context<'_>,
        reasoning: bool,
    ) -> Poll<Result<(), LlmError>> {
        loop {
            let chunk = match ready!(Pin::new(&mut self.stream).poll_next(cx)) {
                Some(Ok(chunk)) => chunk,
                Some(Err(error)) => return Poll::Ready(Err(error)),
                // A stream that ends without a finish reason yields an error first, so this one
                // was complete with nothing but a withheld answer in it.
                None => return Poll::Ready(Err(withheld(&self.head))),
            };
            if chunk.is_ping() {
                continue;
            }
            self.usage = chunk.usage.or(self.usage);
            let step = self.weigh(&chunk, reasoning);
            self.bytes += chunk.bytes();
            self.chunks.push_back(chunk);
            match step {
                Step::Commit => return Poll::Ready(Ok(())),
                Step::Withheld => return Poll::Ready(Err(withheld(&self.head))),
                Step::Hold => {}
            }
        }
    }

    fn weigh(&mut self, chunk: &Chunk, reasoning: bool) -> Step {
        if chunk.shows(reasoning)
            || self.chunks.len() + 1 >= MAX_EVENTS
            || self.bytes + chunk.bytes() >= MAX_BYTES
        {
            return Step::Commit;
        }
        for choice in &chunk.choices {
            match &choice.finish_reason {
                None => {}
                Some(FinishReason::ContentFilter) => {
                    self.withheld |= 1_u128.checked_shl(choice.index).unwrap_or(0);
                }
                Some(_) => return Step::Commit,
            }
        }
        if self.withheld.count_ones() >= self.stream.choices() {
            return Step::Withheld;
        }
        Step::Hold
    }

    fn release(self, attempt: &AttemptRef, context: Context) -> LlmResponse {
        let Self {
            mut head,
            stream,
            chunks,
            ..
        } = self;
        if let Some(model) = chunks.iter().find_map(|chunk| chunk.model.clone())
            && !model.is_empty()
        {
            head.model = model;
        }
        if head.id.is_none() {
            head.id = chunks.iter().find_map(|chunk| chunk.id.clone());
        }
        let mut stream = stream.wrap(|rest| Replay { chunks, rest });
        stream.attach(Box::new(Stamp(attempt.clone())), context);
        LlmResponse::stream(head, stream)
    }
}

/// What was held back, then the rest without its pings.
struct Replay {
    chunks: VecDeque<Chunk>,
    rest: ResponseStream,
}

impl Stream for Replay {
    type Item = Result<Chunk, LlmError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(chunk) = self.chunks.pop_front() {
            return Poll::Ready(Some(Ok(chunk)));
        }
        loop {
            match ready!(Pin::new(&mut self.rest).poll_next(cx)) {
                Some(Ok(chunk)) if chunk.is_ping() => {}
                item => return Poll::Ready(item),
            }
        }
    }
}

/// Tells the ledger how a stream ended.
struct Stamp(AttemptRef);

impl Observer for Stamp {
    fn end(&mut self, end: &End<'_>) {
        if let Some(usage) = end.usage {
            self.0.set_usage(usage);
        }
        self.0.end(end.outcome);
    }
}

impl AttemptRef {
    /// Stamps the commit point, and for a whole answer its usage and end.
    fn succeed(&self, response: &LlmResponse) {
        self.stamp_committed();
        self.set_billed(Billed::Yes);
        if let Some(completion) = response.completion() {
            if let Some(usage) = completion.usage() {
                self.set_usage(usage);
            }
            self.stamp_ended_as_committed();
        }
    }

    /// Records what an attempt failed with before its commit point. One that was refused on our
    /// side was not sent; any other was, unless its leaf says so itself and did not.
    pub fn fail(&self, error: &LlmError) {
        if error.kind().is_unsent() {
            self.set_billed(Billed::No);
        } else {
            self.stamp_sent_unless_leaf_does();
        }
        self.set_error(error);
        self.stamp_ended();
    }

    fn end(&self, outcome: Outcome<'_>) {
        match outcome {
            Outcome::Success => {}
            Outcome::Failure(error) => self.set_error(error),
            Outcome::Cancelled { why, .. } => self.set_dropped(why),
        }
        self.stamp_ended();
    }
}

impl<F> fmt::Debug for CommitFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommitFuture")
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}
