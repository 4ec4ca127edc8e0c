//! The stream that a caller polls, whichever target speaks.

use std::{
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
    time::Duration,
};

use donjon_core::{
    Body, Chunk, ErrorKind, LlmError, LlmRequest, LlmResponse, ResponseStream, TimeoutClock,
};
use futures_core::Stream;
use tokio::time::{Instant, Sleep, sleep_until};
use tower_service::Service;

use super::{bill::Bill, shown::Shown, splice::Splice};
use crate::{course::Course, future::FailoverFuture, service::Set};

/// Makes a stream one that is gone on with when it breaks. What that needs of a service is known only where
/// it is switched on.
pub(crate) type Hook<S> = fn(Arc<Set<S>>, Course, ResponseStream) -> ResponseStream;

/// The [`Hook`] of a service that can be asked from within a stream.
pub(crate) fn resumable<S>(
    set: Arc<Set<S>>,
    course: Course,
    stream: ResponseStream,
) -> ResponseStream
where
    S: Service<LlmRequest, Response = LlmResponse> + Clone + Send + Sync + 'static,
    S::Error: Into<LlmError>,
    S::Future: Send,
{
    stream.wrap(|stream| Resumable {
        set,
        state: State::Reading {
            course,
            stream,
            splice: None,
        },
        shown: Shown::default(),
        bill: Bill::default(),
        limit: None,
        early: None,
        last: None,
    })
}

/// A stream that is gone on with when it breaks.
struct Resumable<S: Service<LlmRequest>> {
    set: Arc<Set<S>>,
    state: State<S>,
    shown: Shown,
    bill: Bill,
    /// While nothing new has come from the target that is asked: until when it may take.
    limit: Option<Pin<Box<Sleep>>>,
    /// The usage that the first target told last before it had finished: it is told once there is no doubt
    /// that no other target goes on, which would tell more.
    early: Option<Chunk>,
    /// What is said after the last chunk of the last target.
    last: Option<Result<Chunk, LlmError>>,
}

#[expect(
    clippy::large_enum_variant,
    reason = "nearly always it is the large one, and in the box of a stream"
)]
enum State<S: Service<LlmRequest>> {
    /// A target speaks.
    Reading {
        course: Course,
        stream: ResponseStream,
        /// `None` of the first.
        splice: Option<Splice>,
    },
    /// A target is asked to go on.
    Asking { future: Pin<Box<FailoverFuture<S>>> },
    /// Nothing more comes.
    Over,
}

type Item = Result<Chunk, LlmError>;

impl<S> Stream for Resumable<S>
where
    S: Service<LlmRequest, Response = LlmResponse> + Clone,
    S::Error: Into<LlmError>,
{
    type Item = Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Item>> {
        let this = &mut *self;
        loop {
            match &mut this.state {
                State::Reading {
                    stream,
                    splice: None,
                    ..
                } => {
                    // Looked at where it lies: a chunk is large, and moved as seldom as can be.
                    let item = Pin::new(stream).poll_next(cx);
                    if let Poll::Ready(Some(Ok(chunk))) = &item {
                        this.bill.note(chunk);
                        if chunk.usage.is_none() || !this.is_early(chunk) {
                            this.shown.note(chunk);
                            return item;
                        }
                    }
                    match ready!(item) {
                        Some(Ok(early)) => this.early = Some(early),
                        Some(Err(error)) => this.broke(error),
                        None => {
                            this.last = this.early.take().map(Ok);
                            this.state = State::Over;
                        }
                    }
                }
                State::Reading {
                    stream,
                    splice: Some(splice),
                    ..
                } => match Pin::new(stream).poll_next(cx) {
                    Poll::Ready(Some(Ok(chunk))) => {
                        this.bill.note(&chunk);
                        match splice.take(chunk, &this.shown, &this.bill) {
                            Ok(Some(chunk)) => return Poll::Ready(Some(Ok(this.show(chunk)))),
                            Ok(None) => {}
                            Err(_) => this.leave("it answers otherwise than was shown"),
                        }
                    }
                    // Nothing new was shown by it: it failed as one does that has not begun.
                    Poll::Ready(Some(Err(error))) if this.limit.is_some() => this.failed(error),
                    Poll::Ready(Some(Err(error))) => this.broke(error),
                    Poll::Ready(None) => this.finish(),
                    Poll::Pending => {
                        ready!(this.poll_limit(cx));
                        this.leave("it has shown nothing new in its time");
                    }
                },
                State::Asking { future } => match future.as_mut().poll(cx) {
                    Poll::Ready(Ok(response)) => this.answered(response),
                    Poll::Ready(Err(error)) => this.fail(error),
                    Poll::Pending => {
                        ready!(this.poll_limit(cx));
                        this.give_up();
                    }
                },
                State::Over => return Poll::Ready(this.last_items()),
            }
        }
    }
}

