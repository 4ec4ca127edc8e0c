//! The clocks until the commit point, and beyond it for an answer that is folded.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
    time::Duration,
};

use donjon_core::{
    Body, Call, ErrorKind, Fold, Head, LlmError, LlmResponse, ResponseStream, TimeoutClock,
};
use futures_core::Stream;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{config::Limits, idle::Idle, layer::Shared};

pin_project! {
    /// The future of [`Timeout`](crate::Timeout).
    pub struct TimeoutFuture<F> {
        #[pin]
        stage: Stage<F>,
        // Armed when the call is first kept waiting: one that is answered at once needs no timer.
        #[pin]
        timer: Option<Sleep>,
        shared: Arc<Shared>,
        call: Call,
        limits: Limits,
        streamed: bool,
        fold: bool,
    }
}

pin_project! {
    #[project = StageProj]
    #[project_replace = StageTaken]
    enum Stage<F> {
        Waiting {
            #[pin]
            future: F,
        },
        Folding {
            head: Box<Head>,
            stream: ResponseStream,
            fold: Box<Fold>,
        },
        Over,
    }
}

impl<F> TimeoutFuture<F> {
    pub(crate) const fn new(
        future: F,
        shared: Arc<Shared>,
        call: Call,
        limits: Limits,
        streamed: bool,
        fold: bool,
    ) -> Self {
        Self {
            stage: Stage::Waiting { future },
            timer: None,
            shared,
            call,
            limits,
            streamed,
            fold,
        }
    }
}

impl<F, E> Future for TimeoutFuture<F>
where
    F: Future<Output = Result<LlmResponse, E>>,
    E: Into<LlmError>,
{
    type Output = Result<LlmResponse, LlmError>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.stage.as_mut().project() {
                StageProj::Waiting { future } => match future.poll(cx) {
                    Poll::Ready(result) => {
                        this.stage.set(Stage::Over);
                        let response = result.map_err(Into::into)?;
                        let response = guard(response, this.shared, this.limits.idle, this.call);
                        match response {
                            LlmResponse {
                                head,
                                body: Body::Stream(stream),
                                ..
                            } if *this.fold => this.stage.set(Stage::Folding {
                                head: Box::new(head),
                                stream,
                                fold: Box::default(),
                            }),
                            response => return Poll::Ready(Ok(response)),
                        }
                    }
                    Poll::Pending => {
                        let (limit, clock) = if *this.streamed {
                            (this.limits.first_token, TimeoutClock::FirstToken)
                        } else {
                            (this.limits.response, TimeoutClock::Response)
                        };
                        if this.timer.is_none() {
                            let end = limit.map(|limit| Instant::now() + limit);
                            let Some(at) = earliest(end, this.call.deadline()) else {
                                return Poll::Pending;
                            };
                            this.timer.set(Some(sleep_until(at)));
                        }
                        if let Some(timer) = this.timer.as_mut().as_pin_mut() {
                            ready!(timer.poll(cx));
                        }
                        let error = ran_out(this.shared, this.call, clock, limit);
                        this.stage.set(Stage::Over);
                        return Poll::Ready(Err(error));
                    }
                },
                StageProj::Folding { stream, fold, .. } => {
                    match ready!(Pin::new(stream).poll_next(cx)) {
                        Some(Ok(chunk)) => fold.push(&chunk),
                        Some(Err(error)) => {
                            this.stage.set(Stage::Over);
                            return Poll::Ready(Err(error));
                        }
                        None => {
                            let taken = this.stage.as_mut().project_replace(Stage::Over);
                            let StageTaken::Folding { head, fold, .. } = taken else {
                                unreachable!("it was folding above");
                            };
                            return Poll::Ready(Ok(LlmResponse::complete(*head, fold.finish())));
                        }
                    }
                }
                StageProj::Over => panic!("polled after completion"),
            }
        }
    }
}

/// Puts the clocks of streams around a stream.
fn guard(
    response: LlmResponse,
    shared: &Arc<Shared>,
    idle: Option<Duration>,
    call: &Call,
) -> LlmResponse {
    if idle.is_none() && call.deadline().is_none() {
        return response;
    }
    response.map_stream(|stream| {
        stream.wrap(|inner| Idle::new(inner, idle, call.clone(), shared.clone()))
    })
}

pub(crate) fn earliest(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// The error of a clock that ran out: the deadline of the call if that has passed, else `clock`. It
/// is told to the attempt first, so that whoever watches further in hears a failure.
pub(crate) fn ran_out(
    shared: &Shared,
    call: &Call,
    clock: TimeoutClock,
    limit: Option<Duration>,
) -> LlmError {
    let late = call.deadline().is_some_and(|at| at <= Instant::now());
    let error = match limit {
        Some(limit) if !late => {
            let what = match clock {
                TimeoutClock::FirstToken => "no first token",
                TimeoutClock::Idle => "nothing more",
                _ => "no answer",
            };
            LlmError::new(
                ErrorKind::Timeout(clock),
                format!("{what} within {limit:?}"),
            )
        }
        _ => Call::deadline_error(),
    };
    if let ErrorKind::Timeout(clock) = error.kind() {
        shared.counts.add(clock);
    }
    if let Some(attempt) = call.attempt() {
        attempt.set_error(&error);
    }
    error
}

impl<F> fmt::Debug for TimeoutFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeoutFuture")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
