//! The future of a call that may be shared.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
};

use donjon_core::{
    BoxLlmFuture, Call, Chunk, Delivery, Fold, Head, LlmError, LlmRequest, LlmResponse,
    ResponseStream, shape::ReadyCall,
};
use futures_core::Stream;
use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower_service::Service;

use super::{
    flights::{Joined, Shared},
    member::Member,
    slot::Found,
};
use crate::key::CacheKey;

pin_project! {
    /// The future of [`Flights::call`](super::Flights::call).
    pub struct FlightFuture<S> {
        shared: Arc<Shared>,
        // None for a call that is not to be shared.
        key: Option<CacheKey>,
        streamed: bool,
        // Kept until the answer begins: whoever joined may have to ask again.
        request: Option<LlmRequest>,
        service: Option<S>,
        state: State,
        // Made on the first wait of a call that has a deadline.
        #[pin]
        timer: Option<Sleep>,
    }
}

enum State {
    Begins,
    Waits(Member),
    /// The answer is wanted whole and comes as a stream.
    Folds(Member, Box<(Head, Fold)>),
    /// Apart from all others.
    Alone(BoxLlmFuture),
    Over,
}

impl<S> FlightFuture<S> {
    pub(super) fn new(
        shared: Arc<Shared>,
        key: Option<CacheKey>,
        request: LlmRequest,
        service: S,
    ) -> Self {
        Self {
            shared,
            key,
            streamed: request.is_stream(),
            request: Some(request),
            service: Some(service),
            state: State::Begins,
            timer: None,
        }
    }
}

impl<S> Future for FlightFuture<S>
where
    S: Service<LlmRequest, Response = LlmResponse> + Send + 'static,
    S::Error: Into<LlmError>,
    S::Future: Send,
{
    type Output = Result<LlmResponse, LlmError>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let result = loop {
            match this.state {
                State::Begins => {
                    *this.state = begin(this.shared, *this.key, this.request, this.service);
                }
                State::Waits(member) => match ready!(member.poll_head(this.timer.as_mut(), cx)) {
                    Ok(Found::Whole(head, completion)) => {
                        break Ok(LlmResponse::complete(head, completion));
                    }
                    Ok(Found::Stream(head, choices)) => {
                        let folds = member.is_streamed() && !*this.streamed;
                        let State::Waits(member) = std::mem::replace(this.state, State::Over)
                        else {
                            unreachable!("it waited above");
                        };
                        if folds {
                            *this.state = State::Folds(member, Box::new((head, Fold::new())));
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
                        this.shared.asks_again();
                        *this.state = State::Begins;
                    }
                    Ok(Found::Again) => break Err(Call::deadline_error()),
                    Ok(Found::Failed(error)) | Err(error) => break Err(error),
                },
                State::Folds(member, folded) => {
                    match ready!(member.poll_next(this.timer.as_mut(), cx)) {
                        Ok(Some(chunk)) => folded.1.push(&chunk),
                        Ok(None) => {
                            let fold = std::mem::take(&mut folded.1);
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
        *this.state = State::Over;
        *this.request = None;
        *this.service = None;
        Poll::Ready(result)
    }
}

/// Joins a call that asks the same, or makes one.
fn begin<S>(
    shared: &Arc<Shared>,
    key: Option<CacheKey>,
    request: &mut Option<LlmRequest>,
    service: &mut Option<S>,
) -> State
where
    S: Service<LlmRequest, Response = LlmResponse> + Send + 'static,
    S::Error: Into<LlmError>,
    S::Future: Send,
{
    let mut call = |mut request: LlmRequest, shared: bool| -> BoxLlmFuture {
        // Whoever joins may want to be told the usage.
        if let (true, Delivery::Stream { usage }) = (shared, &mut request.delivery) {
            *usage = true;
        }
        let service = service.take().expect("whoever called asks no more");
        Box::pin(ReadyCall::new(service, request))
    };
    let joined = key.map(|key| shared.join(key, request, |request| call(request, true)));
    match (joined.flatten(), request.take()) {
        (Some(Joined::Member(member)), kept) => {
            *request = kept;
            State::Waits(member)
        }
        (_, Some(request)) => State::Alone(call(request, false)),
        (_, None) => unreachable!("it is kept until the answer begins"),
    }
}

impl<S> fmt::Debug for FlightFuture<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Begins => "begins",
            State::Waits(_) => "waits",
            State::Folds(..) => "folds",
            State::Alone(_) => "alone",
            State::Over => "over",
        };
        f.debug_struct("FlightFuture")
            .field("key", &self.key)
            .field("state", &state)
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// The stream as one member reads it.
    struct Chunks {
        // Gone as soon as it is over.
        member: Option<Member>,
        #[pin]
        timer: Option<Sleep>,
    }
}

impl Stream for Chunks {
    type Item = Result<Chunk, LlmError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Self::Item>> {
        let mut this = self.project();
        let Some(member) = this.member else {
            return Poll::Ready(None);
        };
        let item = match ready!(member.poll_next(this.timer.as_mut(), cx)) {
            // A stream that is always ready has its end all the same.
            Ok(Some(_)) if member.is_late() => Some(Err(Call::deadline_error())),
            Ok(Some(chunk)) => return Poll::Ready(Some(Ok(Arc::unwrap_or_clone(chunk)))),
            Ok(None) => None,
            Err(error) => Some(Err(error)),
        };
        *this.member = None;
        Poll::Ready(item)
    }
}
