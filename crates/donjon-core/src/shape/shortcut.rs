//! Answers by itself where it can.

use std::{
    fmt,
    pin::Pin,
    task::{self, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_service::Service;

use super::driver::ReadyCall;
use crate::{
    error::LlmError,
    observe::{Context, Observer},
    vocab::{LlmRequest, LlmResponse},
    watch::Watch,
};

/// Finds answers without asking the service below.
pub trait Shortcut {
    /// Watches a call that was not answered here, to learn from its answer.
    type Learn: Observer;
    /// Looks an answer up. Its error is what the call is answered with.
    type Find: Future<Output = Result<Lookup<Self::Learn>, LlmError>>;

    /// Looks for an answer to `request`.
    fn find(&self, request: &mut LlmRequest) -> Self::Find;
}

/// What a lookup found.
#[derive(Debug)]
#[non_exhaustive]
pub enum Lookup<L> {
    /// The answer.
    Hit(LlmResponse),
    /// No answer: the service below is asked, and its call watched.
    Miss(L),
}

/// A service behind a [`Shortcut`]. It is always ready, and readies a clone of the service below
/// only for a call that it cannot answer itself.
#[derive(Clone, Debug)]
pub struct ShortcutService<S, F> {
    inner: S,
    shortcut: F,
}

impl<S, F> ShortcutService<S, F> {
    /// Puts `shortcut` before `inner`.
    pub const fn new(inner: S, shortcut: F) -> Self {
        Self { inner, shortcut }
    }
}

impl<S, F> Service<LlmRequest> for ShortcutService<S, F>
where
    S: Service<LlmRequest, Response = LlmResponse> + Clone,
    S::Error: Into<LlmError>,
    F: Shortcut,
{
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = ShortcutFuture<S, F::Find, F::Learn>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), LlmError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: LlmRequest) -> Self::Future {
        request.call.begin();
        ShortcutFuture {
            state: State::Finding {
                find: self.shortcut.find(&mut request),
                next: Some((self.inner.clone(), request)),
            },
        }
    }
}

pin_project! {
    /// The future of a [`ShortcutService`].
    pub struct ShortcutFuture<S, F, L>
    where
        S: Service<LlmRequest>,
        L: Observer,
    {
        #[pin]
        state: State<S, F, L>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, F, L>
    where
        S: Service<LlmRequest>,
        L: Observer,
    {
        Finding {
            #[pin]
            find: F,
            next: Option<(S, LlmRequest)>,
        },
        Missed {
            #[pin]
            watch: Watch<ReadyCall<S>, L>,
        },
    }
}

impl<S, F, L> Future for ShortcutFuture<S, F, L>
where
    S: Service<LlmRequest, Response = LlmResponse>,
    S::Error: Into<LlmError>,
    F: Future<Output = Result<Lookup<L>, LlmError>>,
    L: Observer,
{
    type Output = Result<LlmResponse, LlmError>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Missed { watch } => return watch.poll(cx),
                StateProj::Finding { find, next } => match ready!(find.poll(cx))? {
                    Lookup::Hit(response) => return Poll::Ready(Ok(response)),
                    Lookup::Miss(learn) => {
                        let Some((service, request)) = next.take() else {
                            panic!("polled after completion");
                        };
                        let context = Context::of(&request.call);
                        let call = ReadyCall::new(service, request);
                        this.state.set(State::Missed {
                            watch: Watch::in_context(context, call, learn),
                        });
                    }
                },
            }
        }
    }
}

impl<S: Service<LlmRequest>, F, L: Observer> fmt::Debug for ShortcutFuture<S, F, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.state {
            State::Finding { .. } => "ShortcutFuture::Finding",
            State::Missed { .. } => "ShortcutFuture::Missed",
        })
    }
}
