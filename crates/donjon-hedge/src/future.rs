//! The future of a call.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
};

use donjon_core::{AttemptCause, AttemptRef, LlmError, LlmRequest, LlmResponse, shape::ReadyCall};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower_service::Service;

use crate::{
    handle::{HedgeCause, Measured, Suppressed},
    layer::Shared,
    race::{Line, Race},
};

pin_project! {
    /// The future of a [`Hedge`](crate::Hedge).
    ///
    /// It begins when it is polled first. The first attempt stands in it; a timer is made when that keeps
    /// it waiting, and a second attempt when that is due.
    pub struct HedgeFuture<S>
    where
        S: Service<LlmRequest>,
    {
        #[pin]
        first: ReadyCall<S>,
        shared: Arc<Shared>,
        // While another attempt may be made.
        kept: Option<LlmRequest>,
        stage: Stage,
        measured: Measured,
        // Targets that failovers around this one have not tried yet.
        untried: u32,
        timer: Option<Pin<Box<Sleep>>>,
        race: Option<Box<Race<S>>>,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It was not polled yet.
    SettingOut,
    /// The first attempt is out, alone and for ever.
    Plain,
    /// The first attempt is out, and has not kept it waiting yet.
    Out,
    /// The timer is set, if there is to be one.
    Waiting,
    Over,
}

const OVER: &str = "polled after completion";

impl<S> HedgeFuture<S>
where
    S: Service<LlmRequest>,
{
    /// Will call `service`, once it is ready, with `request`.
    #[inline]
    pub(crate) fn new(service: S, shared: Arc<Shared>, request: LlmRequest) -> Self {
        Self {
            first: ReadyCall::resting(service),
            shared,
            kept: Some(request),
            stage: Stage::SettingOut,
            measured: Measured::Answers,
            untried: 0,
            timer: None,
            race: None,
        }
    }
}

impl<S> HedgeFuture<S>
where
    S: Service<LlmRequest, Response = LlmResponse> + Clone,
    S::Error: Into<LlmError>,
{
    /// Makes the first attempt; an error if the service cannot be readied.
    #[inline]
    fn set_out(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Option<LlmError> {
        let mut this = self.project();
        let shared = &**this.shared;
        let request = this.kept.as_mut().expect(OVER);
        let request = if shared.may_hedge(request) {
            shared.state.bucket.deposit();
            *this.stage = Stage::Out;
            *this.measured = Measured::of(request);
            let from = request.call.attempt().map(AttemptRef::index);
            *this.untried = request.call.begin().untried();
            // So that all that is done by the first is known, and can be told that it was superseded.
            let root = request.call.open_attempt(AttemptCause::First);
            if let Some(from) = from {
                root.aim_as(from);
            }
            request.clone()
        } else {
            shared.state.plain.add(0, 1);
            *this.stage = Stage::Plain;
            this.kept.take().expect(OVER)
        };
        match this.first.as_mut().service().poll_ready(cx) {
            Poll::Ready(Ok(())) => this.first.call_readied(request),
            Poll::Pending => this.first.call_again(request),
            Poll::Ready(Err(error)) => {
                if let Some(attempt) = request.call.attempt() {
                    attempt.set_unsent();
                }
                return Some(error.into());
            }
        }
        None
    }

    /// The first attempt has answered.
    #[inline]
    fn first_won(self: Pin<&mut Self>, response: LlmResponse) -> LlmResponse {
        let this = self.project();
        let shared = &**this.shared;
        *this.stage = Stage::Over;
        if let Some(hints) = &response.head.hints {
            shared.heed(hints);
        }
        if let Some(race) = this.race {
            race.supersede_hedges(shared);
            let root = &race.root;
            if race.made() > 0 {
                shared.state.won(false, root.ledger().began_at().elapsed());
            }
            first_served(shared, *this.measured, root);
        } else if let Some(root) = this.kept.as_ref().and_then(|kept| kept.call.attempt()) {
            first_served(shared, *this.measured, root);
        }
        response
    }

    /// Whatever comes after the first attempt has kept it waiting, or has failed with `error`.
    #[cold]
    fn go_on(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        error: Option<LlmError>,
    ) -> Poll<Result<LlmResponse, LlmError>> {
        let mut failed = error.clone();
        if let Some(error) = error {
            let mut this = self.as_mut().project();
            // What it holds goes before anything else is done.
            this.first.as_mut().rest();
            *this.timer = None;
            *this.stage = Stage::Waiting;
            this.shared.learn(&error, Instant::now());
            if let Some(race) = race(this.race, this.kept) {
                race.first_failed(error);
            }
        } else if self.stage == Stage::Out {
            self.as_mut().arm();
        }
        loop {
            let this = self.as_mut().project();
            let shared = &**this.shared;
            if let Some(race) = this.race {
                let mut at = 0;
                while let Some(line) = race.lines.get_mut(at) {
                    match line.call.as_mut().poll(cx) {
                        Poll::Pending => at += 1,
                        Poll::Ready(Ok(response)) => {
                            return Poll::Ready(Ok(self.hedge_won(at, response)));
                        }
                        Poll::Ready(Err(error)) => {
                            shared.learn(&error, Instant::now());
                            race.hedge_failed(at, error.clone(), shared);
                            failed = Some(error);
                        }
                    }
                }
            }
            if let Some(error) = failed.take() {
                // Another attempt at once, or none for this. What is below may be the same target.
                let worth = shared.classify.classify(&error).retry;
                if worth && self.as_mut().fire(HedgeCause::Failed(error.kind())) {
                    continue;
                }
            }
            if self.as_mut().is_due(cx) && self.as_mut().fire(HedgeCause::Slow) {
                continue;
            }
            return self.all_failed();
        }
    }

    /// Whether nobody is left who could answer.
    fn all_failed(self: Pin<&mut Self>) -> Poll<Result<LlmResponse, LlmError>> {
        let this = self.project();
        let Some(race) = this.race.as_mut().filter(|race| race.lines.is_empty()) else {
            return Poll::Pending;
        };
        let Some(error) = race.all_failed() else {
            return Poll::Pending;
        };
        *this.stage = Stage::Over;
        if race.made() > 0 {
            this.shared.state.all_failed();
            // What failovers further in have said of their targets is over with them.
            race.root.ledger().set_untried(*this.untried);
        }
        Poll::Ready(Err(error))
    }

    /// Sets the timer, if the first attempt can be late at all.
    fn arm(self: Pin<&mut Self>) {
        let this = self.project();
        *this.stage = Stage::Waiting;
        let Some(call) = this.kept.as_ref().map(|kept| &kept.call) else {
            return;
        };
        let Some(root) = call.attempt() else { return };
        if let Some((_, at)) = due(this.shared, *this.measured, root) {
            // What would be made at the deadline is not made.
            if call.deadline().is_none_or(|deadline| at < deadline) {
                *this.timer = Some(Box::pin(sleep_until(at)));
            }
        }
    }

    /// Whether the first attempt, or the last hedge, is late.
    fn is_due(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> bool {
        let this = self.project();
        loop {
            let Some(timer) = this.timer.as_mut() else {
                return false;
            };
            if timer.as_mut().poll(cx).is_pending() {
                return false;
            }
            let Some(call) = this.kept.as_ref().map(|kept| &kept.call) else {
                *this.timer = None;
                return false;
            };
            if this.race.as_ref().is_some_and(|race| race.made() > 0) {
                return true;
            }
            // It may have been sent later than was known when the timer was set.
            let now = Instant::now();
            let Some(root) = call.attempt() else {
                return true;
            };
            match due(this.shared, *this.measured, root) {
                Some((true, at)) if at <= now => return true,
                Some((_, at)) if call.deadline().is_none_or(|deadline| at < deadline) => {
                    timer.as_mut().reset(at);
                }
                _ => {
                    *this.timer = None;
                    return false;
                }
            }
        }
    }

    /// Makes a hedge, if there may be one.
    fn fire(self: Pin<&mut Self>, cause: HedgeCause) -> bool {
        let mut this = self.project();
        let shared = &**this.shared;
        let state = &shared.state;
        *this.timer = None;
        let Some(race) = race(this.race, this.kept) else {
            return false;
        };
        let Some(kept) = this.kept.as_mut() else {
            return false;
        };
        let ledger = kept.call.begin().clone();
        if kept.call.time_left().is_zero() {
            *this.kept = None;
            return false;
        }
        shared.learn_of(&ledger, race.root.index());
        let refused = if !state.pause.left(state.now()).is_zero() {
            Err(Suppressed::Limits)
        } else if let Some(room) = ledger.reserve_hedge(*this.untried) {
            match state.bucket.withdraw() {
                true => Ok(room),
                false => Err(Suppressed::Budget),
            }
        } else {
            Err(Suppressed::Attempts)
        };
        let mut room = match refused {
            Ok(room) => room,
            Err(why) => {
                state.suppress(why);
                *this.kept = None;
                return false;
            }
        };
        let parent = race.latest();
        let last = race.made() + 1 == shared.policy.max_hedges;
        let mut request = kept.clone();
        if last {
            *this.kept = None;
        }
        // A failover further in begins as it began in the first.
        ledger.set_untried(*this.untried);
        let attempt = request
            .call
            .open_attempt_from(AttemptCause::Hedge, Some(parent));
        attempt.stand_beside(race.root.index());
        room.keep_for(attempt);
        let attempt = attempt.clone();
        let service = this.first.as_mut().service().clone();
        race.add(Line {
            call: Box::pin(ReadyCall::new(service, request)),
            attempt,
            room,
        });
        state.fired(cause, ledger.began_at().elapsed());
        if let (false, Some(delay)) = (last, shared.delay(*this.measured)) {
            *this.timer = Some(Box::pin(sleep_until(Instant::now() + delay)));
        }
        true
    }

    /// The hedge at this place was faster. Whoever lost is gone before anybody hears of the answer.
    fn hedge_won(self: Pin<&mut Self>, at: usize, response: LlmResponse) -> LlmResponse {
        let mut this = self.project();
        let shared = &**this.shared;
        *this.stage = Stage::Over;
        *this.timer = None;
        *this.kept = None;
        if let Some(hints) = &response.head.hints {
            shared.heed(hints);
        }
        if let Some(race) = this.race {
            drop(race.lines.remove(at));
            let first = this.first.as_mut();
            race.supersede_first(*this.measured, shared, || first.rest());
            race.supersede_hedges(shared);
            shared
                .state
                .won(true, race.root.ledger().began_at().elapsed());
        }
        response
    }
}

/// The race of a call, begun if it was not.
fn race<'a, S: Service<LlmRequest>>(
    race: &'a mut Option<Box<Race<S>>>,
    kept: &Option<LlmRequest>,
) -> Option<&'a mut Race<S>> {
    if race.is_none() {
        let root = kept.as_ref()?.call.attempt()?.clone();
        *race = Some(Box::new(Race::new(root)));
    }
    race.as_deref_mut()
}

/// When the first attempt will be late, and whether that is final: it may be sent later than now.
fn due(shared: &Shared, measured: Measured, root: &AttemptRef) -> Option<(bool, Instant)> {
    let delay = shared.delay(measured)?;
    let ledger = root.ledger();
    let sent = (root.index()..ledger.opened()).find_map(|index| ledger.sent_at(index));
    match sent {
        Some(sent) => Some((true, sent.checked_add(delay)?)),
        None if shared.policy.sent_only => Some((false, Instant::now().checked_add(delay)?)),
        None => Some((true, ledger.began_at().checked_add(delay)?)),
    }
}

/// The first attempt, or one that followed from it, has served.
#[inline]
fn first_served(shared: &Shared, measured: Measured, root: &AttemptRef) {
    shared.state.served(measured, root.ledger(), root.index());
    shared.learn_of(root.ledger(), root.index());
}

impl<S> Future for HedgeFuture<S>
where
    S: Service<LlmRequest, Response = LlmResponse> + Clone,
    S::Error: Into<LlmError>,
{
    type Output = Result<LlmResponse, LlmError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let unready = match self.stage {
            Stage::SettingOut => self.as_mut().set_out(cx),
            Stage::Over => panic!("{OVER}"),
            _ => None,
        };
        let this = self.as_mut().project();
        let first = match unready {
            Some(error) => Poll::Ready(Err(error)),
            // It rests, and stays pending, once it has failed.
            None => this.first.poll(cx),
        };
        let error = match first {
            Poll::Ready(Ok(response)) => return Poll::Ready(Ok(self.first_won(response))),
            Poll::Ready(Err(error)) => Some(error),
            Poll::Pending => None,
        };
        if self.stage == Stage::Plain {
            return match error {
                Some(error) => {
                    *self.project().stage = Stage::Over;
                    Poll::Ready(Err(error))
                }
                None => Poll::Pending,
            };
        }
        self.go_on(cx, error)
    }
}

impl<S: Service<LlmRequest>> fmt::Debug for HedgeFuture<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hedges = self.race.as_deref().map_or(0, Race::made);
        f.debug_struct("HedgeFuture")
            .field("stage", &self.stage)
            .field("hedges", &hedges)
            .finish_non_exhaustive()
    }
}
