//! The attempts of one call.

use std::{
    fmt, mem,
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
};

use donjon_core::{
    AttemptCause, AttemptRef, Classify, DefaultTable, LlmError, LlmRequest, LlmResponse,
    shape::{ReadyCall, Spare},
};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
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
    /// An attempt is out, or the service is being readied for it.
    Out,
    /// The call waits for its next attempt.
    Parked(Parked, Pin<Box<Sleep>>),
    /// Refused before its first attempt, or over.
    Refused(Option<LlmError>),
}

impl<S, C> RetryFuture<S, C>
where
    S: Service<LlmRequest> + Clone,
    C: Classify,
{
    #[inline]
    pub(crate) fn new(
        service: &mut Spare<S>,
        shared: Arc<Shared<C>>,
        mut request: LlmRequest,
    ) -> Self {
        // A call pays into the budget once, by its first attempt, although each of its targets may
        // be asked through a clone of this layer.
        let first = request.call.attempt().is_none_or(is_first);
        let ledger = request.call.begin();
        if let Some(total) = shared.policy.total_attempts {
            ledger.limit_attempts(total);
        }
        // What is held back is known before the call counts, so that the attempts never get fewer.
        let held = shared.before_first(&request.call);
        shared.state.begin(first);
        if !matches!(held, Ok(None)) {
            return Self::held_back(service, shared, request, held);
        }
        let mut progress = Progress::default();
        let kept = progress.open(&shared, &mut request);
        Self {
            attempt: ReadyCall::already_ready(service.take(), request),
            shared,
            kept,
            stage: Stage::Out,
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

impl Progress {
    /// Opens the next attempt in the call's ledger, and says what is kept of the request. It is
    /// cloned only if there can be another attempt after this one.
    #[inline]
    fn open<C>(&mut self, shared: &Shared<C>, request: &mut LlmRequest) -> Kept {
        let cause = match self.opened {
            0 => AttemptCause::First,
            _ => AttemptCause::Retry,
        };
        self.opened += 1;
        let attempt = request.call.claim_attempt(cause);
        if self.sent + 1 < shared.policy.most_attempts() {
            Kept::Request(request.clone())
        } else {
            Kept::Last(attempt.clone())
        }
    }
}

/// Whether `attempt` and all that it follows from are the first of their kind: a failover of
/// failovers opens one for the group, and one under it for the first target of the group.
#[inline]
fn is_first(attempt: &AttemptRef) -> bool {
    attempt.index() == 0 || follows_from_first(attempt)
}

#[cold]
fn follows_from_first(attempt: &AttemptRef) -> bool {
    let mut next = Some(attempt.read());
    while let Some(seen) = next {
        if seen.cause != AttemptCause::First {
            return false;
        }
        let parent = seen.parent.map(|index| index as usize);
        next = parent.and_then(|index| attempt.ledger().attempts().nth(index));
    }
    true
}

/// Records what `attempt` failed with, and says whether it was sent. A driver further in may have
/// opened attempts of its own under it; then those were sent, and it must not count once more.
fn failed(attempt: &AttemptRef, error: &LlmError) -> bool {
    if attempt.was_sent() || !attempt.led_to_sending() {
        attempt.fail(error);
        return attempt.was_sent();
    }
    attempt.set_error(error);
    attempt.stamp_ended();
    true
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
                Stage::Out => {}
                Stage::Refused(error) => {
                    let error = error.take().expect(OVER);
                    return Poll::Ready(Err(error));
                }
                Stage::Parked(_, timer) => {
                    ready!(timer.as_mut().poll(cx));
                    if let Stage::Parked(parked, _) = mem::replace(this.stage, Stage::Out) {
                        parked.leave();
                    }
                    let Kept::Request(mut request) = mem::replace(this.kept, Kept::Nothing) else {
                        unreachable!("who is parked has kept the request");
                    };
                    *this.kept = this.progress.open(this.shared, &mut request);
                    this.attempt.as_mut().call_again(request);
                }
            }
            let error = match ready!(this.attempt.as_mut().poll(cx)) {
                Ok(response) => {
                    this.shared.succeeded(this.progress);
                    return Poll::Ready(Ok(response));
                }
                Err(error) => error,
            };
            // Backoff holds nothing of the service below, and who gives up neither.
            this.attempt.as_mut().rest();
            let attempt = this.kept.attempt().expect(OVER);
            this.progress.sent += u32::from(failed(attempt, &error));
            let request = this.kept.request();
            match this.shared.after(&error, request, this.progress) {
                Ok(wait) => {
                    let timer = Box::pin(sleep(wait.length));
                    *this.stage = Stage::Parked(wait.parked, timer);
                }
                Err(reason) => {
                    *this.kept = Kept::Nothing;
                    *this.stage = Stage::Refused(None);
                    let error = this.shared.give_up(error, this.progress, reason);
                    return Poll::Ready(Err(error));
                }
            }
        }
    }
}

const OVER: &str = "polled after completion";

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

impl<S: Service<LlmRequest>, C> fmt::Debug for RetryFuture<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match self.stage {
            Stage::Out => "out",
            Stage::Parked(..) => "parked",
            Stage::Refused(_) => "over",
        };
        f.debug_struct("RetryFuture")
            .field("stage", &stage)
            .field("progress", &self.progress)
            .finish_non_exhaustive()
    }
}