impl<S> Resumable<S>
where
    S: Service<LlmRequest, Response = LlmResponse> + Clone,
    S::Error: Into<LlmError>,
{
    /// Something of another target is shown, which belongs to the one answer from here on.
    fn show(&mut self, chunk: Chunk) -> Chunk {
        self.shown.note(&chunk);
        if self.limit.is_some()
            && (chunk.shows(true) || chunk.finishes())
            && let State::Reading { course, .. } = &mut self.state
        {
            self.limit = None;
            course.resumed(&self.set.field);
        }
        chunk
    }

    /// Whether a chunk that tells the usage tells nothing else, of an answer that has not finished.
    #[cold]
    fn is_early(&mut self, chunk: &Chunk) -> bool {
        self.early = None;
        let finished = match &self.state {
            State::Reading { stream, .. } => stream.is_complete(),
            _ => true,
        };
        !finished && chunk.choices.is_empty() && !chunk.shows(true)
    }

    /// The stream that is shown has broken.
    #[cold]
    fn broke(&mut self, error: LlmError) {
        let State::Reading { mut course, .. } = self.take_state() else {
            return;
        };
        let prompt = course.prompt_tokens();
        let used = self.bill.output();
        self.bill.close(prompt);
        match course.broke(&self.set.field, error, &self.shown, used) {
            Ok(()) => self.ask(course),
            Err(error) => self.fail(error),
        }
    }

    /// The stream of a target has broken that has shown nothing new.
    #[cold]
    fn failed(&mut self, error: LlmError) {
        let State::Reading { mut course, .. } = self.take_state() else {
            return;
        };
        self.bill.close(course.prompt_tokens());
        match course.fail(&self.set.field, error) {
            Ok(()) => self.ask(course),
            Err(error) => self.fail(error),
        }
    }

    /// The target that is read is left, since what it says is of no use.
    #[cold]
    fn leave(&mut self, why: &'static str) {
        let State::Reading {
            mut course, stream, ..
        } = self.take_state()
        else {
            return;
        };
        self.bill.close(course.prompt_tokens());
        course.supersede(stream);
        let error = LlmError::new(ErrorKind::InvalidResponse, why);
        match course.pass_over(&self.set.field, error) {
            Ok(()) => self.ask(course),
            Err(error) => self.fail(error),
        }
    }

    /// Asks the target that was chosen.
    fn ask(&mut self, course: Course) {
        let resume = self.set.field.shared.config.resume.as_ref();
        let within = resume.map_or(Duration::MAX, |resume| resume.within);
        // That of a call which several share may move on; it is looked at when the time is up.
        let call = course.call();
        let deadline = call.deadline().filter(|_| !call.is_shared());
        let until = Instant::now().checked_add(within);
        let until = match (until, deadline) {
            (Some(until), Some(deadline)) => until.min(deadline),
            (until, deadline) => until.or(deadline).unwrap_or_else(Instant::now),
        };
        match &mut self.limit {
            Some(limit) => limit.as_mut().reset(until),
            none => *none = Some(Box::pin(sleep_until(until))),
        }
        let future = FailoverFuture::chosen(self.set.clone(), course);
        self.state = State::Asking {
            future: Box::pin(future),
        };
    }

    fn poll_limit(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        match &mut self.limit {
            Some(limit) => limit.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }

    /// The target that was asked takes too long.
    #[cold]
    fn give_up(&mut self) {
        let State::Asking { mut future } = self.take_state() else {
            return;
        };
        let error = LlmError::new(
            ErrorKind::Timeout(TimeoutClock::FirstToken),
            "it did not go on in its time",
        );
        let step = future.as_mut().give_up(error);
        let course = future.as_mut().take_course();
        match step {
            Ok(()) => self.ask(course),
            Err(error) => self.fail(error),
        }
    }

    /// A target goes on, or answers anew.
    #[cold]
    fn answered(&mut self, response: LlmResponse) {
        let State::Asking { mut future } = self.take_state() else {
            return;
        };
        let mut course = future.as_mut().take_course();
        drop(future);
        match response.body {
            Body::Stream(stream) => {
                let splice = Some(course.splice(&self.set.field, &self.shown));
                self.state = State::Reading {
                    course,
                    stream,
                    splice,
                };
            }
            Body::Complete(_) => {
                let error = LlmError::new(ErrorKind::InvalidResponse, "it does not stream");
                match course.pass_over(&self.set.field, error) {
                    Ok(()) => self.ask(course),
                    Err(error) => self.fail(error),
                }
            }
        }
    }

    /// The last target has said all.
    #[cold]
    fn finish(&mut self) {
        let State::Reading { course, splice, .. } = self.take_state() else {
            return;
        };
        if splice.is_none_or(|splice| !splice.told_usage()) {
            let usage = self.bill.total(course.prompt_tokens());
            self.last = Some(Ok(self.usage(usage)));
        }
    }

    /// Nobody goes on.
    #[cold]
    fn fail(&mut self, error: LlmError) {
        self.state = State::Over;
        self.last = Some(Err(error));
    }

    /// What comes last.
    #[cold]
    fn last_items(&mut self) -> Option<Item> {
        // What it has used is told before the error, which ends all.
        if let Some(Err(_)) = &self.last {
            let early = self.early.take();
            if self.bill.is_owed() {
                let usage = self.bill.settle();
                return Some(Ok(self.usage(usage)));
            }
            if early.is_some() {
                return early.map(Ok);
            }
        }
        self.last.take()
    }

    /// A chunk that tells the usage of all.
    fn usage(&self, usage: donjon_core::Usage) -> Chunk {
        let mut chunk = Chunk::usage(usage);
        self.shown.join(chunk.edit());
        chunk
    }

    fn take_state(&mut self) -> State<S> {
        std::mem::replace(&mut self.state, State::Over)
    }
}
