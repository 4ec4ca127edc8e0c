//! The future of a call.

use std::{
    fmt, mem,
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
};

use donjon_core::{Call, LlmError, LlmRequest, LlmResponse, shape::ReadyCall};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_service::Service;

use crate::{
    course::{Course, Step},
    resume::Hook,
    service::Set,
    verdict::Tally,
};

pin_project! {
    /// The future of a [`Failover`](crate::Failover).
    ///
    /// It goes round: a target is chosen, readied and called; it fails, and the next is chosen.
    pub struct FailoverFuture<S>
    where
        S: Service<LlmRequest>,
    {
        set: Arc<Set<S>>,
        course: Course,
        // Since when the target keeps it waiting.
        since: Option<Instant>,
        #[pin]
        state: State<S>,
    }

    impl<S> PinnedDrop for FailoverFuture<S>
    where
        S: Service<LlmRequest>,
    {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let field = &this.set.field;
            if matches!(*this.state, State::Readying { .. } | State::Called { .. }) {
                // Those further in hear it, too.
                inherit_drop(this.course.call());
                // The target is let go of, and those further in hear the end, first.
                this.state.set(State::Resting);
                let hold = this.course.release(field);
                let target = this.course.target(field);
                let streamed = this.course.is_streamed();
                this.course.call().tell_drop(*this.since, |outcome| {
                    target.figures.end(outcome);
                    field.shared.dropped(target, hold, outcome, streamed);
                });
            }
            // Whatever panicked.
            this.course.release(field);
        }
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S>
    where
        S: Service<LlmRequest>,
    {
        // It was not polled yet.
        SettingOut,
        // A target was chosen for it before.
        Chosen,
        // The target was not ready at once.
        Readying {
            #[pin]
            target: ReadyCall<S>,
        },
        // The target has the call.
        Called {
            #[pin]
            future: S::Future,
        },
        // It could not be readied.
        Unready { error: Option<LlmError> },
        // It is over, or about to go on.
        Resting,
    }
}

impl<S> FailoverFuture<S>
where
    S: Service<LlmRequest>,
{
    #[inline]
    pub(crate) fn new(set: Arc<Set<S>>, request: LlmRequest) -> Self {
        Self {
            course: Course::new(request),
            since: None,
            state: State::SettingOut,
            set,
        }
    }
}

impl<S> FailoverFuture<S>
where
    S: Service<LlmRequest, Response = LlmResponse> + Clone,
    S::Error: Into<LlmError>,
{
    /// Readies a clone of the target that was chosen, and calls it.
    #[inline]
    fn ask(self: Pin<&mut Self>, cx: &mut task::Context<'_>) {
        let mut this = self.project();
        let field = &this.set.field;
        let mut service = this.set.services[this.course.place()].clone();
        let ready = service.poll_ready(cx);
        let Some(request) = this.course.request(field) else {
            unreachable!("a target is chosen only while there is a request for it");
        };
        match ready {
            Poll::Ready(Ok(())) => {
                let future = service.call(request);
                // Once there is something whose end will be heard, whatever panics.
                this.course.target(field).figures.begin();
                this.state.set(State::Called { future });
            }
            Poll::Pending => {
                let target = ReadyCall::new(service, request);
                this.course.target(field).figures.begin();
                this.state.set(State::Readying { target });
            }
            Poll::Ready(Err(error)) => {
                if let Some(attempt) = request.call.attempt() {
                    attempt.set_unsent();
                }
                let error = Some(error.into());
                this.course.target(field).figures.begin();
                this.state.set(State::Unready { error });
            }
        }
    }

    /// The target that was asked has answered. It is let go of, with what it holds, before anybody
    /// hears of the end.
    #[inline]
    fn answered(self: Pin<&mut Self>, mut response: LlmResponse) -> LlmResponse {
        let mut this = self.project();
        this.state.set(State::Resting);
        let field = &this.set.field;
        this.course.answer(field, &mut response.head);
        let target = this.course.target(field);
        let streamed = response.is_stream();
        if streamed {
            let hold = this.course.take_hold();
            let mut tally = Tally::new(field.shared.clone(), target.clone(), hold);
            tally.committed(this.course.call());
            if hold.trial {
                target.gate.end_trial(hold.spell);
            }
            let response = this.course.call().observe(response, *this.since, tally);
            return match this.set.resume {
                Some(resume) if !this.course.is_resuming() => {
                    let course = mem::replace(this.course, Course::elsewhere());
                    go_on_with(response, this.set, course, resume)
                }
                _ => response,
            };
        }
        let hold = this.course.release(field);
        target.figures.succeed();
        field
            .shared
            .committed(target, hold, this.course.call(), false);
        response
    }

    /// The target that was asked has failed, and another is chosen if one may be asked.
    fn failed(self: Pin<&mut Self>, error: LlmError) -> Step {
        let mut this = self.project();
        this.state.set(State::Resting);
        let field = &this.set.field;
        let hold = this.course.release(field);
        let target = this.course.target(field);
        target.figures.fail(&error);
        field.shared.failed(target, hold, &error);
        *this.since = None;
        this.course.fail(field, error)
    }
}

