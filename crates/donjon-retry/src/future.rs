//! The attempts of one call.

use std::{
    fmt, mem,
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
};

use donjon_core::{
    AttemptCause, AttemptRef, Classify, DefaultTable, LlmError, LlmRequest, LlmResponse,
    ReservedAttempt, shape::ReadyCall,
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
    /// It begins when it is polled first. Then it goes round: an attempt is out; it fails; the call is parked and holds nothing of the
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
        // Kept for the attempt that is out or comes next, if it is not the first.
        room: Option<ReservedAttempt>,
    }
}

/// What is kept of the request while an attempt is out.
enum Kept {
    /// All of it, for the first attempt or one more.
    Request(LlmRequest),
    /// There will be no other attempt, so it was given away.
    Last(AttemptRef),
    /// The call is over.
    Nothing,
}

enum Stage {
    /// It was not polled yet, and the service is ready.
    SettingOut,
    /// An attempt is out, or the service is being readied for it.
    Out,
    /// The call waits for its next attempt.
    Parked(Parked, Pin<Box<Sleep>>),
    /// Refused before its first attempt, or over.
    Refused(Option<LlmError>),
}

impl Stage {
    fn parked(wait: Wait) -> Self {
        Self::Parked(wait.parked, Box::pin(sleep(wait.length)))
    }
}

impl<S, C> RetryFuture<S, C>
where
    S: Service<LlmRequest>,
{
    /// Will call `service`, which was readied, with `request`.
    #[inline]
    pub(crate) fn new(service: S, shared: Arc<Shared<C>>, request: LlmRequest) -> Self {
        Self {
            attempt: ReadyCall::resting(service),
            shared,
            kept: Kept::Request(request),
            stage: Stage::SettingOut,
            progress: Progress::default(),
            room: None,
        }
    }
}

impl<S, C> RetryFuture<S, C>
where
    S: Service<LlmRequest> + Clone,
    C: Classify,
{
    /// Makes the first attempt, or says why it is not made.
    #[inline]
    fn set_out(self: Pin<&mut Self>) {
        let mut this = self.project();
        let Kept::Request(request) = this.kept else {
            unreachable!("nothing was done with the request yet");
        };
        // A call pays into the budget once, by its first attempt, although each of its targets may
        // be asked through a clone of this layer.
        let first = request.call.attempt().is_none_or(AttemptRef::is_first);
        let ledger = request.call.begin();
        if let Some(total) = this.shared.policy.total_attempts {
            ledger.limit_attempts(total);
        }
        // What is held back is known before the call counts, so that the attempts never get fewer.
        let held = this.shared.before_first(&request.call);
        this.shared.state.begin(first);
        match held {
            Ok(None) => {
                *this.stage = Stage::Out;
                let request = this.progress.open(this.shared, this.kept);
                this.attempt.call_readied(request);
            }
            // Nothing below is held while it waits.
            Ok(Some(wait)) => {
                this.attempt.as_mut().let_go();
                *this.stage = Stage::parked(wait);
            }
            Err(error) => {
                this.attempt.as_mut().let_go();
                *this.kept = Kept::Nothing;
                *this.stage = Stage::Refused(Some(error));
            }
        }
    }
}

impl Progress {
    /// Opens the next attempt in the call's ledger, and makes the request for it of what is kept. It
    /// is cloned only if there can be another attempt after this one.
    #[inline]
    fn open<C>(&mut self, shared: &Shared<C>, kept: &mut Kept) -> LlmRequest {
        let Kept::Request(request) = kept else {
            unreachable!("who makes an attempt has kept the request");
        };
        let cause = match self.opened {
            0 => AttemptCause::First,
            _ => AttemptCause::Retry,
        };
        self.opened += 1;
        let attempt = request.call.claim_attempt(cause);
        if self.sent + 1 < shared.policy.most_attempts() {
            return request.clone();
        }
        let last = Kept::Last(attempt.clone());
        match mem::replace(kept, last) {
            Kept::Request(request) => request,
            Kept::Last(_) | Kept::Nothing => unreachable!("it was a request above"),
        }
    }
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
    S: Service<LlmRequest, Response = LlmResponse> + Clone,
    S::Error: Into<LlmError>,
    C: Classify,
{
    type Output = Result<LlmResponse, LlmError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        if matches!(self.stage, Stage::SettingOut) {
            self.as_mut().set_out();
        }
        let mut this = self.project();
        loop {
            match this.stage {
                Stage::Out => {}
                Stage::SettingOut => unreachable!("it set out above"),
                Stage::Refused(error) => {
                    let error = error.take().expect(OVER);
                    return Poll::Ready(Err(error));
                }
                Stage::Parked(_, timer) => {
                    ready!(timer.as_mut().poll(cx));
                    if let Stage::Parked(parked, _) = mem::replace(this.stage, Stage::Out) {
                        parked.leave();
                    }
                    let request = this.progress.open(this.shared, this.kept);
                    if let (Some(room), Some(attempt)) =
                        (this.room.as_mut(), request.call.attempt())
                    {
                        room.keep_for(attempt);
                    }
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
                Ok(mut wait) => {
                    if let Some(room) = wait.room.take() {
                        room.renew(this.room);
                    }
                    *this.stage = Stage::parked(wait);
                }
                Err(reason) => {
                    *this.kept = Kept::Nothing;
                    *this.stage = Stage::Refused(None);
                    *this.room = None;
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
            Stage::SettingOut => "setting out",
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
