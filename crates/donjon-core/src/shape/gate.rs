//! Admits, makes wait, or rejects.

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

/// Who may pass, who waits, who may not.
pub trait Admit {
    /// What is held for an admitted call until its end.
    type Permit: Observer;
    /// Waits for the turn of a call. Dropping it gives the place in the queue up. Its error is what
    /// the call is answered with.
    type Wait: Future<Output = Result<Self::Permit, LlmError>>;

    /// Decides on `request`. It must say yes only if nobody is queued before it.
    fn admit(&self, request: &mut LlmRequest) -> Admission<Self::Permit, Self::Wait>;
}

/// Without anybody who decides, every call passes.
impl<A: Admit> Admit for Option<A> {
    type Permit = A::Permit;
    type Wait = A::Wait;

    #[inline]
    fn admit(&self, request: &mut LlmRequest) -> Admission<A::Permit, A::Wait> {
        match self {
            Some(admit) => admit.admit(request),
            None => Admission::Free,
        }
    }
}

/// The decision on a call.
#[derive(Debug)]
#[non_exhaustive]
pub enum Admission<P, W> {
    /// It passes now.
    Yes(P),
    /// It passes now, nothing is held for it, and it is not watched.
    Free,
    /// It waits for its turn.
    Wait(W),
    /// It is rejected.
    No(LlmError),
}

/// A service behind an [`Admit`].
///
/// On yes it calls the readied service there and then: no clone, no box, no allocation. On wait it
/// leaves the readied service free for others and readies a clone once admitted, so that it never
/// sits on a reservation of the service below.
#[derive(Debug)]
pub struct Gate<S, A> {
    inner: S,
    admit: A,
}

impl<S, A> Gate<S, A> {
    /// Puts `admit` before `inner`.
    pub const fn new(inner: S, admit: A) -> Self {
        Self { inner, admit }
    }
}

impl<S: Clone, A> Gate<S, A> {
    /// Drops the readied service, and its reservation with it. A clone that is not readied takes its
    /// place, which tower's contract asks to be readied before the next call.
    fn let_go(&mut self) {
        let spare = self.inner.clone();
        drop(std::mem::replace(&mut self.inner, spare));
    }
}

/// A clone is not readied: that of the inner service is not either.
impl<S: Clone, A: Clone> Clone for Gate<S, A> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            admit: self.admit.clone(),
        }
    }
}

impl<S, A> Service<LlmRequest> for Gate<S, A>
where
    S: Service<LlmRequest, Response = LlmResponse> + Clone,
    S::Error: Into<LlmError>,
    A: Admit,
{
    type Response = LlmResponse;
    type Error = LlmError;
    type Future = GateFuture<S, A::Permit, A::Wait>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), LlmError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    // Each arm makes the future where it is to be: it is large, and to move it costs more than to
    // decide.
    #[inline]
    fn call(&mut self, mut request: LlmRequest) -> Self::Future {
        request.call.begin();
        match self.admit.admit(&mut request) {
            Admission::Free => GateFuture {
                state: State::Passed {
                    future: self.inner.call(request),
                },
            },
            Admission::Yes(permit) => {
                let context = Context::of(&request.call);
                GateFuture {
                    state: State::Admitted {
                        watch: Watch::in_context(context, self.inner.call(request), permit),
                    },
                }
            }
            Admission::Wait(wait) => {
                self.let_go();
                GateFuture::queued(wait, self.inner.clone(), request)
            }
            Admission::No(error) => {
                self.let_go();
                GateFuture::rejected(error)
            }
        }
    }
}

impl<S: Service<LlmRequest>, P: Observer, W> GateFuture<S, P, W> {
    #[cold]
    fn queued(wait: W, service: S, request: LlmRequest) -> Self {
        let queued = Queued {
            state: Turn::Waiting {
                wait,
                next: Some((service, request)),
            },
        };
        Self {
            state: State::Queued {
                queued: Box::pin(queued),
            },
        }
    }