/// From within a stream that broke, and is gone on with.
impl<S> FailoverFuture<S>
where
    S: Service<LlmRequest, Response = LlmResponse> + Clone,
    S::Error: Into<LlmError>,
{
    /// Asks whom `course` has chosen.
    pub(crate) const fn chosen(set: Arc<Set<S>>, course: Course) -> Self {
        Self {
            course,
            since: None,
            state: State::Chosen,
            set,
        }
    }

    /// Lets go of the target that is asked, which has failed with `error` for whoever watches it, and says
    /// what comes next.
    #[cold]
    pub(crate) fn give_up(mut self: Pin<&mut Self>, error: LlmError) -> Step {
        let this = self.as_mut().project();
        let mut state = this.state;
        match this.course.call().attempt() {
            Some(attempt) => attempt.let_go(&error, || state.set(State::Resting)),
            None => state.set(State::Resting),
        }
        self.failed(error)
    }

    /// Takes the way of the call out of it, once it is over.
    pub(crate) fn take_course(self: Pin<&mut Self>) -> Course {
        mem::replace(self.project().course, Course::elsewhere())
    }
}

/// Goes on with the stream of an answer if that breaks. Of several choices each would be another stream.
fn go_on_with<S>(
    response: LlmResponse,
    set: &Arc<Set<S>>,
    course: Course,
    resume: Hook<S>,
) -> LlmResponse {
    response.map_stream(|stream| match stream.choices() {
        1 => resume(set.clone(), course, stream),
        _ => stream,
    })
}

impl<S> Future for FailoverFuture<S>
where
    S: Service<LlmRequest, Response = LlmResponse> + Clone,
    S::Error: Into<LlmError>,
{
    type Output = Result<LlmResponse, LlmError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        loop {
            let mut this = self.as_mut().project();
            let error = match this.state.as_mut().project() {
                StateProj::Called { future } => match future.poll(cx) {
                    Poll::Ready(Ok(response)) => return Poll::Ready(Ok(self.answered(response))),
                    Poll::Ready(Err(error)) => error.into(),
                    Poll::Pending => return self.waits(),
                },
                StateProj::SettingOut => {
                    let step = this.course.begin(&this.set.field);
                    if let Err(error) = step {
                        this.state.set(State::Resting);
                        return Poll::Ready(Err(error));
                    }
                    self.as_mut().ask(cx);
                    continue;
                }
                StateProj::Chosen => {
                    self.as_mut().ask(cx);
                    continue;
                }
                StateProj::Readying { target } => match target.poll(cx) {
                    Poll::Ready(Ok(response)) => return Poll::Ready(Ok(self.answered(response))),
                    Poll::Ready(Err(error)) => error,
                    Poll::Pending => return self.waits(),
                },
                StateProj::Unready { error } => error.take().expect(OVER),
                StateProj::Resting => panic!("{OVER}"),
            };
            if let Err(error) = self.as_mut().failed(error) {
                return Poll::Ready(Err(error));
            }
            self.as_mut().ask(cx);
        }
    }
}

/// Why the attempt is dropped that a driver around this one opened, and ours follows from, is why ours is.
#[cold]
fn inherit_drop(call: &Call) {
    let Some(attempt) = call.attempt() else {
        return;
    };
    let all: Vec<_> = attempt.ledger().attempts().collect();
    let parent = |index: u32| all.get(index as usize)?.parent;
    let above = std::iter::successors(parent(attempt.index()), |index| parent(*index));
    let mut said = above.filter_map(|index| all.get(index as usize)?.dropped);
    if let Some(why) = said.next() {
        attempt.set_dropped(why);
    }
}

const OVER: &str = "polled after completion";

impl<S: Service<LlmRequest>> FailoverFuture<S> {
    fn waits<T>(self: Pin<&mut Self>) -> Poll<T> {
        self.project().since.get_or_insert_with(Instant::now);
        Poll::Pending
    }
}

impl<S: Service<LlmRequest>> fmt::Debug for FailoverFuture<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asking = matches!(self.state, State::Readying { .. } | State::Called { .. });
        f.debug_struct("FailoverFuture")
            .field("asking", &asking)
            .finish_non_exhaustive()
    }
}
