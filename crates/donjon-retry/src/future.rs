//! The attempts of one call.

use std::{
    fmt, mem,
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
};

use donjon_core::{
    AttemptCause, AttemptRef, Call, Classify, DefaultTable, LlmError, LlmRequest, LlmResponse,
    shape::{ReadyCall, Spare},
};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tower_service::Service;

use crate::{
    decide::{Progress, Wait},
    handle::Parked,
    layer::Shared,
};

pin_project! {
    /// The future of [`Retry`](crate::Retry).
    ///
    /// It goes round: an attempt is out; it fails; the call is parked and holds nothing of the
    /// service below; the service is readied again, and the next attempt is out.
    pub struct RetryFuture<S, C = DefaultTable>
    where
        S: Service<LlmRequest>,
    {
        #[pin]
        attempt: ReadyCall<S>,
        shared: Arc<Shared<C>>,
        kept: Kept,
        stage: Stage,
        progress: Progress,
    }
}

/// What is kept of the request while an attempt is out.
enum Kept {
    /// All of it, for one more attempt.
    Request(LlmRequest),
    /// There will be no other attempt, so it was given away.
    Last(AttemptRef),
    /// The call is over.
    Nothing,
}

enum Stage {
    /// The first attempt is out, over the service that was readied for it.
    First,
    /// Refused before its first attempt.
    Refused(Option<LlmError>),
    /// The call waits for its next attempt.
    Parked(Parked, Pin<Box<Sleep>>),
    /// A further attempt is out, or the service is being readied for it.
    Again(Deadline),
}

/// The deadline of a further attempt. Its readying is a wait that nobody below can watch, so it is
/// watched here; the timer is made on the first wait.
struct Deadline {
    at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<S, C> RetryFuture<S, C>
where
    S: Service<LlmRequest> + Clone,
    C: Classify,
{
    pub(crate) fn new(
        service: &mut Spare<S>,
        shared: Arc<Shared<C>>,
        mut request: LlmRequest,
    ) -> Self {
        let ledger = request.call.begin();
        if let Some(total) = shared.policy.total_attempts {
            ledger.limit_attempts(total);
        }
        shared.state.begin();
        let held = shared.before_first(&request.call);
        if !matches!(held, Ok(None)) {
            return Self::held_back(service, shared, request, held);
        }
        let mut progress = Progress::default();
        let (request, kept) = open(&shared, request, &mut progress);
        Self {
            attempt: ReadyCall::already_ready(service.take(), request),
            shared,
            kept,
            stage: Stage::First,
            progress,
        }
    }

    /// A call whose first attempt has to wait, or is refused. The service that was readied for it
    /// is let go of, so that nothing below is held meanwhile.
    #[cold]
    fn held_back(
        service: &mut Spare<S>,
        shared: Arc<Shared<C>>,
        request: LlmRequest,
        held: Result<Option<Wait>, LlmError>,
    ) -> Self {
        drop(service.take());
        let (kept, stage) = match held {
            Ok(Some(wait)) => (
                Kept::Request(request.clone()),
                Stage::Parked(wait.parked, Box::pin(sleep(wait.length))),
            ),
            Ok(None) => (Kept::Nothing, Stage::Refused(None)),
            Err(error) => (Kept::Nothing, Stage::Refused(Some(error))),
        };
        Self {
            // It is given the request again when its time has come.
            attempt: ReadyCall::new(service.get_mut().clone(), request),
            shared,
            kept,
            stage,
            progress: Progress::default(),
        }
    }
}

/// Opens the next attempt: the request to send, and what is kept of it. It is cloned only if there
/// can be another attempt after this one.
fn open<C>(
    shared: &Shared<C>,
    mut request: LlmRequest,
    progress: &mut Progress,
) -> (LlmRequest, Kept) {
    let cause = match progress.opened {
        0 => AttemptCause::First,
        _ => AttemptCause::Retry,
    };
    progress.opened += 1;
    let attempt = request.call.claim_attempt(cause);
    let kept = if progress.sent + 1 < shared.policy.most_attempts() {
        Kept::Request(request.clone())
    } else {
        Kept::Last(attempt.clone())
    };
    (request, kept)
}

impl<S, C> Future for RetryFuture<S, C>
where
    S: Service<LlmRequest, Response = LlmResponse>,
    S::Error: Into<LlmError>,
    C: Classify,
{
    type Output = Result<LlmResponse, LlmError>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.stage {
                Stage::First | Stage::Again(_) => {}
                Stage::Refused(error) => {
                    return error
                        .take()
                        .map_or(Poll::Pending, |error| Poll::Ready(Err(error)));
                }
                Stage::Parked(_, timer) => {
                    ready!(timer.as_mut().poll(cx));
                    let Kept::Request(request) = mem::replace(this.kept, Kept::Nothing) else {
                        return Poll::Pending;
                    };
                    let again = Stage::Again(Deadline::new(&request.call));
                    if let Stage::Parked(parked, _) = mem::replace(this.stage, again) {
                        parked.leave();
                    }
                    let (request, kept) = open(this.shared, request, this.progress);
                    *this.kept = kept;
                    this.attempt.as_mut().call_again(request);
                }
            }
            let error = match this.attempt.as_mut().poll(cx) {
                Poll::Ready(Ok(response)) => {
                    this.shared.succeeded(this.progress);
                    return Poll::Ready(Ok(response));
                }
                Poll::Ready(Err(error)) => error,
                Poll::Pending => {
                    let Stage::Again(deadline) = this.stage else {
                        return Poll::Pending;
                    };
                    ready!(deadline.poll(cx));
                    Call::deadline_error()
                }
            };
            // Backoff holds nothing of the service below, and who gives up neither.
            this.attempt.as_mut().rest();
            let Some(attempt) = this.kept.attempt() else {
                return Poll::Ready(Err(error));
            };
            attempt.fail(&error);
            this.progress.sent += u32::from(attempt.was_sent());
            let request = this.kept.request();
            match this.shared.after(&error, request, this.progress) {
                Ok(wait) => {
                    let timer = Box::pin(sleep(wait.length));
                    *this.stage = Stage::Parked(wait.parked, timer);
                }
                Err(reason) => {
                    *this.kept = Kept::Nothing;
                    let error = this.shared.give_up(error, this.progress, reason);
                    return Poll::Ready(Err(error));
                }
            }
        }
    }
}

impl Kept {
    fn attempt(&self) -> Option<&AttemptRef> {
        match self {
            Self::Request(request) => request.call.attempt(),
            Self::Last(attempt) => Some(attempt),
            Self::Nothing => None,
        }
    }

    fn request(&self) -> Option<&LlmRequest> {
        match self {
            Self::Request(request) => Some(request),
            Self::Last(_) | Self::Nothing => None,
        }
    }
}

impl Deadline {
    fn new(call: &Call) -> Self {
        Self {
            at: call.deadline(),
            timer: None,
        }
    }

    fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        let Some(at) = self.at else {
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        timer.as_mut().poll(cx)
    }
}

impl<S: Service<LlmRequest>, C> fmt::Debug for RetryFuture<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match self.stage {
            Stage::First => "first attempt",
            Stage::Refused(_) => "refused",
            Stage::Parked(..) => "parked",
            Stage::Again(_) => "further attempt",
        };
        f.debug_struct("RetryFuture")
            .field("stage", &stage)
            .field("progress", &self.progress)
            .finish_non_exhaustive()
    }
}