    #[cold]
    fn rejected(error: LlmError) -> Self {
        Self {
            state: State::Rejected { error: Some(error) },
        }
    }
}

const OVER: &str = "polled after completion";

pin_project! {
    /// The future of a [`Gate`].
    pub struct GateFuture<S, P, W>
    where
        S: Service<LlmRequest>,
        P: Observer,
    {
        #[pin]
        state: State<S, P, W>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, P, W>
    where
        S: Service<LlmRequest>,
        P: Observer,
    {
        // Admitted at once: the readied service was called.
        Admitted {
            #[pin]
            watch: Watch<S::Future, P>,
        },
        // Admitted at once, and nothing is held.
        Passed {
            #[pin]
            future: S::Future,
        },
        // In the queue. In a box, so that the future of a call that need not wait is small.
        Queued {
            queued: Pin<Box<Queued<S, P, W>>>,
        },
        Rejected {
            error: Option<LlmError>,
        },
    }
}

impl<S, P, W> Future for GateFuture<S, P, W>
where
    S: Service<LlmRequest, Response = LlmResponse>,
    S::Error: Into<LlmError>,
    P: Observer,
    W: Future<Output = Result<P, LlmError>>,
{
    type Output = Result<LlmResponse, LlmError>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Admitted { watch } => watch.poll(cx),
            StateProj::Passed { future } => future.poll(cx).map_err(Into::into),
            StateProj::Queued { queued } => queued.as_mut().poll(cx),
            StateProj::Rejected { error } => match error.take() {
                Some(error) => Poll::Ready(Err(error)),
                None => panic!("{OVER}"),
            },
        }
    }
}

pin_project! {
    /// A call that has to wait for its turn.
    struct Queued<S, P, W>
    where
        S: Service<LlmRequest>,
        P: Observer,
    {
        #[pin]
        state: Turn<S, P, W>,
    }
}

pin_project! {
    #[project = TurnProj]
    enum Turn<S, P, W>
    where
        S: Service<LlmRequest>,
        P: Observer,
    {
        // It holds nothing of the service below.
        Waiting {
            #[pin]
            wait: W,
            next: Option<(S, LlmRequest)>,
        },
        // Admitted: the clone is readied, then called.
        Readying {
            #[pin]
            watch: Watch<ReadyCall<S>, P>,
        },
        // Refused after all.
        Over,
    }
}

impl<S, P, W> Future for Queued<S, P, W>
where
    S: Service<LlmRequest, Response = LlmResponse>,
    S::Error: Into<LlmError>,
    P: Observer,
    W: Future<Output = Result<P, LlmError>>,
{
    type Output = Result<LlmResponse, LlmError>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                TurnProj::Readying { watch } => return watch.poll(cx),
                TurnProj::Over => panic!("{OVER}"),
                TurnProj::Waiting { wait, next } => {
                    let permit = ready!(wait.poll(cx));
                    let (service, request) = next.take().expect(OVER);
                    let permit = match permit {
                        Ok(permit) => permit,
                        // Its place in the queue goes with it.
                        Err(error) => {
                            this.state.set(Turn::Over);
                            return Poll::Ready(Err(error));
                        }
                    };
                    let context = Context::of(&request.call);
                    let call = ReadyCall::new(service, request);
                    this.state.set(Turn::Readying {
                        watch: Watch::in_context(context, call, permit),
                    });
                }
            }
        }
    }
}

impl<S: Service<LlmRequest>, P: Observer, W> fmt::Debug for GateFuture<S, P, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.state {
            State::Admitted { .. } | State::Passed { .. } => "GateFuture::Admitted",
            State::Queued { queued } => match queued.state {
                Turn::Waiting { .. } => "GateFuture::Waiting",
                Turn::Over => "GateFuture::Over",
                Turn::Readying { .. } => "GateFuture::Readying",
            },
            State::Rejected { .. } => "GateFuture::Rejected",
        })
    }
}
