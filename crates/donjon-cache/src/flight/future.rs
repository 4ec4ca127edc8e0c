//! The future of a call that may be shared.

use std::{
    convert::Infallible,
    fmt, mem,
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
};

use donjon_core::{
    BoxLlmFuture, Call, Chunk, Fold, Head, LlmError, LlmRequest, LlmResponse, ResponseStream,
    shape::ReadyCall,
};
use futures_core::Stream;
use tower_service::Service;

use super::{
    member::{Member, Simply, Timer},
    slot::Found,
};

/// The future of [`Flights::call`](super::Flights::call).
pub struct FlightFuture<S> {
    pub(super) flying: Flying<Plain<S>>,
}

impl<S> Future for FlightFuture<S>
where
    S: Service<LlmRequest, Response = LlmResponse> + Send + 'static,
    S::Error: Into<LlmError>,
    S::Future: Send,
{
    type Output = Result<LlmResponse, LlmError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        self.flying.poll(cx)
    }
}

/// How a call is made, if it is.
pub(crate) trait Calls: Sized {
    fn call(self, request: LlmRequest) -> BoxLlmFuture;
}

/// By calling a service.
pub(crate) struct Plain<S> {
    pub(super) service: S,
}

impl<S> Calls for Plain<S>
where
    S: Service<LlmRequest, Response = LlmResponse> + Send + 'static,
    S::Error: Into<LlmError>,
    S::Future: Send,
{
    fn call(self, request: LlmRequest) -> BoxLlmFuture {
        // Made where it is to lie.
        let place = Box::new_uninit();
        let call = Box::write(place, ReadyCall::new(self.service, request));
        Box::into_pin(call)
    }
}

/// A call that may be shared. All that is large lies elsewhere.
pub(crate) struct Flying<C> {
    state: State<C>,
    streamed: bool,
    timer: Timer,
}

enum State<C> {
    Waits(Member, Option<Box<Again<C>>>),
    /// The answer is wanted whole and comes as a stream.
    Folds(Member, Box<(Head, Fold)>),
    /// Apart from all others.
    Alone(BoxLlmFuture),
    Over,
}

/// What a member asks with if the call fails for a reason of the one who made it.
pub(super) struct Again<C> {
    pub(super) request: LlmRequest,
    pub(super) calls: C,
}

/// What makes a call lies in a box.
impl<S> Unpin for FlightFuture<S> {}

impl<C> Flying<C> {
    pub(super) const fn member(
        member: Member,
        streamed: bool,
        again: Option<Box<Again<C>>>,
    ) -> Self {
        Self {
            state: State::Waits(member, again),
            streamed,
            timer: None,
        }
    }
}

impl<C: Calls> Flying<C> {
    pub(super) fn alone(request: LlmRequest, calls: C) -> Self {
        Self {
            streamed: request.is_stream(),
            state: State::Alone(calls.call(request)),
            timer: None,
        }
    }

    pub(crate) fn poll(
        &mut self,
        cx: &mut task::Context<'_>,
    ) -> Poll<Result<LlmResponse, LlmError>> {
        let result = loop {
            match &mut self.state {
                State::Waits(member, again) => {
                    match member.poll_whole(&mut self.timer, cx) {
                        Simply::Whole(head, completion) => {
                            self.state = State::Over;
                            return Poll::Ready(Ok(LlmResponse::complete(head, completion)));
                        }
                        Simply::Polled(polled) => {
                            if polled.is_ready() {
                                self.state = State::Over;
                            }
                            return polled;
                        }
                        Simply::No => {}
                    }
                    match ready!(member.poll_head(&mut self.timer, cx)) {
                        Ok(Found::All(answer)) => break answer,
                        Ok(Found::Stream(head, choices)) => {
                            let folds = member.flight.is_streamed() && !self.streamed;
                            let State::Waits(member, _) =
                                mem::replace(&mut self.state, State::Over)
                            else {
                                unreachable!("it waited above");
                            };
                            if folds {
                                self.state = State::Folds(member, Box::new((head, Fold::new())));
                                continue;
                            }
                            let stream = Chunks {
                                member: Some(member),
                                timer: None,
                            };
                            let stream = ResponseStream::new(choices, stream);
                            break Ok(LlmResponse::stream(head, stream));
                        }
                        Ok(Found::Again) if !member.is_late() => {
                            let again = again.take();
                            let Again { request, calls } =
                                *again.expect("who is refused alike does not ask again");
                            let (shared, key) = (member.flight.shared.clone(), member.flight.key);
                            shared.asks_again();
                            match shared.enter(key, request, || calls, |_| None::<Infallible>) {
                                Ok(flying) => *self = flying,
                                Err(never) => match never {},
                            }
                        }
                        Ok(Found::Again) => break Err(Call::deadline_error()),
                        Err(error) => break Err(error),
                    }
                }
                State::Folds(member, folded) => {
                    match ready!(member.poll_next(&mut self.timer, cx)) {
                        Ok(Some(chunk)) => folded.1.push(&chunk),
                        Ok(None) => {
                            let fold = mem::take(&mut folded.1);
                            break Ok(LlmResponse::complete(folded.0.clone(), fold.finish()));
                        }
                        Err(error) => break Err(error),
                    }
                }
                State::Alone(call) => break ready!(call.as_mut().poll(cx)),
                State::Over => panic!("polled after completion"),
            }
        };
        // The call ends before those who watch it from outside hear of it.
        self.state = State::Over;
        Poll::Ready(result)
    }
}

impl<S> fmt::Debug for FlightFuture<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (state, key) = match &self.flying.state {
            State::Waits(member, _) => ("waits", Some(member.flight.key)),
            State::Folds(member, _) => ("folds", Some(member.flight.key)),
            State::Alone(_) => ("alone", None),
            State::Over => ("over", None),
        };
        f.debug_struct("FlightFuture")
            .field("key", &key)
            .field("state", &state)
            .finish_non_exhaustive()
    }
}

/// The stream as one member reads it.
struct Chunks {
    /// Gone as soon as it is over.
    member: Option<Member>,
    timer: Timer,
}

impl Stream for Chunks {
    type Item = Result<Chunk, LlmError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(member) = &mut this.member else {
            return Poll::Ready(None);
        };
        let item = match ready!(member.poll_next(&mut this.timer, cx)) {
            // A stream that is always ready has its end all the same.
            Ok(Some(_)) if member.is_late() => Some(Err(Call::deadline_error())),
            Ok(Some(chunk)) => return Poll::Ready(Some(Ok(Arc::unwrap_or_clone(chunk)))),
            Ok(None) => None,
            Err(error) => Some(Err(error)),
        };
        this.member = None;
        Poll::Ready(item)
    }
}
